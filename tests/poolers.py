"""A real PgBouncer in front of the test server, started for a test and stopped after it.

It hands each transaction to the server connection that has rested longest, so that what a client leaves behind on one, or
expects on another, shows at once and not at random.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec
import pytest
from sqlalchemy import URL, NullPool, create_engine, text

from tests.databases import PostgresDatabase

__all__ = ["NEEDS_PGBOUNCER", "SERVERS", "PoolMode", "pgbouncer"]

PoolMode = Literal["transaction", "session"]

SERVERS: Final = 3
"""How many connections to the server there are."""

_REQUIRED: Final = "EVENTSTORE_SA_TEST_PGBOUNCER"
_PROGRAM: Final = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
_ACCOUNTS: Final = ("nobody", "postgres", "daemon")
_ATTEMPTS: Final = 5

# Where it is required it fails; see `pgbouncer`.
NEEDS_PGBOUNCER = pytest.mark.skipif(
    _PROGRAM is None and _REQUIRED not in os.environ,
    reason="there is no pgbouncer; on Debian and Ubuntu: apt install pgbouncer",
)


class Pooler(msgspec.Struct, frozen=True, kw_only=True):
    """A running pooler, and the database behind it."""

    port: int
    database: PostgresDatabase

    def url(self, drivername: str) -> URL:
        """Return the address of the database by way of the pooler."""
        return self.database.url(None).set(drivername=drivername, host="127.0.0.1", port=self.port)


@contextmanager
def pgbouncer(database: PostgresDatabase, directory: Path, *, mode: PoolMode) -> Generator[Pooler]:
    """Run PgBouncer in front of a database, with all of its connections to the server open."""
    if _PROGRAM is None:
        raise AssertionError(f"{_REQUIRED} is set, and there is no pgbouncer")
    for _ in range(_ATTEMPTS):
        port = _free_port()
        process = _started(_PROGRAM, database, directory, port=port, mode=mode)
        if process is not None:
            break
    else:
        raise AssertionError("pgbouncer found no free port")
    try:
        pooler = Pooler(port=port, database=database)
        if mode == "transaction":
            _open_all(pooler)
        yield pooler
    finally:
        process.kill()
        process.communicate()


def _started(
    program: str, database: PostgresDatabase, directory: Path, *, port: int, mode: PoolMode
) -> subprocess.Popen[str] | None:
    """Start it; None when the port is taken."""
    url = database.url(None)
    server = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": mode,
        "default_pool_size": SERVERS,
        "server_round_robin": 1,
        "max_client_conn": 200,
        # Nobody reads what it says once it is up.
        "log_connections": 0,
        "log_disconnections": 0,
        "log_pooler_errors": 0,
        "log_stats": 0,
    }
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        "\n".join(
            (
                "[databases]",
                f"{database.name} = " + " ".join(f"{key}={value}" for key, value in server.items() if value),
                "[pgbouncer]",
                *(f"{key} = {value}" for key, value in settings.items()),
            )
        )
    )
    # It refuses to run as root, and the directories of tests are for their owner alone.
    with configuration.open() as opened:
        process = subprocess.Popen(
            [program, "/dev/stdin"],
            stdin=opened,
            stderr=subprocess.PIPE,
            text=True,
            user=_account() if os.geteuid() == 0 else None,
        )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "process up" in line:
            return process
    process.wait()
    if "ddress already in use" in "".join(said):
        return None
    raise AssertionError(f"pgbouncer did not start: {''.join(said)}")


def _account() -> int:
    accounts = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return next(accounts[name] for name in _ACCOUNTS if name in accounts)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _open_all(pooler: Pooler) -> None:
    engine = create_engine(pooler.url("postgresql+psycopg2"), poolclass=NullPool)
    with ExitStack() as stack:
        for _ in range(SERVERS):
            stack.enter_context(engine.connect()).execute(text("SELECT 1"))
