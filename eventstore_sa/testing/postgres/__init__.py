"""Throwaway PostgreSQL servers for tests, demos and benchmarks. Nothing here knows about events.

`temporary_postgres` is all that most callers need; docs/testing-postgres.md describes it. `binaries` finds installations.
`keeper` is the small process that owns a running server and stops it when its user exits; `cluster` talks to it. `server`
creates and drops databases. Servers are started on POSIX systems only; elsewhere, set `EVENTSTORE_SA_TEST_POSTGRES_URL`.

This package imports nothing from the rest of eventstore_sa.
"""

from __future__ import annotations

from eventstore_sa.testing.postgres.binaries import PostgresBinaries, find_postgres_binaries
from eventstore_sa.testing.postgres.errors import TemporaryPostgresError
from eventstore_sa.testing.postgres.server import PostgresDriver, PostgresServer
from eventstore_sa.testing.postgres.temporary import URL_VARIABLE, PostgresSource, temporary_postgres

__all__ = [
    "URL_VARIABLE",
    "PostgresBinaries",
    "PostgresDriver",
    "PostgresServer",
    "PostgresSource",
    "TemporaryPostgresError",
    "find_postgres_binaries",
    "temporary_postgres",
]
