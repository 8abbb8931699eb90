"""Creates and drops databases of a running PostgreSQL server, and builds their URLs for any driver.

Connects with whichever driver is installed. Does not know how the server was started.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa.testing.postgres.errors import TemporaryPostgresError

__all__ = ["DATABASE_PREFIX", "PostgresDriver", "PostgresServer"]

PostgresDriver = Literal["asyncpg", "psycopg", "psycopg2"]
"""The supported drivers, as SQLAlchemy names them."""

DATABASE_PREFIX = "eventstore_sa_test_"
"""The prefix of the names that `create_database` makes."""

_ADMINISTRATION_DRIVERS: tuple[PostgresDriver, ...] = ("psycopg", "psycopg2", "asyncpg")


class PostgresServer:
    """A running PostgreSQL server in which this process can create databases.

    It can be used from several threads, and in forked children, because it holds no connection between calls. A process
    can drop only databases that it created, itself or before it was forked.
    """

    def __init__(self, url: URL, *, socket_directory: Path | None = None) -> None:
        """Wrap the server at `url`, whose database must exist: databases are created through a connection to it."""
        self._url = url.set(drivername="postgresql")
        self._socket_directory = socket_directory
        self._created: set[str] = set()

    def __repr__(self) -> str:
        return f"PostgresServer({self._url!r})"

    @property
    def url(self) -> URL:
        """The URL of the server, without a driver; `str` and `repr` mask a password in it."""
        return self._url

    @property
    def socket_directory(self) -> Path | None:
        """The folder of the Unix socket, private to the server's user; None if the server was not started here."""
        return self._socket_directory

    @cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor version, such as `(18, 6)`. The first use connects to the server."""
        number = int(str(self._administer(lambda _: "SHOW server_version_num")))
        return number // 10_000, number % 10_000

    @property
    def databases(self) -> frozenset[str]:
        """The names of the databases that this object created and has not dropped."""
        return frozenset(self._created)

    def url_for(self, database: str, driver: PostgresDriver | None = "asyncpg") -> URL:
        """Return the URL of a database for a driver, or for SQLAlchemy's default driver if None."""
        return self._url.set(drivername=f"postgresql+{driver}" if driver else "postgresql", database=database)

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Create a database and return its name.

        Args:
            name: The name; by default a new one that begins with `DATABASE_PREFIX`.
            template: The database to copy, which must have no connections. By default the new database is empty, with
                encoding UTF8 and locale C, whatever the server's defaults are.

        Raises:
            sqlalchemy.exc.DBAPIError: If the server refuses, for example because the name is taken.
        """
        chosen = name or f"{DATABASE_PREFIX}{secrets.token_hex(8)}"
        source = template or "template0"
        form = "" if template else " ENCODING 'UTF8' LOCALE 'C'"
        self._administer(lambda quote: f"CREATE DATABASE {quote(chosen)} TEMPLATE {quote(source)}{form}")
        self._created.add(chosen)
        return chosen

    def drop_database(self, name: str) -> None:
        """Drop a database that this object created; its open connections are closed.

        Raises:
            TemporaryPostgresError: If this object did not create it, or has already dropped it.
        """
        if name not in self._created:
            raise TemporaryPostgresError(
                f"database {name!r} was not created by this server object, or has already been dropped: "
                "pass a name that create_database returned"
            )
        self._administer(lambda quote: f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")
        self._created.discard(name)

    def _administer(self, statement: Callable[[Callable[[str], str]], str]) -> object:
        """Execute a statement outside a transaction; return the first value if it returns rows."""
        engine = self._engine
        if isinstance(engine, Engine):
            with engine.connect() as connection:
                return _execute(connection, statement)
        # The caller may run in an event loop, where asyncio.run is not allowed; a new thread has none.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _execute_async(engine, statement)).result()

    @cached_property
    def _engine(self) -> Engine | AsyncEngine:
        driver = next((name for name in _ADMINISTRATION_DRIVERS if find_spec(name)), None)
        if driver is None:
            raise ImportError(
                "no PostgreSQL driver is installed: install the extra 'eventstore-sa[psycopg]', [psycopg2] or [asyncpg]"
            )
        url = self._url.set(drivername=f"postgresql+{driver}")
        create = create_async_engine if driver == "asyncpg" else create_engine
        return create(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


def _execute(connection: Connection, statement: Callable[[Callable[[str], str]], str]) -> object:
    result = connection.exec_driver_sql(statement(connection.dialect.identifier_preparer.quote_identifier))
    return result.scalar() if result.returns_rows else None


async def _execute_async(engine: AsyncEngine, statement: Callable[[Callable[[str], str]], str]) -> object:
    async with engine.connect() as connection:
        return await connection.run_sync(_execute, statement)
