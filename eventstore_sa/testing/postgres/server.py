"""A PostgreSQL server to create databases in: addresses for any driver, new databases, templates.

Talks to the server through whichever driver is installed. Does not know where the server came from, nor how it ends.
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

from eventstore_sa.errors import ConfigurationError

__all__ = ["DATABASE_PREFIX", "PostgresDriver", "PostgresServer"]

PostgresDriver = Literal["asyncpg", "psycopg", "psycopg2"]
"""The drivers that the library is tested with, as SQLAlchemy spells them."""

DATABASE_PREFIX = "eventstore_sa_test_"
"""How the names of databases begin that `create_database` names itself."""

_ADMINISTRATION_DRIVERS: tuple[PostgresDriver, ...] = ("psycopg", "psycopg2", "asyncpg")


class PostgresServer:
    """A running PostgreSQL server in which this process may create databases.

    Can be used from several threads. It holds no connection between calls, so it may be used in forked children too;
    each process can drop only the databases that it created itself, or had created before it was forked.
    """

    def __init__(self, url: URL, *, socket_directory: Path | None = None) -> None:
        """Wrap the server at `url`, whose database must exist: it is where databases are created from."""
        self._url = url.set(drivername="postgresql")
        self._socket_directory = socket_directory
        self._created: set[str] = set()

    def __repr__(self) -> str:
        return f"PostgresServer({self._url!r})"

    @property
    def url(self) -> URL:
        """The address as `postgresql://`, without a driver; a password in it is masked by `str` and `repr`."""
        return self._url

    @property
    def socket_directory(self) -> Path | None:
        """The folder with the Unix socket of a server that was started here, for its user and root only; else None."""
        return self._socket_directory

    @cached_property
    def version(self) -> tuple[int, int]:
        """Major and minor version, such as `(18, 6)`. The first use connects to the server."""
        number = int(str(self._administer(lambda _: "SHOW server_version_num")))
        return number // 10_000, number % 10_000

    @property
    def databases(self) -> frozenset[str]:
        """The names of the databases that were created through this object and not yet dropped."""
        return frozenset(self._created)

    def url_for(self, database: str, driver: PostgresDriver | None = "asyncpg") -> URL:
        """Return the address of one database for one driver, or for SQLAlchemy's default driver when None."""
        return self._url.set(drivername=f"postgresql+{driver}" if driver else "postgresql", database=database)

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Create a database and return its name.

        Args:
            name: Its name; by default a new one that begins with `DATABASE_PREFIX`.
            template: The database to copy, to which nobody may be connected; by default an empty one with encoding
                UTF8 and locale C, whatever the defaults of the server are.

        Raises:
            sqlalchemy.exc.DBAPIError: The server refused, e.g. since the name is taken or the template is in use.
        """
        chosen = name or f"{DATABASE_PREFIX}{secrets.token_hex(8)}"
        source = template or "template0"
        form = "" if template else " ENCODING 'UTF8' LOCALE 'C'"
        self._administer(lambda quote: f"CREATE DATABASE {quote(chosen)} TEMPLATE {quote(source)}{form}")
        self._created.add(chosen)
        return chosen

    def drop_database(self, name: str) -> None:
        """Drop a database that was created through this object, ending the connections that it still has.

        Raises:
            ConfigurationError: It was not created here, or dropped already: it may be someone else's.
        """
        if name not in self._created:
            raise ConfigurationError(
                f"database {name!r} was not created through this server object, or was dropped before: "
                "drop only what create_database returned"
            )
        self._administer(lambda quote: f"DROP DATABASE IF EXISTS {quote(name)} WITH (FORCE)")
        self._created.discard(name)

    def _administer(self, statement: Callable[[Callable[[str], str]], str]) -> object:
        """Execute one statement outside any transaction; return its first value, if it returns rows."""
        engine = self._engine
        if isinstance(engine, Engine):
            with engine.connect() as connection:
                return _execute(connection, statement)
        # The caller may be inside an event loop, where asyncio.run is forbidden; a new thread never is.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _execute_async(engine, statement)).result()

    @cached_property
    def _engine(self) -> Engine | AsyncEngine:
        driver = next((name for name in _ADMINISTRATION_DRIVERS if find_spec(name)), None)
        if driver is None:
            raise ImportError(
                "no PostgreSQL driver is installed: install one with the extra 'eventstore-sa[psycopg]' "
                "(or [psycopg2], or [asyncpg])"
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
