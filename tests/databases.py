"""Fresh PostgreSQL databases for tests, made from templates that are prepared once a session.

Used by the fixtures of `conftest`; a test that needs more than they offer may call these directly.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec
from sqlalchemy import URL

from eventstore_sa.testing.postgres import PostgresDriver, PostgresServer

__all__ = ["PostgresDatabase", "PostgresTemplates", "fresh_database"]


class PostgresDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """One database of the test server."""

    server: PostgresServer
    name: str

    def url(self, driver: PostgresDriver | None) -> URL:
        """Return its address for one driver, or for SQLAlchemy's default driver when None."""
        return self.server.url_for(self.name, driver)


class PostgresTemplates:
    """Databases to copy, each prepared by one function that runs once a session, at the first request."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._names: dict[Callable[[PostgresDatabase], object], str] = {}

    def prepared_by(self, prepare: Callable[[PostgresDatabase], object]) -> str:
        """Return the name of the template that `prepare` has filled; it must leave no connection open.

        The key is the function itself: pass one of module level, not a lambda made anew for each test.
        """
        if prepare not in self._names:
            database = PostgresDatabase(server=self._server, name=self._server.create_database())
            try:
                prepare(database)
            except BaseException:
                self._server.drop_database(database.name)
                raise
            self._names[prepare] = database.name
        return self._names[prepare]


@contextmanager
def fresh_database(server: PostgresServer, template: str | None = None) -> Generator[PostgresDatabase]:
    """Provide a database that nobody else uses, a copy of `template` or else empty; dropped at the end."""
    name = server.create_database(template=template)
    try:
        yield PostgresDatabase(server=server, name=name)
    finally:
        server.drop_database(name)
