"""Databases and clients that are not in UTF-8 are refused at the first use and by verify_schema, with what to do."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import EventStore, EventStoreSchema, SyncEventStore, verify_schema
from eventstore_sa.errors import ConfigurationError, LockTimeoutError, SchemaError, StorageError
from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import entered, settled
from tests.databases import PostgresDatabase
from tests.hosts import POSTGRES_DRIVERS, SQLITE_DRIVERS, Ground, Host, each_driver, new_event, statements_of
from tests.mariadb import NEEDS_MARIADB, MariaDBDriver, fresh_mariadb_database, on_driver

ODD = "naïve 日本 🎉"


@pytest.fixture(scope="module", params=["LATIN1", "EUC_JP", "SQL_ASCII"])
def other_database(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """A database with the tables, in another encoding."""
    name = f"encoded_{request.param.lower()}"
    maintenance = PostgresDatabase(server=postgres_server, name="postgres").url("psycopg")
    administrator = create_engine(maintenance, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(
            text(f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        )
    database = PostgresDatabase(server=postgres_server, name=name)
    # psycopg returns bytes from SQL_ASCII, so that not even SQLAlchemy can connect.
    engine = create_engine(database.url("psycopg2"), poolclass=NullPool)
    EventStoreSchema().metadata.create_all(engine)
    yield database
    with administrator.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


async def assert_refused(host: Host, match: str) -> None:
    stream = host.store.stream(category="orders", stream="1")
    calls: list[Any] = [
        lambda: stream.publish(events=[new_event()]),
        stream.read,
        host.store.log().latest,
        host.store.create_schema,
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=match):
            await settled(call())
    async with host.caller() as (_, hosted):
        with pytest.raises(ConfigurationError, match=match):
            await settled(hosted.stream(category="orders", stream="1").publish(events=[new_event()]))
    async with entered(host.engine.connect()) as connection:
        run = connection.run_sync if host.asynchronous else lambda function: function(connection)
        with pytest.raises(SchemaError, match=match):
            await settled(run(verify_schema))


# Older SQLAlchemys leave a connection open that they fail to set up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_databases_in_other_encodings_are_refused(other_database: PostgresDatabase, driver: str) -> None:
    outside = create_engine(other_database.url("psycopg2"), poolclass=NullPool)
    host = Host(Ground(outside), driver)
    encoding = other_database.name.removeprefix("encoded_").upper()

    if encoding == "SQL_ASCII" and driver in ("postgresql+psycopg", "postgresql+psycopg_async"):
        with pytest.raises(TypeError, match="bytes"):
            async with entered(host.engine.connect()):
                pass
        gc.collect()
    else:
        await assert_refused(host, f"encoding of the database is {encoding}")

    await host.aclose()


@each_driver(*POSTGRES_DRIVERS)
async def test_clients_in_other_encodings_are_refused(host: Host) -> None:
    name = host.engine.url.database
    with host.ground.outside.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET client_encoding TO 'LATIN1'")
    try:
        if host.driver == "postgresql+asyncpg":
            # It asks for UTF-8 by itself.
            await host.publish(host.store, ODD)
        else:
            await assert_refused(host, "client_encoding of this connection is LATIN1")
    finally:
        with host.ground.outside.begin() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} RESET ALL")


@each_driver("postgresql+psycopg_async", "postgresql+psycopg", "postgresql+psycopg2")
async def test_clients_are_looked_at_in_each_call(host: Host) -> None:
    async with host.caller() as (caller, store):
        await host.publish(store, ODD)
        await host.execute(caller, "SET client_encoding TO 'LATIN1'")

        with pytest.raises(ConfigurationError, match="client_encoding"):
            await host.publish(store, ODD)
        with pytest.raises(ConfigurationError, match="client_encoding"):
            await settled(store.log().read())

        await host.execute(caller, "SET client_encoding TO 'UTF8'")
        assert [each.name for each in await settled(store.log().read())] == [ODD]


@pytest.mark.parametrize("driver", ["sqlite", "sqlite+aiosqlite"])
async def test_sqlite_in_utf_16_is_refused(tmp_path: Path, driver: str) -> None:
    outside = create_engine(f"sqlite:///{tmp_path}/utf16.db", poolclass=NullPool)
    event.listen(outside, "connect", lambda dbapi, _: dbapi.execute("PRAGMA encoding = 'UTF-16le'"))
    EventStoreSchema().metadata.create_all(outside)
    host = Host(Ground(outside), driver)

    await assert_refused(host, "encoding of this SQLite database is UTF-16le")

    await host.aclose()


@pytest.mark.parametrize("driver", SQLITE_DRIVERS)
async def test_sqlite_that_is_locked_at_the_first_use_is_a_lock_timeout(tmp_path: Path, driver: str) -> None:
    outside = create_engine(f"sqlite:///{tmp_path}/locked.db", poolclass=NullPool)
    EventStoreSchema().metadata.create_all(outside)
    host = Host(Ground(outside), driver, configured=False, connect_args={"timeout": 0.05})
    with outside.connect() as holder:
        holder.connection.dbapi_connection.isolation_level = None  # type: ignore[union-attr]
        holder.exec_driver_sql("BEGIN EXCLUSIVE")

        for call in (lambda: host.publish(host.store), lambda: settled(host.store.log().latest())):
            with pytest.raises(LockTimeoutError):
                await call()

        holder.exec_driver_sql("ROLLBACK")
    await host.publish(host.store)
    await host.aclose()


@pytest.mark.parametrize("driver", SQLITE_DRIVERS)
async def test_file_that_is_no_database_raises_an_error_of_the_library(tmp_path: Path, driver: str) -> None:
    (tmp_path / "text.db").write_bytes(b"not a database" * 1000)
    host = Host(Ground(create_engine(f"sqlite:///{tmp_path}/text.db", poolclass=NullPool)), driver, configured=False)

    with pytest.raises(StorageError, match="not a database"):
        await host.publish(host.store)

    await host.aclose()


@NEEDS_MARIADB
# asyncmy knows no utf8mb3.
@pytest.mark.parametrize(("driver", "charset"), [("pymysql", "latin1"), ("pymysql", "utf8mb3"), ("asyncmy", "latin1")])
async def test_mariadb_clients_in_other_character_sets_are_refused(driver: MariaDBDriver, charset: str) -> None:
    with fresh_mariadb_database() as url:
        schema = EventStoreSchema(locking="row")
        outside = create_engine(url, poolclass=NullPool)
        SyncEventStore(outside, schema=schema).create_schema()
        create: Any = create_async_engine if driver == "asyncmy" else create_engine
        addressed = on_driver(url, driver)
        engine = create(addressed.update_query_dict({"charset": charset}), poolclass=NullPool)
        store: Any = (EventStore if driver == "asyncmy" else SyncEventStore)(engine, schema=schema)
        stream = store.stream(category="orders", stream="1")

        for call in (lambda: stream.publish(events=[new_event(ODD)]), store.log().latest):
            with pytest.raises(ConfigurationError, match=f"character_set_client is {charset}.*charset=utf8mb4"):
                await settled(call())
        async with entered(engine.connect()) as connection:
            run = connection.run_sync if driver == "asyncmy" else lambda function: function(connection)
            with pytest.raises(SchemaError, match="charset=utf8mb4"):
                await settled(run(lambda each: verify_schema(each, schema=schema)))
        await settled(engine.dispose())


@NEEDS_MARIADB
@pytest.mark.parametrize("driver", ["pymysql", "asyncmy"])
async def test_mariadb_clients_that_ask_for_nothing_carry_every_character(driver: MariaDBDriver) -> None:
    with fresh_mariadb_database() as url:
        schema = EventStoreSchema(locking="row")
        create: Any = create_async_engine if driver == "asyncmy" else create_engine
        engine = create(on_driver(url, driver))
        store: Any = (EventStore if driver == "asyncmy" else SyncEventStore)(engine, schema=schema)
        await settled(store.create_schema())
        with statements_of(engine) as statements:
            for _ in range(2):
                await settled(store.stream(category=ODD, stream=ODD).publish(events=[new_event(ODD, payload=ODD)]))

        latest = await settled(store.log().latest())
        await settled(engine.dispose())

    assert (latest.name, latest.payload, latest.stream) == (ODD, ODD, ODD)
    assert not [each for each in statements if "character_set" in each]
