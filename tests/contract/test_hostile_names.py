"""Whatever text names are, memory, SQLite and PostgreSQL do the same with them, and none becomes a part of a statement.

Sequences of operations with names found by hypothesis run on all three, and what comes of each is compared: results,
errors with their messages, and everything that can be read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event

from eventstore_sa.conditions import position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import EventStoreError
from eventstore_sa.sources.constraints import QueryConstraint, name_in, position_after
from eventstore_sa.store.adapters import (
    SyncEventStorageAdapter,
    SyncInMemoryEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases.tables import case, in_turn
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    NewEvent,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)
from tests.databases import PostgresTemplates, fresh_database
from tests.stores import install_schema

LONG = "x" * 100_000

# What SQL, drivers, format strings, JSON, lock keys and patterns take for something else than text.
AWKWARD = [
    "'",
    '"',
    "''; DROP TABLE es_events; --",
    '"); DELETE FROM es_events; --',
    "%",
    "%s %(of_stream)s %%",
    "_",
    ":of_stream",
    ":of_stream::text",
    "$1",
    "?",
    "\\",
    "\\'",
    "{}",
    "/",
    ",",
    "|",
    "\x1f",
    "\x1e",
    "\n",
    "\r\n",
    "null",
    "[]",
    "$eventstore_sa$",
    "🎉",
    "e\u0301",
    "é",
    "\uffff",
    "\U0010ffff",
    "a",
    "ab",
    "A",
    " ",
    "x" * 1000,
    "é" * 500,
    # These are refused.
    "",
    "\0",
    "a\0b",
    "\ud800",
    "x" * 1001,
    LONG,
]

texts = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(), max_size=6),
    st.lists(st.sampled_from([text for text in AWKWARD if len(text) < 40]), min_size=2, max_size=3).map("".join),
)

Operation = Callable[[SyncEventStorageAdapter], Any]

CONDITIONS = st.sampled_from(
    [None, stream_is_empty(), stream_exists(), position_is(0), position_is(0) | position_is(2)]
)


@st.composite
def definitions(draw: Any, names: list[str]) -> dict[str, Any]:
    events = [NewEvent(name=name, payload=name) for name in draw(st.lists(st.sampled_from(names), max_size=2)) if name]
    condition = draw(CONDITIONS)
    return {"events": events} | ({} if condition is None else {"condition": condition})


@st.composite
def saves(draw: Any, names: list[str]) -> Operation:
    name = st.sampled_from(names)
    kind = draw(st.sampled_from(["stream", "category", "log"]))
    try:
        if kind == "stream":
            target, given_ = StreamIdentifier(draw(name), draw(name)), draw(definitions(names))
            return lambda adapter: adapter.save(target=target, **given_)
        streams = draw(st.dictionaries(name, definitions(names), max_size=3))
        if kind == "category":
            category = CategoryIdentifier(draw(name))
            return lambda adapter: adapter.save(target=category, streams=streams)
        other = draw(name)
        by_identifier = {StreamIdentifier(other, key): definition for key, definition in streams.items()}
        return lambda adapter: adapter.save(target=LogIdentifier(), streams=by_identifier)
    except EventStoreError as error:
        refusal = error

        def refused(adapter: SyncEventStorageAdapter) -> Any:
            raise refusal

        return refused


@st.composite
def scenarios(draw: Any) -> tuple[list[str], list[Operation]]:
    names = draw(st.lists(texts, min_size=1, max_size=4))
    return names, draw(st.lists(saves(names), min_size=1, max_size=6))


def outcome(operation: Callable[[], Any]) -> Any:
    """Return what comes of an operation, but for sequence numbers, which may have gaps."""
    try:
        result = operation()
    except (EventStoreError, ValueError) as error:
        return type(error), str(error)
    if isinstance(result, dict):
        return [(key, plain(value)) for key, value in result.items()]
    return plain(result)


def plain(events: Any) -> Any:
    return [(event.category, event.stream, event.position, event.name, event.id, event.payload) for event in events]


def readings(names: list[str]) -> Iterator[tuple[Any, frozenset[QueryConstraint]]]:
    """Yield every target and constraint that the names make."""

    def tried(make: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        try:
            yield make(*arguments)
        except (EventStoreError, ValueError):
            return

    targets: list[Any] = [LogIdentifier(), *(LogPartitionIdentifier(part, 3) for part in range(3))]
    for name in names:
        targets += tried(CategoryIdentifier, name)
        for part in range(2):
            targets += tried(CategoryPartitionIdentifier, name, part, 2)
        for other in names:
            targets += tried(StreamIdentifier, name, other)
            for prefix in {other, other[:1]}:
                targets += tried(StreamNamePrefixPartitionIdentifier, name, prefix)
    for target in targets:
        yield target, frozenset()
    for constraint in (name_in(names), name_in(names[:1]), name_in(names[1:]), position_after(0)):
        for target in targets[:6]:
            yield target, frozenset({constraint})


@pytest.fixture(scope="module")
def postgres_engine(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[Engine]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        engine = create_engine(database.url("psycopg"))
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def sqlite_adapter() -> Iterator[SyncSQLAlchemyEventStorageAdapter]:
    adapter = SyncSQLAlchemyEventStorageAdapter("sqlite://")
    adapter.create_schema()
    yield adapter
    adapter.close()


LONG_EVENT = NewEvent(name=LONG, payload=LONG)


def saving_what_is_long(adapter: SyncEventStorageAdapter) -> Any:
    return adapter.save(target=StreamIdentifier("'", "\\"), events=[LONG_EVENT])


LARGE_VALUES = [HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large]


@settings(max_examples=5, suppress_health_check=LARGE_VALUES)
@given(scenario=scenarios())
@example(scenario=(["'", "\\", LONG], [saving_what_is_long]))
def test_names_of_any_text_mean_the_same_on_every_adapter(
    postgres_engine: Engine,
    sqlite_adapter: SyncSQLAlchemyEventStorageAdapter,
    scenario: tuple[list[str], list[Operation]],
) -> None:
    assert_same(postgres_engine, sqlite_adapter, scenario)


@pytest.mark.long
@settings(max_examples=50, suppress_health_check=LARGE_VALUES)
@given(scenario=scenarios())
def test_many_names_of_any_text_mean_the_same_on_every_adapter(
    postgres_engine: Engine,
    sqlite_adapter: SyncSQLAlchemyEventStorageAdapter,
    scenario: tuple[list[str], list[Operation]],
) -> None:
    assert_same(postgres_engine, sqlite_adapter, scenario)


def assert_same(
    postgres_engine: Engine,
    sqlite_adapter: SyncSQLAlchemyEventStorageAdapter,
    scenario: tuple[list[str], list[Operation]],
) -> None:
    names, operations = scenario
    clear(postgres_engine)
    clear(sqlite_adapter.bind.engine)  # type: ignore[call-overload]
    memory = SyncInMemoryEventStorageAdapter()
    databases = [sqlite_adapter, SyncSQLAlchemyEventStorageAdapter(postgres_engine)]

    for operation in operations:
        expected = outcome(lambda operation=operation: operation(memory))  # type: ignore[misc]
        for adapter in databases:
            assert outcome(lambda operation=operation, adapter=adapter: operation(adapter)) == expected  # type: ignore[misc]

    for target, constraints in readings(names):
        expected = plain(memory.scan(target=target, constraints=constraints))
        for adapter in databases:
            assert plain(adapter.scan(target=target, constraints=constraints)) == expected
            assert plain(adapter.scan(target=target, constraints=constraints, backwards=True)) == expected[::-1]
    for adapter in databases:
        assert list(adapter.streams()) == list(memory.streams())
        assert list(adapter.categories()) == list(memory.categories())


@in_turn("database", ["sqlite", "postgresql"])
def test_no_name_is_a_part_of_a_statement(
    postgres_engine: Engine, sqlite_adapter: SyncSQLAlchemyEventStorageAdapter, database: str
) -> None:
    engine: Any = postgres_engine if database == "postgresql" else sqlite_adapter.bind.engine
    adapter = SyncSQLAlchemyEventStorageAdapter(engine)
    adapter.latest(target=LogIdentifier())  # the first use of a store compares its mode of locking

    def statements(text: str) -> list[str]:
        seen: list[str] = []

        def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            seen.append(statement)

        clear(engine)
        event.listen(engine, "before_cursor_execute", note)
        stream = StreamIdentifier(text, text)
        (stored,) = adapter.save(
            target=stream, events=[NewEvent(name=text, payload={text: text})], condition=stream_is_empty()
        )
        outcome(
            lambda: adapter.save(target=stream, events=[NewEvent(name=text, payload=1)], condition=stream_is_empty())
        )
        adapter.save(target=CategoryIdentifier(text), streams={text: {"events": []}})
        for target in (
            LogIdentifier(),
            LogPartitionIdentifier(0, 1),
            CategoryIdentifier(text),
            CategoryPartitionIdentifier(text, 0, 1),
            stream,
        ):
            assert list(adapter.scan(target=target, constraints={name_in([text])})) == [stored]
            assert adapter.latest(target=target) == stored
        assert list(adapter.streams(target=CategoryIdentifier(text))) == [stream]
        assert list(adapter.categories()) == [CategoryIdentifier(text)]
        event.remove(engine, "before_cursor_execute", note)
        return seen

    expected = statements("plain")
    for name in [name for name in AWKWARD if 0 < len(name) <= 40 and "\0" not in name and name != "\ud800"]:
        with case(name):
            assert statements(name) == expected
