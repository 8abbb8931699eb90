"""Several publishes by one statement on PostgreSQL: each stands for itself, as if they came in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from eventstore_sa import EventQuery, NewEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import (
    NoCondition,
    WriteCondition,
    no_event_matches,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.persistence.events.dialects import NotTried
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.publishing import StreamPublication, publications
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.types import LogIdentifier
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, install_schema, open_stage

BUSY = "busy"
TAKEN = "taken"

Parts = Sequence[StreamPublication]

_categories = count(1)


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


@pytest.fixture
def engine(stage: Stage) -> Engine:
    return stage.engine_of("batches")


@pytest.fixture
def storage(engine: Engine) -> EventStorage:
    return SyncSQLAlchemyEventStorageAdapter(engine).storage


def publish(*streams: str, condition: WriteCondition | None = None, tags: Sequence[str] = (), amount: int = 1) -> Parts:
    """Make a publish to streams of one category."""
    definitions: dict[StreamIdentifier, Any] = {
        StreamIdentifier("orders", stream): {
            "events": [NewEvent(name="placed", payload=None, tags=frozenset(tags)) for _ in range(amount)],
            "condition": NoCondition() if condition is None else condition,
        }
        for stream in streams
    }
    return publications(target=LogIdentifier(), streams=definitions)


def outcomes(storage: EventStorage, *publishes: Parts) -> list[Any]:
    """Publish them together; return of each the positions in each of its streams, or what else became of it."""
    documents = [storage.document_of_single_statement(parts) for parts in publishes]
    results, _ = storage.publish_each(
        [(parts, document) for parts, document in zip(publishes, documents, strict=True) if document is not None]
    )
    return [_read(result) for result in results]


def _read(result: Any) -> Any:
    match result:
        case NotTried():
            return result.value
        case UnmetWriteConditionError():
            return result.stream, result.actual_position
        case _:
            return [[event.position for event in events] for events in result]


def test_streams_that_somebody_holds_are_busy_and_nothing_waits_for_them(stage: Stage, storage: EventStorage) -> None:
    stage.writer().publish(stream="held")

    assert outcomes(
        storage,
        publish("free"),
        publish("held"),
        publish("other", "held"),
        # Not held by anybody; but it would overtake the one before.
        publish("other"),
        publish("free", amount=2),
    ) == [[[0]], BUSY, BUSY, BUSY, [[1, 2]]]
    assert stage.stream("free") == ["placed"] * 3


def test_tags_that_somebody_holds_are_busy(stage: Stage, storage: EventStorage) -> None:
    writer = stage.writer()
    writer.store.stream(category="other", stream="1").publish(
        events=[NewEvent(name="held", payload=None, tags={"held"})]
    )

    assert outcomes(
        storage,
        publish("1", tags=["held", "free"]),
        publish("2", condition=no_event_matches(EventQuery.tagged("held"))),
        publish("3", tags=["free"]),
    ) == [BUSY, BUSY, [[0]]]


def test_wide_locks_of_others_are_not_waited_for(stage: Stage, storage: EventStorage) -> None:
    key = "hashtextextended({}, 'es_events'::regclass::oid::bigint)"
    for name, held, expected in (
        ("the log", "''", [BUSY, BUSY, BUSY]),
        ("a category", "'corders'", [BUSY, BUSY, BUSY]),
        ("all tags", "'t'", [[[0]], BUSY, BUSY]),
        ("the category of others", "'cinvoices'", [[[1]], [[0]], [[0]]]),
    ):
        writer = stage.writer()
        writer.execute(f"SELECT pg_advisory_xact_lock({key.format(held)})")

        found = outcomes(
            storage,
            publish("1"),
            publish("2", tags=["a"]),
            publish("3", condition=no_event_matches(EventQuery.tagged("b"))),
        )

        assert found == expected, name
        writer.rollback()


def test_a_batch_locks_what_its_publishes_lock(stage: Stage, storage: EventStorage) -> None:
    """No category, not all tags: a host that publishes to another stream with another tag does not notice."""
    with storage._runner.transaction() as scope:
        parts = [publish("1", tags=["a"]), publish("2", condition=no_event_matches(EventQuery.tagged("b")))]
        documents = [storage.document_of_single_statement(each) for each in parts]
        storage._repository(scope.connection).append_each(
            scope.connection, [document for document in documents if document is not None]
        )

        stage.publish("unharmed", stream="3")
        waiting = [
            stage.in_background(lambda: stage.publish("waits", stream="1")),
            stage.in_background(
                lambda: (
                    SyncEventStore(scope.connection.engine)
                    .stream(category="orders", stream="4")
                    .publish(events=[NewEvent(name="waits", payload=None, tags={"b"})])
                )
            ),
        ]
        stage.wait_until_blocked(2)

    for each in waiting:
        each.result()
    assert stage.log() == ["placed", "placed", "unharmed", "waits", "waits"]


def test_publishes_with_an_id_that_is_stored_are_left_out(stage: Stage, storage: EventStorage) -> None:
    stored = publish("1")
    assert outcomes(storage, stored) == [[[0]]]

    assert outcomes(storage, publish("1"), stored, publish("1", condition=position_is(1))) == [[[1]], TAKEN, [[2]]]


def test_the_locks_that_a_batch_should_need_at_most_depend_on_the_server(engine: Engine, storage: EventStorage) -> None:
    parts = publish("1")
    document = storage.document_of_single_statement(parts)
    assert document is not None

    _, most_locks = storage.publish_each([(parts, document)])

    with engine.connect() as connection:
        setting = connection.scalar(text("SELECT current_setting('max_locks_per_transaction')::int"))
    assert most_locks == setting // 2


# What a batch does is what its publishes would do in turn: storage in memory tells what that is.

STREAMS = "abc"
CONDITIONS: tuple[WriteCondition | None, ...] = (
    None,
    stream_is_empty(),
    stream_exists(),
    position_is(0),
    position_is(1),
    position_is(2),
    position_is(3) | stream_is_empty(),
    no_event_matches(EventQuery.tagged("t")),
    no_event_matches(EventQuery.tagged("t")) & position_is(0),
    no_event_matches(EventQuery.tagged("u")) | stream_is_empty(),
)


@st.composite
def batches(draw: st.DrawFn) -> list[list[Parts]]:
    """Draw batches of publishes to streams of one new category, some with ids that occur twice."""
    category = f"category-{next(_categories)}"
    used: list[UUID] = []

    def drawn_event() -> NewEvent[str, Any, Any]:
        event_id = draw(st.sampled_from(used)) if used and draw(st.integers(0, 9)) == 0 else uuid4()
        used.append(event_id)
        tags = {f"{tag}-{category}" for tag in draw(st.sets(st.sampled_from("tu"), max_size=1))}
        return NewEvent(id=event_id, name="placed", payload=None, tags=tags)

    def drawn_condition() -> WriteCondition | None:
        condition = draw(st.sampled_from(CONDITIONS))
        return None if condition is None else _of_category(condition, category)

    def drawn_publish() -> Parts:
        definitions: dict[StreamIdentifier, Any] = {}
        ids: set[UUID] = set()
        for stream in draw(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=2, unique=True)):
            events = [event for event in (drawn_event() for _ in range(draw(st.integers(0, 2)))) if event.id not in ids]
            events = list({event.id: event for event in events}.values())
            ids.update(event.id for event in events)
            definitions[StreamIdentifier(category, stream)] = {
                "events": events,
                "condition": drawn_condition() or NoCondition(),
            }
        return publications(target=LogIdentifier(), streams=definitions)

    return [[drawn_publish() for _ in range(draw(st.integers(1, 6)))] for _ in range(draw(st.integers(1, 2)))]


def _of_category(condition: WriteCondition, category: str) -> WriteCondition:
    """Have a condition look at the tags of this example."""
    query = {"t": EventQuery.tagged(f"t-{category}"), "u": EventQuery.tagged(f"u-{category}")}
    match CONDITIONS.index(condition):
        case 7:
            return no_event_matches(query["t"])
        case 8:
            return no_event_matches(query["t"]) & position_is(0)
        case 9:
            return no_event_matches(query["u"]) | stream_is_empty()
        case _:
            return condition


def _in_turn(store: SyncEventStore, parts: Parts) -> Any:
    streams = {part.stream: {"events": part.events, "condition": part.condition} for part in parts}
    try:
        stored = store.publish(streams=streams)  # type: ignore[arg-type]
    except UnmetWriteConditionError as error:
        return error.stream, error.actual_position
    except DuplicateEventError:
        return TAKEN
    return [[event.position for event in stored[part.stream]] for part in parts]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches())
def test_a_batch_does_what_its_publishes_would_do_in_turn(storage: EventStorage, drawn: list[list[Parts]]) -> None:
    check_batches(storage, drawn)


@pytest.mark.long
@settings(max_examples=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches())
def test_many_batches_do_what_their_publishes_would_do_in_turn(storage: EventStorage, drawn: list[list[Parts]]) -> None:
    check_batches(storage, drawn)


def check_batches(storage: EventStorage, drawn: list[list[Parts]]) -> None:
    """Compare with storage in memory; ids that are used twice within a batch are never sent in it."""
    model = SyncEventStore(InMemoryEventStorageAdapter())
    for batch in drawn:
        ids: set[UUID] = set()
        sent: list[Parts] = []
        for parts in batch:
            own = {event.id for part in parts for event in part.events}
            if ids.isdisjoint(own):
                sent.append(parts)
                ids |= own
        stored_before = {event.id for event in model.log().read()}
        expected = [
            TAKEN
            if not stored_before.isdisjoint({event.id for part in parts for event in part.events})
            else _in_turn(model, parts)
            for parts in sent
        ]

        assert outcomes(storage, *sent) == expected

    category = drawn[0][0][0].stream.category
    store = SyncEventStore(SyncSQLAlchemyEventStorageAdapter(storage._runner.bind))
    found = [(event.id, event.stream, event.position) for event in store.category(category=category).read()]
    assert found == [(event.id, event.stream, event.position) for event in model.log().read()]
