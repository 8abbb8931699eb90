"""Starts one temporary server from given binaries, and stops it: the owner's side of `keeper`.

Decides what `initdb` and `postgres` are told, which user they run as when this process is root, and where their
private directory is. Knows nothing of databases or drivers; used by `temporary` only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from eventstore_sa.errors import ConfigurationError, StorageError
from eventstore_sa.testing.postgres.binaries import PostgresBinaries
from eventstore_sa.testing.postgres.keeper import Plan

__all__ = ["RunningCluster", "running_cluster"]

_SETTINGS = {"max_connections": "200", "max_prepared_transactions": "20", "timezone": "UTC", "log_timezone": "UTC"}
_FORGETFUL_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
_OWN_SETTINGS = frozenset({"data_directory", "listen_addresses", "port", "unix_socket_directories"})
_ACCOUNTS = ("nobody", "postgres", "daemon")
_ATTEMPTS = 5
_STOP_TIMEOUT_S = 30.0
_MEMORY = "/dev/shm"  # noqa: S108
_MEMORY_NEEDED_BYTES = 4 * 2**30  # Containers often have 64 MB, which WAL alone would fill.
_LONGEST_SOCKET_PATH = 103  # macOS; Linux allows 107


class RunningCluster(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running server can be reached: at 127.0.0.1 and in a directory with its Unix socket."""

    port: int
    socket_directory: Path


class _PortTakenError(Exception):
    pass


@contextmanager
def running_cluster(
    binaries: PostgresBinaries, *, durable: bool, settings: Mapping[str, str]
) -> Generator[RunningCluster]:
    """Run a server in a private temporary directory, until the block ends or this process does.

    Raises:
        ConfigurationError: A setting is not the caller's to choose, or no user is there to run the server as.
        StorageError: `initdb` or `postgres` failed; the end of their log is in the message.
    """
    taken = sorted(_OWN_SETTINGS & {name.lower() for name in settings})
    if taken:
        raise ConfigurationError(f"the settings {', '.join(taken)} are chosen by the temporary server: leave them out")
    chosen = _SETTINGS | ({} if durable else _FORGETFUL_SETTINGS) | dict(settings)
    account = _server_account()
    for attempt in range(1, _ATTEMPTS + 1):
        keeper = _Keeper(account, durable=durable)
        try:
            try:
                port = keeper.start(binaries, chosen)
            except _PortTakenError as error:
                if attempt == _ATTEMPTS:
                    raise StorageError(f"no free port was to be had in {_ATTEMPTS} attempts: {error}") from error
                continue
            yield RunningCluster(port=port, socket_directory=keeper.directory)
            return
        finally:
            keeper.stop()


class _Keeper:
    """The keeper process of one server, with the directory that they share."""

    def __init__(self, account: pwd.struct_passwd | None, *, durable: bool) -> None:
        self.account = account
        self.owner = os.getpid()
        self.directory = _private_directory(account, durable=durable)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", Path(__file__).with_name("keeper.py"), self.directory, str(self.owner)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},  # So that messages are in English: `start` looks into them.
            start_new_session=True,  # Ctrl-C in a terminal reaches the owner only, which then says stop.
        )

    def start(self, binaries: PostgresBinaries, settings: Mapping[str, str]) -> int:
        """Have the server created and started; return its port once it accepts connections."""
        if self.account and not _may(self.account, "-x", binaries.directory / "postgres"):
            binaries = self._copy_for_account(binaries)
        port = _free_port()
        self._say(json.dumps(self._plan(binaries, settings, port)))
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if answer == b"ready\n":
            return port
        trouble = (answer + self.process.stdout.read()).decode(errors="replace").strip()
        if "Address already in use" in trouble:
            raise _PortTakenError(trouble)
        raise StorageError(f"PostgreSQL of '{binaries.directory}' could not be started: {trouble or 'no reason given'}")

    def stop(self) -> None:
        """Have the server killed and its directory removed, and wait for it.

        Does nothing in a forked child, whose exit is no business of the server.
        """
        if os.getpid() != self.owner:
            return
        self._say("stop")
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # The kernel then ends postgres, on Linux.
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)  # Only there if the keeper was killed.

    def _plan(self, binaries: PostgresBinaries, settings: Mapping[str, str], port: int) -> Plan:
        data = str(self.directory / "data")
        own = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(self.directory)}
        return {
            "initdb": [
                str(binaries.directory / "initdb"),
                *("--pgdata", data, "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            "postgres": [
                str(binaries.directory / "postgres"),
                *("-D", data),
                *(part for name, value in {**settings, **own}.items() for part in ("-c", f"{name}={value}")),
            ],
            "user": self.account.pw_uid if self.account else None,
            "group": self.account.pw_gid if self.account else None,
        }

    def _copy_for_account(self, binaries: PostgresBinaries) -> PostgresBinaries:
        assert self.account is not None
        target = self.directory / "binaries"
        copy = binaries.copy_to(target)
        for path in (target, *target.rglob("*")):
            os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)
        if not _may(self.account, "-x", copy.directory / "postgres"):
            raise ConfigurationError(
                f"user {self.account.pw_name!r} may not run '{binaries.directory / 'postgres'}', nor a copy of it in "
                f"'{self.directory}': set TMPDIR to a directory that is not mounted noexec"
            )
        return copy

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It has ended already, and said why.
            self.process.stdin.write(f"{line}\n".encode())


def _private_directory(account: pwd.struct_passwd | None, *, durable: bool) -> Path:
    """Make a directory that only the server's user can enter, where that user can reach it."""
    parents = [tempfile.gettempdir(), "/tmp", "/var/tmp"]  # noqa: S108
    if not durable and not any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")) and _memory_is_roomy():
        parents.insert(0, _MEMORY)
    for parent in dict.fromkeys(parents):
        longest = Path(parent, "eventstore-sa-postgres-xxxxxxxx", ".s.PGSQL.65535.lock")
        if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH or (account and not _may(account, "-x", Path(parent))):
            continue
        directory = Path(tempfile.mkdtemp(prefix="eventstore-sa-postgres-", dir=parent)).resolve()
        if account:
            os.chown(directory, account.pw_uid, account.pw_gid)
        return directory
    raise ConfigurationError(
        f"none of {', '.join(parents)} can hold a temporary server: set TMPDIR to a short path that "
        f"{f'user {account.pw_name!r}' if account else 'this user'} may enter"
    )


def _memory_is_roomy() -> bool:
    """Tell whether a file system in memory has room for a server: databases are made ten times faster there."""
    try:
        return shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES and os.access(_MEMORY, os.W_OK)
    except OSError:  # macOS has none.
        return False


def _server_account() -> pwd.struct_passwd | None:
    """Choose the user to run the server as: this one, or an unprivileged one when this is root."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            if account.pw_uid != 0 and _may(account, "-d", Path("/")):
                return account
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and this process cannot become any of {', '.join(_ACCOUNTS)}: run it as "
        "another user, or name a running server in EVENTSTORE_SA_TEST_POSTGRES_URL"
    )


def _may(account: pwd.struct_passwd, how: str, path: Path) -> bool:
    """Ask the kernel, as that user, so that modes of parents, access lists and user namespaces all count."""
    try:
        asked = subprocess.run(
            ["/bin/sh", "-c", 'test "$0" "$1"', how, path],
            cwd="/",
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            check=False,
            capture_output=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return asked.returncode == 0


def _free_port() -> int:
    """Let the kernel choose; another process may take it before the server does, so be ready to try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
