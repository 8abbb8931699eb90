"""How publishes exclude each other by tags on PostgreSQL, one interleaving at a time: who waits, who wins, who gives up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from eventstore_sa import EventQuery, EventStoreSchema, NewEvent, Projector, QueryItem, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import (
    AndCondition,
    NoCondition,
    NoEventMatchesCondition,
    WriteCondition,
    no_event_matches,
    stream_is_empty,
)
from eventstore_sa.errors import ConfigurationError, LockTimeoutError, TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.schema.locking import FENCE
from eventstore_sa.store.adapters import SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.testing import clear
from eventstore_sa.testing.postgres import PostgresServer
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.interleaving import Stage, Writer, install_schema, open_stage
from tests.stores import record_locking

MANY = [f"tag:{number}" for number in range(40)]
"""More tags than a transaction locks one by one."""


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        yield database


@pytest.fixture
def stage(database: PostgresDatabase) -> Iterator[Stage]:
    with open_stage(database) as stage:
        clear(stage.engine)
        yield stage


@pytest.fixture
def labelled(stage: Stage) -> Iterator[Stage]:
    schema = EventStoreSchema(labels=["tenant:"])
    record_locking(stage.engine, schema.locking_mode)
    stage.store = SyncEventStore(stage.engine, schema=schema)
    yield stage
    record_locking(stage.engine, FENCE)


class Names(Projector[EventQuery, list[str], None]):
    """Collects the names of events."""

    def initial_state_factory(self) -> list[str]:
        return []

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: list[str], source: EventQuery) -> str:
        return source.json()

    def first(self, state: list[str], event: Any) -> list[str]:
        return [*state, event.name]

    second = third = fourth = first


def publish(
    store: Any,
    name: str = "first",
    *tags: str,
    stream: str | None = None,
    condition: WriteCondition = NoCondition(),  # noqa: B008
) -> Any:
    """Publish one event with tags, to a stream that no one else writes to."""
    target = store.stream(category="tagged", stream=name if stream is None else stream)
    (stored,) = target.publish(events=[NewEvent(name=name, payload=None, tags=tags)], condition=condition)
    return stored


def nothing(*tags: str, names: tuple[str, ...] = ()) -> WriteCondition:
    return no_event_matches(EventQuery([QueryItem(names=names, tags=tags)]))


def locks_of(stage: Stage, writer: Writer) -> int:
    with stage.autocommit() as connection:
        count: int = connection.execute(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = :pid "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ),
            {"pid": writer.pid},
        ).scalar_one()
        return count


def test_writers_of_a_tag_exclude_each_other_until_they_commit(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    publish(first.store, "first", "a", "b")

    waiting = stage.in_background(lambda: publish(second.store, "second", "b", "c"))
    stage.wait_until_blocked()
    first.commit()

    assert waiting.result().sequence_number > 1
    second.commit()
    assert stage.log() == ["first", "second"]


def test_writers_of_different_tags_do_not_wait_for_each_other(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    publish(first.store, "first", "a", "b")
    publish(second.store, "second", "c", "d")
    second.commit()
    first.commit()

    assert stage.log() == ["first", "second"]


def test_publishes_that_depend_on_a_tag_do_not_wait_for_each_other(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    publish(first.store, "first", "a", condition=nothing("price:1"))
    publish(second.store, "second", "b", condition=nothing("price:1"))
    second.commit()
    first.commit()

    assert stage.log() == ["first", "second"]


def test_publish_that_depends_on_a_tag_waits_for_its_writer_and_sees_the_event(stage: Stage) -> None:
    writer = stage.writer()
    publish(writer.store, "first", "price:1")

    waiting = stage.in_background(lambda: publish(stage.store, "second", "order:1", condition=nothing("price:1")))
    stage.wait_until_blocked()
    writer.commit()

    with pytest.raises(UnmetWriteConditionError):
        waiting.result()
    assert stage.log() == ["first"]


def test_writer_of_a_tag_waits_for_a_publish_that_depends_on_it(stage: Stage) -> None:
    writer = stage.writer()
    publish(writer.store, "first", "order:1", condition=nothing("price:1"))

    waiting = stage.in_background(lambda: publish(stage.store, "second", "price:1"))
    stage.wait_until_blocked()
    writer.commit()

    waiting.result()
    assert stage.log() == ["first", "second"]


def test_event_that_a_slow_writer_numbered_earlier_is_not_overlooked(stage: Stage) -> None:
    slow = stage.writer()
    publish(slow.store, "first", "course:1")
    publish(stage.store, "second", "student:1")
    query = EventQuery([QueryItem(tags=["course:1"]), QueryItem(tags=["student:1"])])

    decision = stage.store.decide(query, Names())
    slow.commit()

    assert decision.state == ["second"]
    with pytest.raises(UnmetWriteConditionError):
        publish(stage.store, "third", "course:1", "student:1", condition=decision.unchanged())


def test_event_that_a_slow_writer_numbered_earlier_is_overlooked_with_one_number_for_all_items(stage: Stage) -> None:
    """The mistake that a number for each item prevents; `no_event_matches` refuses it."""
    slow = stage.writer()
    publish(slow.store, "first", "course:1")
    last = publish(stage.store, "second", "student:1")
    items = [QueryItem(tags=["course:1"]), QueryItem(tags=["student:1"])]

    slow.commit()
    condition = AndCondition(frozenset(NoEventMatchesCondition(item, last.sequence_number, last.id) for item in items))

    publish(stage.store, "third", "course:1", "student:1", condition=condition)


def test_event_that_is_committed_between_two_reads_of_a_decision_is_not_overlooked(stage: Stage) -> None:
    slow = stage.writer()
    publish(slow.store, "first", "course:1")
    publish(stage.store, "second", "student:1")
    query = EventQuery([QueryItem(tags=["course:1"]), QueryItem(tags=["student:1"])])
    store = SyncEventStore(SyncSQLAlchemyEventStorageAdapter(stage.engine, page_size=1))
    scan = store.adapter.scan

    def interrupted(**arguments: Any) -> Iterator[Any]:
        for found in scan(**arguments):
            yield found
            if found.name == "second":
                slow.commit()
                publish(stage.store, "third", "course:1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.adapter, "scan", interrupted)
        decision = store.decide(query, Names())

    assert decision.state == ["second"]
    with pytest.raises(UnmetWriteConditionError):
        publish(store, "fourth", "course:1", "student:1", condition=decision.unchanged())


def test_event_that_is_committed_between_two_pages_of_all_items_together_is_overlooked(stage: Stage) -> None:
    """The mistake that reading item by item prevents."""
    slow = stage.writer()
    publish(slow.store, "first", "course:1")
    items = [QueryItem(tags=["course:1"]), QueryItem(tags=["student:1"])]
    first_page = publish(stage.store, "second", "student:1")
    slow.commit()
    second_page = publish(stage.store, "third", "course:1")

    condition = AndCondition(
        frozenset(
            NoEventMatchesCondition(item, last.sequence_number, last.id)
            for item, last in zip(items, (second_page, first_page), strict=True)
        )
    )

    publish(stage.store, "fourth", "course:1", "student:1", condition=condition)


def test_decision_by_names_alone_is_not_made_of_events_beyond_the_watermark(stage: Stage) -> None:
    by_name = EventQuery([QueryItem(names=["first", "second"])])
    slow = stage.writer()
    publish(slow.store, "first")
    publish(stage.store, "second")
    inside = stage.writer()

    decisions = [stage.store.decide(by_name, Names()), inside.store.decide(by_name, Names())]
    slow.commit()

    assert [decision.state for decision in decisions] == [[], []]
    for decision, store in zip(decisions, (stage.store, inside.store), strict=True):
        with pytest.raises(UnmetWriteConditionError):
            publish(store, "third", condition=decision.unchanged())


def test_publish_that_depends_on_names_alone_excludes_all_writers(stage: Stage) -> None:
    writer = stage.writer()
    publish(writer.store, "first", condition=nothing(names=("second",)))

    waiting = stage.in_background(lambda: publish(stage.store, "second"))
    stage.wait_until_blocked()
    writer.commit()

    waiting.result()
    assert stage.log() == ["first", "second"]


def test_two_publishes_with_the_same_tags_in_any_order_do_not_deadlock(stage: Stage) -> None:
    tags = [f"tag:{number}" for number in range(10)]
    writer = stage.writer()
    publish(writer.store, "held", tags[4])

    waiting = [
        stage.in_background(partial(publish, stage.store, name, *ordered))
        for name, ordered in (("first", tags), ("second", tags[::-1]))
    ]
    stage.wait_until_blocked(2)
    writer.commit()

    for each in waiting:
        each.result()


def test_transactions_that_depend_on_a_tag_and_then_write_it_do_not_deadlock(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    for number, writer in enumerate((first, second)):
        publish(writer.store, f"depends-{number}", condition=nothing("a"))
        writer.execute("SET LOCAL lock_timeout = '500ms'")

    waiting = stage.in_background(lambda: publish(first.store, "first", "a", condition=nothing("a")))
    with pytest.raises(LockTimeoutError, match="a tag"):
        publish(second.store, "second", "a", condition=nothing("a"))
    with pytest.raises(LockTimeoutError, match="a tag"):
        waiting.result()
    second.rollback()
    publish(first.store, "first", "a", condition=nothing("a"))
    first.commit()

    assert stage.log() == ["depends-0", "first"]


def test_lock_of_a_tag_is_not_taken_for_held_after_its_savepoint_was_rolled_back(stage: Stage) -> None:
    writer, other = stage.writer(), stage.writer()
    savepoint = writer.session.begin_nested()
    publish(writer.store, "depends", condition=nothing("a"))
    savepoint.rollback()
    publish(other.store, "first", "a")

    waiting = stage.in_background(lambda: publish(writer.store, "second", "a"))
    stage.wait_until_blocked()
    other.commit()

    waiting.result()


def test_publish_with_many_tags_locks_all_tags_instead(stage: Stage) -> None:
    few, many = stage.writer(), stage.writer()
    publish(few.store, "few", "other", "another")
    publish(many.store, "elsewhere", *MANY[:2])
    many.rollback()
    waiting = stage.in_background(lambda: publish(many.store, "many", *MANY))

    impatient = stage.writer()
    impatient.execute("SET LOCAL lock_timeout = '100ms'")
    with pytest.raises(LockTimeoutError, match="all tags"):
        publish(impatient.store, "impatient", *MANY)
    publish(stage.store, "untagged")
    few.commit()
    waiting.result()

    assert locks_of(stage, many) < 10
    waiting = stage.in_background(lambda: publish(stage.store, "later", "any"))
    stage.wait_until_blocked()
    publish(stage.store, "still-untagged")
    many.commit()
    waiting.result()


def test_condition_with_many_items_locks_all_tags_instead(stage: Stage) -> None:
    writer = stage.writer()
    condition = no_event_matches(EventQuery([QueryItem(tags=[tag]) for tag in MANY]))
    publish(writer.store, "first", condition=condition)

    assert locks_of(stage, writer) < 10
    waiting = stage.in_background(lambda: publish(stage.store, "second", MANY[7]))
    stage.wait_until_blocked()
    writer.commit()
    waiting.result()


def test_many_streams_and_many_tags_in_one_publish_take_few_locks(stage: Stage) -> None:
    writer = stage.writer()
    writer.store.publish(
        streams={
            StreamIdentifier("tagged", tag): {"events": [NewEvent(name="many", payload=None, tags=[tag])]}
            for tag in MANY
        }
    )

    assert locks_of(stage, writer) < 10


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_transactions_with_a_fixed_snapshot_may_write_tags_but_not_depend_on_them(stage: Stage, level: str) -> None:
    writer = stage.writer()
    writer.rollback()
    writer.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")

    for condition in (nothing("a"), nothing("b"), nothing(names=("x",)), nothing("a") | stream_is_empty()):
        with pytest.raises(TransactionError, match="READ COMMITTED"):
            publish(writer.store, "first", "a", condition=condition)
    publish(writer.store, "second", "a")
    writer.commit()

    assert stage.log() == ["second"]


def test_event_with_a_tag_of_its_own_condition_takes_one_lock_for_it(stage: Stage) -> None:
    untagged, written, both = stage.writer(), stage.writer(), stage.writer()
    publish(untagged.store, "first")
    publish(written.store, "second", "a")
    publish(both.store, "third", "b", condition=nothing("b", "c"))

    assert locks_of(stage, untagged) == 4  # the log, the category, the stream, and the fence
    assert locks_of(stage, written) == 4 + 2  # the tag, and all tags
    assert locks_of(stage, both) == locks_of(stage, written)


def test_writers_of_a_label_do_not_exclude_each_other(labelled: Stage) -> None:
    first, second = labelled.writer(), labelled.writer()
    publish(first.store, "first", "tenant:1", "a")
    publish(second.store, "second", "tenant:1", "b")
    publish(second.store, "third", "c", condition=nothing("d", "tenant:1"))
    second.commit()
    first.commit()

    assert labelled.log() == ["first", "second", "third"]


def test_decision_on_labels_alone_is_made_below_the_watermark_and_excludes_all_writers(labelled: Stage) -> None:
    query = EventQuery.tagged("tenant:1")
    slow = labelled.writer()
    publish(slow.store, "first", "tenant:1")
    publish(labelled.store, "second", "tenant:1")
    inside = labelled.writer()

    decisions = [labelled.store.decide(query, Names()), inside.store.decide(query, Names())]
    waiting = labelled.in_background(partial(publish, labelled.store, "third", condition=decisions[0].unchanged()))
    labelled.wait_until_blocked()
    slow.commit()

    assert [decision.state for decision in decisions] == [[], []]
    with pytest.raises(UnmetWriteConditionError):
        waiting.result()
    with pytest.raises(UnmetWriteConditionError):
        publish(inside.store, "fourth", condition=decisions[1].unchanged())


def test_store_with_other_labels_is_refused(labelled: Stage) -> None:
    with pytest.raises(ConfigurationError, match=r"record locking 'fence labels=tenant:', but this store has 'fence'"):
        publish(SyncEventStore(labelled.engine), "first", "tenant:1")
