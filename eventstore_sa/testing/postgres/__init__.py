"""Throwaway PostgreSQL servers for tests, demos and benchmarks.

`temporary_postgres` is all that most callers need. `binaries` finds installations; `keeper` is the small process that
owns a running server and outlives its user by moments only; `cluster` talks to it; `server` creates and drops
databases. Servers are started on POSIX systems only; elsewhere, name one in `EVENTSTORE_SA_TEST_POSTGRES_URL`.
"""

from __future__ import annotations

from eventstore_sa.testing.postgres.binaries import PostgresBinaries, find_postgres_binaries
from eventstore_sa.testing.postgres.server import PostgresDriver, PostgresServer
from eventstore_sa.testing.postgres.temporary import URL_VARIABLE, PostgresSource, temporary_postgres

__all__ = [
    "URL_VARIABLE",
    "PostgresBinaries",
    "PostgresDriver",
    "PostgresServer",
    "PostgresSource",
    "find_postgres_binaries",
    "temporary_postgres",
]
