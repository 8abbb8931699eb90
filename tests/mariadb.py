"""Fresh databases on the MariaDB server that EVENTSTORE_SA_TEST_MARIADB_URL names, whose user may create databases.

MariaDB is an experiment, and no pip package holds a server: without the variable these tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal
from uuid import uuid4

import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url, text

__all__ = ["NEEDS_MARIADB", "MariaDBDriver", "fresh_mariadb_database"]

MariaDBDriver = Literal["pymysql", "asyncmy"]

_VARIABLE = "EVENTSTORE_SA_TEST_MARIADB_URL"

NEEDS_MARIADB = pytest.mark.skipif(_VARIABLE not in os.environ, reason=f"{_VARIABLE} names no MariaDB server")


@contextmanager
def fresh_mariadb_database() -> Generator[URL]:
    """Provide the address, for PyMySQL, of a database that nobody else uses; dropped at the end."""
    server = make_url(os.environ[_VARIABLE]).set(drivername="mariadb+pymysql")
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    name = f"eventstore_sa_test_{uuid4().hex[:16]}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))
