"""Searches of stored projections on real databases: indexes, pg_trgm, scans, statements that are used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, MetaData, create_engine, event, func, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import EventStoreSchema, Projection, ProjectionStore, SyncProjectionStore, configure_sqlite
from eventstore_sa.errors import ConfigurationError, QueryError, SerialisationError
from eventstore_sa.persistence.projections.dialects.sqlite_json import sort_key_text
from eventstore_sa.persistence.projections.repository import ProjectionRepository
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.projection import ProjectionColumns, projection_index
from eventstore_sa.projection.adapters import SQLAlchemyProjectionStorageAdapter, SyncSQLAlchemyProjectionStorageAdapter
from eventstore_sa.query import (
    CustomFilter,
    FilterClause,
    KeySetPagingClause,
    OffsetPagingClause,
    Operator,
    PagingDirection,
    Path,
    Search,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.query.evaluation import similarity, sort_key
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import StreamIdentifier
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema

NAMED = FilterClause(Operator.EQUAL, Path("name"), "orders")
STATUS = Path("state", "status")
TOTAL = Path("state", "lines", -1, 'it\'s "100%" :x \\ total')
TAGS = Path("state", "tags")
MakeDatabase = Callable[..., PostgresDatabase]


def projection(number: int, state: Any, name: str = "orders") -> Projection[Any, Any]:
    key = f"{number:05}"
    return Projection(id=key, name=name, source=StreamIdentifier("orders", key), state=state, metadata=None)


@pytest.fixture
def postgres(make_postgres_database: MakeDatabase) -> Iterator[Engine]:
    engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"))
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: FilePath) -> Iterator[Engine]:
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres")
        return
    engine = create_engine(f"sqlite:///{tmp_path}/projections.db")
    configure_sqlite(engine)
    EventStoreSchema().metadata.create_all(engine)
    yield engine
    engine.dispose()


def plan_of(engine: Engine, work: Callable[[], object]) -> str:
    """Return how PostgreSQL goes about the statement on projections that something runs."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM es_projections" in statement:
            explained = connection.connection.cursor()
            explained.execute("EXPLAIN " + statement, parameters)
            plans.append("\n".join(line for (line,) in explained.fetchall()))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    (plan,) = plans
    return plan


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[Engine]:
    """A database for the projections of `orders`."""
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        engine = create_engine(database.url("psycopg"))
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def orders(filled: Engine) -> SyncProjectionStore:
    """Many projections with indexes, for tests that only read them."""
    schema = EventStoreSchema(MetaData())
    for arguments in ((STATUS, SortField(TOTAL, SortOrder.DESC)), (TOTAL,)):
        projection_index("orders", *arguments, schema=schema).create(filled)
    projection_index("orders", TAGS, schema=schema, contains=True).create(filled)
    store = SyncProjectionStore(filled, schema=schema)
    steps = TOTAL.sub_levels
    states = [
        {"status": f"status {number % 50}", "lines": [{steps[-1]: number * 7919 % 10_007 / 4}], "tags": [number % 1000]}
        for number in range(5_000)
    ]
    for name in ("orders", "others"):
        store.save_all(projections=[projection(number, state, name) for number, state in enumerate(states)])
    with filled.begin() as connection:
        connection.execute(text("ANALYZE es_projections"))
    return store


def test_an_index_serves_filter_sort_and_page_without_sorting(filled: Engine, orders: SyncProjectionStore) -> None:
    five = FilterClause(Operator.EQUAL, STATUS, "status 5")
    sort = SortClause([SortField(TOTAL, SortOrder.DESC)])

    plan = plan_of(
        filled, lambda: orders.search(filters=[NAMED, five], sort=sort, paging=OffsetPagingClause(page_number=2))
    )

    assert "Index Scan" in plan
    assert "Sort" not in plan


