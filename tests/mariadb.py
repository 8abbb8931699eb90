"""Fresh databases on the MariaDB server that EVENTSTORE_SA_TEST_MARIADB_URL names, whose user may create databases.

MariaDB is an experiment, and no pip package holds a server: without the variable, the tests marked `mariadb` are left
out, and the summary says so. `python -m tests.mariadb` prints the address of a server of this machine, if there is one.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Literal
from uuid import uuid4

import pytest
from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

__all__ = ["MARIADB_URL", "MARIADB_VARIABLE", "NEEDS_MARIADB", "MariaDBDriver", "fresh_mariadb_database", "on_driver"]

MariaDBDriver = Literal["pymysql", "asyncmy"]

MARIADB_VARIABLE: Final = "EVENTSTORE_SA_TEST_MARIADB_URL"
MARIADB_URL: Final = os.environ.get(MARIADB_VARIABLE, "")
"""The address of the server; empty when there is none."""

NEEDS_MARIADB = pytest.mark.mariadb

_LOCAL: Final = "mariadb+pymysql://root@127.0.0.1:3306"


@contextmanager
def fresh_mariadb_database() -> Generator[URL]:
    """Provide the address, for PyMySQL, of a database that nobody else uses; dropped at the end.

    Its connections are not encrypted: reading the certificates of the system takes longer than most tests.
    """
    server = make_url(MARIADB_URL).set(drivername="mariadb+pymysql").update_query_dict({"ssl_disabled": "true"})
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    name = f"eventstore_sa_test_{uuid4().hex[:16]}"
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))


def on_driver(url: URL, driver: MariaDBDriver) -> URL:
    """Return the address of such a database for a driver."""
    address = url.set(drivername=f"mariadb+{driver}")
    return address if driver == "pymysql" else address.difference_update_query(["ssl_disabled"])


def local_server() -> str:
    """Return the address of a server of this machine that lets root in without a password; else an empty string."""
    try:
        with create_engine(_LOCAL, poolclass=NullPool, connect_args={"connect_timeout": 10}).connect():
            return _LOCAL
    except OperationalError:
        return ""


if __name__ == "__main__":
    print(local_server())
