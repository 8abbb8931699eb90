"""Reads are served by the indexes: what a statement touches grows with what it returns, not with the store.

The tables are large enough that a database which could not use an index would go through thousands of rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg import sql
from sqlalchemy import Connection, Engine, MetaData, create_engine, event, text

from eventstore_sa import EventQuery, EventStoreSchema, NewEvent, QueryItem, SyncEventStore, SyncProjectionStore
from eventstore_sa.inspection import SyncInspection, inspection_index
from eventstore_sa.sources.constraints import (
    payload_contains,
    position_after,
    position_before,
    sequence_number_after,
    sequence_number_before,
)
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import CategoryPartitionIdentifier, LogPartitionIdentifier, StreamNamePrefixPartitionIdentifier
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database

EVENTS, STREAMS, CATEGORIES = 30_000, 1_500, 10

Read = Callable[[SyncEventStore], Sequence[Any]]

READS: dict[str, Read] = {
    "categories": lambda store: list(store.categories()),
    "streams": lambda store: list(store.streams()),
    "streams of a category": lambda store: list(store.streams(category="category-3")),
    "log after": lambda store: store.log().read(constraints={sequence_number_after(29_000)}, limit=10),
    "log before": lambda store: store.log().read(constraints={sequence_number_before(500)}, limit=10, backwards=True),
    "category between": lambda store: store.category(category="category-3").read(
        constraints={sequence_number_after(15_000), sequence_number_before(15_100)}
    ),
    "rare category": lambda store: store.category(category="rare").read(limit=10),
    "rare category before": lambda store: store.category(category="rare").read(
        constraints={sequence_number_before(20_000)}, limit=10, backwards=True
    ),
    "latest of a rare category": lambda store: [store.category(category="rare").latest()],
    "rare category partition": lambda store: store.partition(CategoryPartitionIdentifier("rare", 1, 2)).read(),
    "stream after": lambda store: store.stream(category="category-3", stream="stream-13").read(
        constraints={position_after(15)}
    ),
    "stream before": lambda store: store.stream(category="category-3", stream="stream-13").read(
        constraints={position_before(4)}, backwards=True
    ),
    "log partition": lambda store: store.partition(LogPartitionIdentifier(1, 8)).read(limit=1000),
    "latest of a log partition": lambda store: [store.partition(LogPartitionIdentifier(1, 4)).latest()],
    "category partition": lambda store: store.partition(CategoryPartitionIdentifier("category-3", 1, 4)).read(
        constraints={sequence_number_after(29_000)}
    ),
    "tag after": lambda store: store.tag("tenth:3").read(constraints={sequence_number_after(25_000)}, limit=10),
    "tag before": lambda store: store.tag("all:1").read(
        constraints={sequence_number_before(15_000)}, limit=10, backwards=True
    ),
    "latest of a tag": lambda store: [store.tag("all:1").latest()],
    "rare and frequent tag": lambda store: store.query(EventQuery.tagged("all:1", "rare:7")).read(),
    "tag and name": lambda store: store.query(EventQuery([QueryItem(names=["a"], tags=["tenth:3"])])).read(limit=10),
    "either tag": lambda store: store.query(
        EventQuery([QueryItem(tags=["rare:7"]), QueryItem(tags=["tenth:3"]), QueryItem(names=["a"], tags=["rare:8"])])
    ).read(limit=10, backwards=True),
    "tag partition": lambda store: store.tag("rare:7").partitions(2)[1].read(),
    "event by number": lambda store: store.adapter.find_text(sequence_numbers=[15_000]),
    "event by id": lambda store: store.adapter.find_text(ids=[store.adapter.find_text(sequence_numbers=[5])[0].id]),
    "text in a part of the log": lambda store: store.log().read(
        constraints={payload_contains("1"), sequence_number_after(15_000), sequence_number_before(15_500)}, limit=10
    ),
    "text in a part of a category": lambda store: store.category(category="category-3").read(
        constraints={payload_contains("1"), sequence_number_after(15_000), sequence_number_before(17_000)},
        limit=10,
        backwards=True,
    ),
    "categories with their ends": lambda store: SyncInspection(store).categories(after="category-3"),
    "streams with their ends": lambda store: SyncInspection(store).streams(category="category-3", after="stream-2"),
    "prefix": lambda store: store.partition(StreamNamePrefixPartitionIdentifier("category-3", "stream-14")).read(
        constraints={sequence_number_after(29_000)}
    ),
}


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[Engine]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_many_events)) as database:
        engine = create_engine(database.url("psycopg"))
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def sqlite() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    fill(engine)
    yield engine
    engine.dispose()


def install_many_events(database: PostgresDatabase) -> None:
    engine = create_engine(database.url("psycopg"))
    fill(engine)
    engine.dispose()


def fill(engine: Engine) -> None:
    """Fill the table in one statement, in the order in which many writers would."""
    SyncEventStore(engine).create_schema()
    sqlite = engine.dialect.name == "sqlite"
    series = "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {0} - 1) SELECT i FROM n)"
    source = series.format(EVENTS) if sqlite else f"generate_series(0, {EVENTS} - 1) n(i)"
    new_id = "lower(hex(randomblob(16)))" if sqlite else "gen_random_uuid()"
    moment = "'2024-01-01 00:00:00.000000'" if sqlite else "now()"
    with engine.begin() as connection:
        insert = (
            "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
            f"SELECT {new_id}, CASE i % 1000 WHEN 7 THEN 'rare' ELSE 'category-' || (i % {CATEGORIES}) END, "
            f"'stream-' || (i % {STREAMS}), i / {STREAMS}, 'a', "
            f"'1', {moment}, {moment} FROM {source}"
        )
        connection.execute(text(insert))
        # Without the tags themselves, which are only read.
        if not sqlite:
            connection.execute(text("SET LOCAL eventstore_sa.restoring = 'on'"))
        for tag in ("'all:1'", "'tenth:' || (sequence_number % 10)", "'rare:' || (sequence_number % 5000)"):
            index = f"INSERT INTO es_event_tags SELECT {tag}, sequence_number, name FROM es_events"
            connection.execute(text(index))
        connection.execute(text("ANALYZE"))


def statements_of(engine: Engine, read: Read) -> list[tuple[str, Any]]:
    """Return the statements on the table of events that a read runs."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM es_event" in statement:
            statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        assert read(SyncEventStore(engine))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert statements
    return statements


