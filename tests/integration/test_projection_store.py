"""Projection stores on binds of every kind, and within transactions of the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from eventstore_sa import EventStoreSchema, Projection, ProjectionStore, SyncProjectionStore, configure_sqlite
from eventstore_sa.errors import ConfigurationError, ProjectionVersionError, QueryError, SchemaError
from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.query import FilterClause, OffsetPagingClause, Operator, Path, SortClause, SortField, SortOrder
from eventstore_sa.types import StreamIdentifier
from tests.databases import PostgresDatabase
from tests.stores import install_schema


class Order(msgspec.Struct):
    status: str


def projection(id: str = "1", status: str = "placed") -> Projection[Order, None]:
    return Projection(id=id, name="orders", source=StreamIdentifier("orders", id), state=Order(status), metadata=None)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: FilePath) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/projections.db")
        configure_sqlite(engine)
    else:
        database: PostgresDatabase = request.getfixturevalue("make_postgres_database")(prepared_by=install_schema)
        engine = create_engine(database.url("psycopg"))
    EventStoreSchema().metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_states_come_back_as_the_types_that_are_asked_for(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    store.save(projection=projection())

    loaded = store.load(id="1", name="orders", state_type=Order)
    located = store.locate(source=StreamIdentifier("orders", "1"), name="orders", state_type=Order)
    found = store.search(filters=[FilterClause(Operator.EQUAL, Path("state", "status"), "placed")], state_type=Order)

    assert loaded == located == found[0] == projection()
    plain = store.load(id="1", name="orders")
    assert plain is not None
    assert plain.state == {"status": "placed"}
    assert store.load(id="2", name="orders") is None


def test_a_store_searches_sorts_pages_counts_and_deletes(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    assert store.save_all(projections=[projection(str(number)) for number in range(5)]) == [1] * 5

    page = store.search(
        sort=SortClause([SortField(Path("id"), SortOrder.DESC)]), paging=OffsetPagingClause(page_number=2, item_count=2)
    )

    assert [each.id for each in page] == ["2", "1"]
    assert store.count() == 5
    assert store.delete(id="4", name="orders") is True
    assert store.count(filters=[FilterClause(Operator.GREATER_THAN, Path("id"), "2")]) == 1


@pytest.mark.parametrize("wrap", [lambda session: session, lambda session: scoped_session(lambda: session)])
def test_what_is_saved_within_a_session_ends_with_its_transaction(engine: Engine, wrap: Any) -> None:
    store = SyncProjectionStore(engine)
    with Session(engine) as session:
        inside = store.within(wrap(session))
        inside.save(projection=projection("1"))
        assert inside.count() == 1
        session.rollback()
        assert store.count() == 0

        inside.save(projection=projection("2"))
        session.commit()

    assert [each.id for each in store.search()] == ["2"]


def test_a_lost_race_leaves_the_transaction_of_the_host_usable(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    store.save(projection=projection())
    with Session(engine) as session:
        inside = store.within(session)
        inside.save(projection=projection("2"))
        for expected in (0, 5):
            with pytest.raises(ProjectionVersionError):
                inside.save(projection=projection("1", "lost"), expected_version=expected)
        with pytest.raises(QueryError):
            inside.search(filters=[FilterClause(Operator.EQUAL, Path("nothing"), 1)])
        session.commit()

    assert [(each.id, each.state) for each in store.search(state_type=Order)] == [
        ("1", Order("placed")),
        ("2", Order("placed")),
    ]


@pytest.mark.parametrize("kind", ["factory", "connection"])
def test_factories_and_connections_are_binds_too(engine: Engine, kind: str) -> None:
    with engine.connect() as connection:
        store = SyncProjectionStore(sessionmaker(engine) if kind == "factory" else connection)
        store.save(projection=projection())
        assert store.count() == 1
        connection.rollback()

    assert SyncProjectionStore(engine).count() == (1 if kind == "factory" else 0)


def test_a_batch_is_one_statement(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    statements: list[str] = []
    store.count()
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2].split()[0]))

    store.save_all(projections=[projection(str(number)) for number in range(100)])
    store.save(projection=projection("1"), expected_version=1)
    store.search(filters=[FilterClause(Operator.EQUAL, Path("id"), "1")])

    assert [statement for statement in statements if statement != "BEGIN"] == ["INSERT", "UPDATE", "SELECT"]


def test_keys_and_sources_are_found_through_indexes(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    store.save_all(projections=[projection(str(number)) for number in range(1000)])
    with engine.begin() as connection:
        connection.execute(text("ANALYZE es_projections"))
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith("SELECT"):
            return
        explained = connection.connection.cursor()
        if engine.dialect.name == "postgresql":
            explained.execute("SET LOCAL enable_seqscan = off")
        words = "EXPLAIN " if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        explained.execute(words + statement, parameters)
        plans.append(str(explained.fetchall()))

    event.listen(engine, "before_cursor_execute", explain)
    with Session(engine) as session:
        inside = store.within(session)
        inside.load(id="1", name="orders")
        inside.locate(source=StreamIdentifier("orders", "1"), name="orders")

    assert "es_projections_id_key" in plans[0] or "sqlite_autoindex_es_projections_1" in plans[0]
    assert "es_projections_source_idx" in plans[1]


async def test_the_asyncio_store_does_the_same(tmp_path: FilePath) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/projections.db")
    configure_sqlite(engine)
    async with ProjectionStore(async_sessionmaker(engine)) as store:
        await store.create_schema()
        async with AsyncSession(engine) as session:
            await store.within(session).save(projection=projection("1"))
            await session.rollback()
        await store.save_all(projections=[projection("2"), projection("3")])
        await store.save(projection=projection("2", "paid"), expected_version=1)

        loaded = await store.load(id="2", name="orders", state_type=Order)
        located = await store.locate(source=StreamIdentifier("orders", "2"), name="orders", state_type=Order)
        assert loaded == located == projection("2", "paid")
        assert [each.id for each in await store.search()] == ["2", "3"]
        assert await store.delete(id="2", name="orders") is True
        assert await store.count() == 1
        await store.drop_schema()
    with pytest.raises(ConfigurationError, match="closed"):
        await store.count()
    await engine.dispose()


async def test_memory_serves_both_stores() -> None:
    adapter = InMemoryProjectionStorageAdapter()
    await ProjectionStore(adapter).save(projection=projection())

    assert SyncProjectionStore(adapter).load(id="1", name="orders", state_type=Order) == projection()
    with pytest.raises(ConfigurationError, match="within a session"):
        ProjectionStore(adapter).within(AsyncSession())


def test_what_is_no_bind_is_refused() -> None:
    sync_adapter: Any = SyncSQLAlchemyProjectionStorageAdapter("sqlite://")
    async_adapter: Any = SQLAlchemyProjectionStorageAdapter("sqlite+aiosqlite://")
    wrong: Any = object()
    for refused in (
        lambda: ProjectionStore(sync_adapter),
        lambda: SyncProjectionStore(async_adapter),
        lambda: ProjectionStore(async_adapter, schema=EventStoreSchema()),
        lambda: SyncProjectionStore(sync_adapter, schema=EventStoreSchema()),
        lambda: SyncProjectionStore(wrong),
        lambda: SyncProjectionStore(sync_adapter).within(wrong),
        lambda: ProjectionStore(async_adapter).within(wrong),
    ):
        with pytest.raises(ConfigurationError):
            refused()


def test_missing_tables_are_said_to_be_missing() -> None:
    with SyncProjectionStore("sqlite://") as store, pytest.raises(SchemaError, match="create_schema"):
        store.count()


def test_tables_have_the_prefix_of_the_schema_that_is_given(engine: Engine) -> None:
    store = SyncProjectionStore(engine, schema=EventStoreSchema(prefix="audit_"))
    store.create_schema()
    store.save(projection=projection())

    assert "audit_projections" in inspect(engine).get_table_names()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM audit_projections")) == 1
    assert SyncProjectionStore(engine).count() == 0


@pytest.mark.parametrize("sort", [None, SortClause([SortField(Path("state", "name"))])])
def test_strings_are_compared_by_code_point_whatever_the_collation_of_the_database(
    make_postgres_database: Any, sort: SortClause | None
) -> None:
    engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"))
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    SyncProjectionStore(engine).search(
        filters=[FilterClause(Operator.REGEX_MATCHES, Path("state", "name"), "a")], sort=sort
    )

    assert statements[-1].count('COLLATE "C"') == (1 if sort is None else 2)
    engine.dispose()