@in_turn(
    "clause, found",
    {
        "equal": (FilterClause(Operator.EQUAL, STATUS, "status 5"), 100),
        "in": (FilterClause(Operator.IN, STATUS, ["status 5", "status 7", 1]), 200),
        "equal number": (FilterClause(Operator.EQUAL, TOTAL, 7919 / 4), 1),
        "greater": (FilterClause(Operator.GREATER_THAN, TOTAL, 2500), 4),
        "contains": (FilterClause(Operator.CONTAINS, TAGS, 77), 5),
        "null": (FilterClause(Operator.EQUAL, STATUS, None), 0),
    },
)
def test_an_index_serves_filters(filled: Engine, orders: SyncProjectionStore, clause: FilterClause, found: int) -> None:
    plan = plan_of(filled, lambda: orders.search(filters=[NAMED, clause]))

    assert "Index" in plan
    assert "Seq Scan" not in plan
    assert orders.count(filters=[NAMED, clause]) == found


def test_an_index_serves_the_next_page_by_key(filled: Engine, orders: SyncProjectionStore) -> None:
    five = FilterClause(Operator.EQUAL, STATUS, "status 5")
    sort = SortClause([SortField(TOTAL, SortOrder.DESC)])
    everything = [each.id for each in orders.search(filters=[NAMED, five], sort=sort)]
    after = KeySetPagingClause(everything[49])

    plan = plan_of(filled, lambda: orders.search(filters=[NAMED, five], sort=sort, paging=after))

    page = orders.search(filters=[NAMED, five], sort=sort, paging=after)
    assert [each.id for each in page] == everything[50:60]
    assert "Seq Scan" not in plan


def test_the_same_index_is_made_once_and_another_has_another_name() -> None:
    schema = EventStoreSchema(MetaData())

    one = projection_index("orders", STATUS, schema=schema)

    assert projection_index("orders", STATUS, schema=schema) is one
    others = [
        projection_index("others", STATUS, schema=schema),
        projection_index("orders", TOTAL, schema=schema),
        projection_index("orders", STATUS, TOTAL, schema=schema),
        projection_index("orders", SortField(STATUS), schema=schema),
        projection_index("orders", SortField(STATUS, SortOrder.DESC), schema=schema),
        projection_index("orders", STATUS, schema=schema, contains=True),
    ]
    names = {index.name for index in (one, *others)}
    assert len(names) == 7
    assert {one, *others} <= schema.projections.indexes


def test_an_index_that_cannot_be_is_refused() -> None:
    wrong: Any = "status"
    for arguments, contains in (
        ((), False),
        ((STATUS, TOTAL), True),
        ((SortField(STATUS),), True),
        ((SortField(Similarity(STATUS, "a")),), False),
        ((wrong,), False),
    ):
        with pytest.raises(ConfigurationError, match="projection_index"):
            projection_index("orders", *arguments, schema=EventStoreSchema(MetaData()), contains=contains)
    with pytest.raises(QueryError, match="a path begins with one of"):
        projection_index("orders", Path("status"), schema=EventStoreSchema(MetaData()))
    with pytest.raises(SerialisationError):
        projection_index("", STATUS, schema=EventStoreSchema(MetaData()))


def test_create_all_makes_indexes_where_they_are_of_use(
    make_postgres_database: MakeDatabase, tmp_path: FilePath
) -> None:
    schema = EventStoreSchema(MetaData())
    index = projection_index("it's 100% :x", SortField(STATUS), TOTAL, schema=schema)
    for url, made in (
        (make_postgres_database().url("psycopg"), True),
        (make_postgres_database().url("psycopg2"), True),
        (f"sqlite:///{tmp_path}/indexed.db", False),
    ):
        engine = create_engine(url)
        schema.metadata.create_all(engine)
        index.create(engine, checkfirst=True)

        names = {found["name"] for found in inspect(engine).get_indexes("es_projections")} if made else set()
        assert (index.name in names) is made
        store = SyncProjectionStore(engine, schema=schema)
        store.save(projection=projection(1, {"status": 1}, "it's 100% :x"))
        assert store.count(filters=[FilterClause(Operator.EQUAL, Path("name"), "it's 100% :x")]) == 1
        engine.dispose()