def rows_touched(connection: Connection, statement: str, parameters: Any = ()) -> int:
    """Run a statement on PostgreSQL and count the rows that its scans have looked at."""
    explain = f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"
    (plan,) = connection.exec_driver_sql(explain, parameters).scalar_one()

    def touched(node: dict[str, Any]) -> float:
        rows = sum(map(touched, node.get("Plans", ())))
        if node.get("Relation Name") in ("es_events", "es_event_tags"):
            rows += (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return rows

    return round(touched(plan["Plan"]))


def rows_touched_when_prepared(connection: Connection, statement: str, parameters: dict[str, Any]) -> int:
    numbers = {name: f"${number}" for number, name in enumerate(parameters, start=1)}
    prepared = re.sub(r"%\((\w+)\)s", lambda match: numbers[match[1]], statement)
    values = ", ".join(sql.Literal(value).as_string() for value in parameters.values())
    connection.exec_driver_sql(f"PREPARE prepared AS {prepared}")
    try:
        return rows_touched(connection, f"EXECUTE prepared ({values})" if values else "EXECUTE prepared")
    finally:
        connection.exec_driver_sql("DEALLOCATE prepared")


@in_turn("read", READS)
def test_postgresql_touches_little_more_than_it_returns(postgres: Engine, read: Read) -> None:
    statements = statements_of(postgres, read)

    with postgres.connect() as connection:
        for statement, parameters in statements:
            returned = len(connection.exec_driver_sql(statement, parameters).all())
            assert rows_touched(connection, statement, parameters) <= 10 * returned + 1000


# Of three items, one is frequent, and whether that pays is for values to tell.
@in_turn("read", {name: read for name, read in READS.items() if name != "either tag"})
def test_postgresql_needs_no_values_to_plan_a_statement(postgres: Engine, read: Read) -> None:
    """Drivers prepare statements; after five executions the server may plan without the values, for an average one."""
    statements = statements_of(postgres, read)

    with postgres.connect() as connection:
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        for statement, parameters in statements:
            returned = len(connection.exec_driver_sql(statement, parameters).all())
            assert rows_touched_when_prepared(connection, statement, parameters) <= 10 * returned + 1000


@in_turn("read", READS)
def test_sqlite_searches_indexes_and_sorts_no_events(sqlite: Engine, read: Read) -> None:
    statements = statements_of(sqlite, read)

    with sqlite.connect() as connection:
        for statement, parameters in statements:
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            listing = "RECURSIVE" in statement
            if "SCAN candidate" in plan:
                # From there on there are the rows of the page only, fetched by key.
                rest = plan[plan.index("SCAN candidate") :]
                plan = plan[: -len(rest)]
                fetches = [step for step in rest if "es_events" in step]
                assert fetches == ["SEARCH es_events USING INTEGER PRIMARY KEY (rowid=?)"]
            # A listing begins at the start of an index.
            scans = [step for step in plan if step.startswith(("SCAN es_event", "SCAN tag_")) and "USING" not in step]
            sorts = [step for step in plan if "TEMP B-TREE" in step]
            if "es_event_tags" in statement:
                # It sorts the numbers of its page, and those that its items have in common.
                sorts = []
            assert (scans, sorts[listing:]) == ([], []), plan


def test_a_listing_costs_a_probe_for_each_name(postgres: Engine) -> None:
    (statement, parameters), *_ = statements_of(postgres, lambda store: list(store.streams(category="category-3")))

    with postgres.connect() as connection:
        assert rows_touched(connection, statement, parameters) <= 2 * STREAMS // CATEGORIES + 2


def test_a_listing_on_sqlite_finds_the_next_stream_by_both_names(sqlite: Engine) -> None:
    (*_, (statement, parameters)) = statements_of(sqlite, lambda store: list(store.streams()))

    with sqlite.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert len([step for step in plan if step.endswith("(category=? AND stream>?)")]) == 2


def test_projections_are_listed_by_their_key(postgres: Engine, sqlite: Engine) -> None:
    for engine in (postgres, sqlite):
        fill_projections(engine)
        store = SyncProjectionStore(SyncEventStore(engine))
        reads: list[Callable[[], Any]] = [
            lambda store=store: store.adapter.name_page(size=10),
            lambda store=store: store.adapter.name_page(after="name-2", size=3),
            lambda store=store: store.adapter.record_page(name="name-3", size=20)[0],
            lambda store=store: store.adapter.record_page(name="name-3", after="5", size=20)[0],
        ]
        for read in reads:
            with hosted_statements(engine) as statements:
                assert read()
            ((statement, parameters),) = [each for each in statements if "es_projections" in each[0]]
            with engine.connect() as connection:
                if engine is postgres:
                    (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
                    assert "Seq Scan" not in str(plan), plan
                else:
                    plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
                    assert not [step for step in plan if step.startswith("SCAN es_projections") and "USING" not in step]


def fill_projections(engine: Engine) -> None:
    with engine.begin() as connection:
        for name in range(5):
            rows = ", ".join(
                f"('name-{name}', '{number}', '{{\"type\": \"log\"}}', 0, '1', 'null', 1)" for number in range(2000)
            )
            connection.exec_driver_sql(
                "INSERT INTO es_projections (name, id, source, source_hash, state, metadata, version) VALUES " + rows
            )
        connection.exec_driver_sql("ANALYZE")


@contextmanager
def hosted_statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def test_an_optional_index_leads_to_a_trace(postgres: Engine) -> None:
    store = SyncEventStore(postgres)
    last = store.watermark().sequence_number
    ids = ["c", "c" * 3000]
    events = [NewEvent(name="a", payload=1, metadata={"correlation_id": correlation_id}) for correlation_id in ids]
    store.stream(category="new", stream="1").publish(events=events)
    inspection = SyncInspection(store)
    assert inspection.trace("c").next_before == last + 2 - 10_000 + 1
    index = inspection_index("correlation", schema=EventStoreSchema(MetaData()))

    index.create(postgres)

    for number, correlation_id in enumerate(ids, start=last + 1):
        trace = inspection.trace(correlation_id)
        assert ([each.sequence_number for each in trace.events], trace.next_before) == ([number], None)
    *_, (statement, parameters) = statements_of(postgres, lambda store: SyncInspection(store).trace("c").events)
    with postgres.connect() as connection:
        plan = str(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all())
    assert "es_events_correlation_idx" in plan
    index.drop(postgres)


def test_estimates_look_at_a_small_part_of_a_large_store(postgres: Engine) -> None:
    statements = statements_of(postgres, lambda store: SyncInspection(store).statistics().events)
    with postgres.connect() as connection:
        touched = sum(rows_touched(connection, statement, parameters) for statement, parameters in statements)

    estimated = SyncInspection(SyncEventStore(postgres)).statistics(top=3)
    counted = SyncInspection(SyncEventStore(postgres)).statistics(exact=True, top=3)

    assert touched < EVENTS / 10
    assert estimated.events == pytest.approx(counted.events, rel=0.01)
    # The tenth that 'rare' is in has fewer: the sample may miss which.
    assert {count.category for count in estimated.categories} <= {f"category-{number}" for number in range(CATEGORIES)}
    assert estimated.categories[0].events == pytest.approx(EVENTS / CATEGORIES, rel=0.5)
    assert (
        [stream.events for stream in estimated.streams] == [stream.events for stream in counted.streams] == [20, 20, 20]
    )
    assert estimated.growth["hour"].events == pytest.approx(counted.growth["hour"].events, rel=0.01)
    assert {size.table for size in counted.sizes} >= {"es_events", "es_event_tags"}
    assert counted.total_bytes is not None
