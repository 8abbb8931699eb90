"""Starts and stops one temporary server: the owner's side of `keeper`.

Chooses the arguments of `initdb` and `postgres`, the user they run as when this process is root, and their private
directory. Knows nothing about databases or drivers; used by `temporary` only.
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
from dataclasses import dataclass
from pathlib import Path

from eventstore_sa.testing.postgres.binaries import PostgresBinaries
from eventstore_sa.testing.postgres.errors import TemporaryPostgresError
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


@dataclass(frozen=True, kw_only=True)
class RunningCluster:
    """The addresses of a running server: a port of 127.0.0.1, and the directory of its Unix socket."""

    port: int
    socket_directory: Path


class _PortTakenError(Exception):
    pass


@contextmanager
def running_cluster(
    binaries: PostgresBinaries, *, durable: bool, settings: Mapping[str, str]
) -> Generator[RunningCluster]:
    """Run a server in a private temporary directory until the block or this process ends.

    Raises:
        TemporaryPostgresError: If a setting cannot be overridden, if there is no user to run the server as, or if `initdb`
            or `postgres` failed; the message then has the end of their log.
    """
    taken = sorted(_OWN_SETTINGS & {name.lower() for name in settings})
    if taken:
        raise TemporaryPostgresError(f"the temporary server chooses {', '.join(taken)} itself: remove it from settings")
    chosen = _SETTINGS | ({} if durable else _FORGETFUL_SETTINGS) | dict(settings)
    account = _server_account()
    for attempt in range(1, _ATTEMPTS + 1):
        keeper = _Keeper(account, durable=durable)
        try:
            try:
                port = keeper.start(binaries, chosen)
            except _PortTakenError as error:
                if attempt == _ATTEMPTS:
                    raise TemporaryPostgresError(f"found no free port in {_ATTEMPTS} attempts: {error}") from error
                continue
            yield RunningCluster(port=port, socket_directory=keeper.directory)
            return
        finally:
            keeper.stop()


class _Keeper:
    """The keeper process of one server, and their directory."""

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
            env=os.environ | {"LC_ALL": "C"},  # English messages: `start` searches them.
            start_new_session=True,  # Ctrl-C in a terminal reaches only the owner, which sends stop.
        )

    def start(self, binaries: PostgresBinaries, settings: Mapping[str, str]) -> int:
        """Create and start the server; return its port once it accepts connections."""
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
        raise TemporaryPostgresError(
            f"PostgreSQL of '{binaries.directory}' did not start: {trouble or 'no reason given'}"
        )

    def stop(self) -> None:
        """Stop the server, remove its directory, and wait until both are gone.

        Does nothing in a forked child, which does not own the server.
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
            self.process.kill()  # On Linux, the kernel then ends postgres.
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)  # Still there only if the keeper was killed.

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
            raise TemporaryPostgresError(
                f"user {self.account.pw_name!r} cannot run '{binaries.directory / 'postgres'}', nor a copy of it in "
                f"'{self.directory}': set TMPDIR to a directory that is not mounted noexec"
            )
        return copy

    def _say(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # It has already exited, and printed why.
            self.process.stdin.write(f"{line}\n".encode())


def _private_directory(account: pwd.struct_passwd | None, *, durable: bool) -> Path:
    """Make a directory that the server's user can reach and that only this user can enter."""
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
    raise TemporaryPostgresError(
        f"no temporary server can run in any of {', '.join(parents)}: set TMPDIR to a short path that "
        f"{f'user {account.pw_name!r}' if account else 'this user'} can enter"
    )


def _memory_is_roomy() -> bool:
    """Return whether the file system in memory has room for a server; creating databases is ten times faster there."""
    try:
        return shutil.disk_usage(_MEMORY).free >= _MEMORY_NEEDED_BYTES and os.access(_MEMORY, os.W_OK)
    except OSError:  # macOS has none.
        return False


def _server_account() -> pwd.struct_passwd | None:
    """Return the unprivileged user to run the server as if this process is root, else None."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            if account.pw_uid != 0 and _may(account, "-d", Path("/")):
                return account
    raise TemporaryPostgresError(
        f"PostgreSQL refuses to run as root, and this process cannot switch to any of {', '.join(_ACCOUNTS)}: run it as "
        "another user, or set EVENTSTORE_SA_TEST_POSTGRES_URL to a running server"
    )


def _may(account: pwd.struct_passwd, how: str, path: Path) -> bool:
    """Ask the kernel as that user: modes of parents, access control lists and user namespaces all count."""
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
    """Return a free port, which another process may take before the server does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