TEXTS = st.text(st.characters(min_codepoint=1, max_codepoint=0x7F), max_size=12) | st.text("abAB _-", max_size=8)


def test_pg_trgm_is_used_where_it_is_installed_and_makes_no_difference(postgres: Engine) -> None:
    store = SyncProjectionStore(postgres)
    texts = ["abx", "xyz", "XYZ abx", "äxyz", "", "x_y-z", "Äxyz", "xyzabxyz", "abc def", "ABC'DEF", None, 5]
    store.save_all(projections=[projection(number, {"value": each}) for number, each in enumerate(texts)])
    statements: list[str] = []
    event.listen(postgres, "before_cursor_execute", lambda *args: statements.append(args[2]))

    def found() -> list[list[str]]:
        subject = Path("state", "value")
        return [
            [each.id for each in store.search(sort=SortClause([SortField(Similarity(subject, to), order)]))]
            for to in ("xyz", "abc", "äxy", "x y", "")
            for order in SortOrder
        ]

    ours = found()
    assert not any("similarity(" in statement for statement in statements)
    with postgres.begin() as connection:
        connection.execute(text('CREATE SCHEMA "odd schema_"'))
        connection.execute(text('CREATE EXTENSION pg_trgm SCHEMA "odd schema_"'))
    theirs = found()

    assert theirs == ours
    assert '"odd schema_".similarity(' in statements[-1]


def test_similarity_of_ascii_is_exactly_what_pg_trgm_computes(postgres: Engine) -> None:
    with postgres.connect() as connection:
        connection.execute(text("CREATE EXTENSION pg_trgm"))

        @settings(max_examples=200)
        @given(TEXTS, TEXTS)
        def agrees(left: str, right: str) -> None:
            computed = connection.scalar(
                text("SELECT similarity(:left, :right)::float8"), {"left": left, "right": right}
            )
            assert computed == similarity(left, right)

        agrees()


def test_a_scan_holds_no_connection_between_pages(engine: Engine) -> None:
    adapter = SyncSQLAlchemyProjectionStorageAdapter(engine, page_size=2)
    store = SyncProjectionStore(adapter)
    store.save_all(projections=[projection(number, number) for number in range(7)])
    checked_out: Any = engine.pool

    seen: list[object] = []
    for found in store.iterate(filters=[NAMED], sort=SortClause([SortField(Path("state"), SortOrder.DESC)])):
        assert checked_out.checkedout() == 0
        seen.append(found.state)
        if found.state == 5:
            # The row that the next page begins after is gone, one is new, and one is behind.
            store.delete(id="00005", name="orders")
            store.save_all(projections=[projection(8, 3.5), projection(9, 9)])

    assert seen == [6, 5, 4, 3.5, 3, 2, 1, 0]


def test_a_scan_within_a_session_reads_its_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        adapter = SyncSQLAlchemyProjectionStorageAdapter(connection, page_size=2)
        adapter.save_all(projections=[projection(number, number) for number in range(5)])

        assert [found.state for found in adapter.scan()] == [0, 1, 2, 3, 4]
        connection.rollback()
        assert list(adapter.scan()) == []


async def test_the_asyncio_store_iterates_and_converts(tmp_path: FilePath) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/projections.db")
    configure_sqlite(engine)
    async with ProjectionStore(SQLAlchemyProjectionStorageAdapter(engine, page_size=2)) as store:
        await store.create_schema()
        await store.save_all(projections=[projection(number, str(number)) for number in range(5)])

        states = [found.state async for found in store.iterate(sort=SortClause([]), state_type=Decimal)]
        assert states == [Decimal(number) for number in range(5)]
        with pytest.raises(QueryError, match="a path begins with one of"):
            _ = [found async for found in store.iterate(sort=SortClause([SortField(Path("status"))]))]
    await engine.dispose()


def test_statements_of_one_shape_are_used_again_with_other_values(engine: Engine) -> None:
    store = SyncProjectionStore(engine)
    states: list[Any] = ["a", "b", 1, None, True, False, [1], {"a": 1}, 2]
    store.save_all(projections=[projection(number, {"value": state}) for number, state in enumerate(states)])
    value = Path("state", "value")

    for number, state in [*enumerate(states)] * 2:
        assert [each.id for each in store.search(filters=[FilterClause(Operator.EQUAL, value, state)])] == [
            f"{number:05}"
        ]
        at_least = [FilterClause(Operator.IN, value, [state]), FilterClause(Operator.IN, Path("id"), [f"{number:05}"])]
        assert store.count(filters=at_least) == 1
        page = KeySetPagingClause(f"{number:05}", PagingDirection.BACKWARDS, item_count=1)
        before = [each.id for each in store.search(paging=page)]
        assert before == ([f"{number - 1:05}"] if number else [])


class NewerThan(CustomFilter, frozen=True):
    version: int


def test_stores_on_a_schema_share_statements_but_no_converters(engine: Engine) -> None:
    schema = EventStoreSchema(MetaData())
    adapters = [SyncSQLAlchemyProjectionStorageAdapter(engine, schema=schema) for _ in range(2)]
    adapters[0].save_all(projections=[projection(1, 1), projection(2, 2)])
    built: list[object] = []
    one = FilterClause(Operator.EQUAL, Path("state"), 1)
    repository = made_once(ProjectionRepository, schema, engine.dialect.name)
    equal = repository.dialect.equal
    repository.dialect.equal = lambda place, value: built.append(value) or equal(place, value)  # type: ignore[method-assign]

    for adapter, wanted in zip(adapters, (1, 2), strict=True):
        adapter.register_filter(NewerThan, lambda _, columns, wanted=wanted: columns.at(Path("state")).number == wanted)
        assert adapter.count(search=Search(filters=[one])) == 1
    found = [adapter.find_many(search=Search(filters=[NewerThan(1)])) for adapter in adapters]

    assert len(built) == 1
    assert [each.id for (each,) in found] == ["00001", "00002"]


def test_converters_hold_within_sessions_and_see_the_columns(engine: Engine) -> None:
    adapter = SyncSQLAlchemyProjectionStorageAdapter(engine)
    with engine.connect() as connection:
        store = SyncProjectionStore(SyncSQLAlchemyProjectionStorageAdapter(connection))
        with pytest.raises(ConfigurationError, match="register_filter"):
            store.count(filters=[NewerThan(1)])

    def newer(filter_: NewerThan, columns: ProjectionColumns) -> Any:
        is_number = columns.at(Path("state")).kind == "number"
        return (
            (columns.table.c.version > filter_.version) & is_number & (func.abs(columns.at(Path("state")).number) > 1)
        )

    adapter.register_filter(NewerThan, newer)
    adapter.save_all(projections=[projection(1, 1), projection(2, -2), projection(3, "3")])
    adapter.save_all(projections=[projection(1, 1), projection(2, -2), projection(3, "3")])

    assert [each.id for each in adapter.find_many(search=Search(filters=[NewerThan(1)]))] == ["00002"]
    adapter.register_filter(NewerThan, lambda _, columns: columns.at(Path("status")).json)
    with pytest.raises(QueryError, match="a path begins with one of"):
        adapter.count(search=Search(filters=[NewerThan(1)]))


NUMBERS = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 10**400, 5e-324])
)


@given(st.lists(NUMBERS | st.text(st.characters(exclude_categories=["Cs"])) | st.booleans() | st.none(), max_size=6))
def test_keys_of_values_are_ordered_as_the_values_are(values: list[Any]) -> None:
    assert sorted(values, key=sort_key) == sorted(values, key=sort_key_text)
