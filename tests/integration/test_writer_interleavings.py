"""How writers exclude each other on PostgreSQL, one interleaving at a time: who waits, who wins, what nobody notices.

What readers see meanwhile is in `test_order_interleavings.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from eventstore_sa import StreamIdentifier
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import LockTimeoutError, TransactionError, UnmetWriteConditionError
from eventstore_sa.publishing import stream_publish_definition
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, event, install_schema, names, open_stage

WIDE = [str(number) for number in range(40)]
"""More streams than a transaction locks one by one."""


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


def test_second_writer_of_a_stream_waits_and_continues_the_positions(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    stored_first = first.publish("first")

    waiting = stage.in_background(lambda: second.publish("second"))
    stage.wait_until_blocked()
    first.commit()
    stored_second = waiting.result()
    second.commit()

    assert (stored_first.position, stored_second.position) == (0, 1)
    assert stored_first.sequence_number < stored_second.sequence_number
    assert stage.log() == stage.stream("1") == ["first", "second"]


def test_publish_of_its_own_waits_for_a_transaction_as_well(stage: Stage) -> None:
    writer = stage.writer()
    writer.publish("first")

    waiting = stage.in_background(lambda: stage.publish("second", stream="1"))
    stage.wait_until_blocked()
    writer.commit()

    assert waiting.result().position == 1
    assert stage.log() == ["first", "second"]


def test_positions_of_a_writer_that_rolled_back_are_given_out_again(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    first.publish("gone")

    waiting = stage.in_background(lambda: second.publish("kept"))
    stage.wait_until_blocked()
    first.rollback()

    assert waiting.result().position == 0
    second.commit()
    assert stage.stream("1") == ["kept"]


def test_lock_of_a_savepoint_that_was_rolled_back_is_given_back(stage: Stage) -> None:
    first = stage.writer()
    savepoint = first.session.begin_nested()
    first.publish("gone")
    waiting = stage.in_background(lambda: stage.publish("kept", stream="1"))
    stage.wait_until_blocked()

    savepoint.rollback()

    assert waiting.result().position == 0


def test_writers_of_different_streams_do_not_wait_for_each_other(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    first.publish("first", stream="1")
    second.publish("second", stream="2")
    second.commit()
    first.commit()

    assert stage.log() == ["first", "second"]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_of_two_publishes_to_an_empty_stream_exactly_one_wins(stage: Stage, ending: str) -> None:
    first, second = stage.writer(), stage.writer()
    first.publish("first", condition=stream_is_empty())

    waiting = stage.in_background(lambda: second.publish("second", condition=stream_is_empty()))
    stage.wait_until_blocked()
    if ending == "commit":
        first.commit()
        with pytest.raises(UnmetWriteConditionError) as caught:
            waiting.result()
        assert caught.value.actual_position == 0
        second.commit()
        assert stage.stream("1") == ["first"]
    else:
        first.rollback()
        assert waiting.result().position == 0
        second.commit()
        assert stage.stream("1") == ["second"]


def test_condition_sees_what_was_committed_while_it_waited_for_the_lock(stage: Stage) -> None:
    stage.publish("zeroth", stream="1")
    first, second = stage.writer(), stage.writer()
    first.publish("first")

    waiting = stage.in_background(lambda: second.publish("second", condition=position_is(1)))
    stage.wait_until_blocked()
    first.commit()

    assert waiting.result().position == 2


def test_publishes_to_the_same_streams_in_opposite_orders_do_not_deadlock(stage: Stage) -> None:
    # Each waits for the stream that it names first, and would then hold it while it waits for the other one.
    holders = stage.writer(), stage.writer()
    holders[0].publish("held", stream="1")
    holders[1].publish("held", stream="2")
    publishes = [
        stage.in_background(partial(stage.store.publish, streams=stage.definitions(*streams)))
        for streams in ("12", "21")
    ]
    stage.wait_until_blocked(2)

    for holder in holders:
        holder.commit()

    for publish in publishes:
        assert {stored.position for events in publish.result().values() for stored in events} <= {1, 2}
    assert stage.stream("1") == ["held", "to-1", "to-1"]
    assert stage.stream("2") == ["held", "to-2", "to-2"]


def test_deadlock_costs_one_publish_and_not_its_transaction(stage: Stage) -> None:
    first, second = stage.writer(), stage.writer()
    first.publish("first", stream="1")
    second.publish("second", stream="2")
    # Whoever looks for a deadlock first is the one to give way.
    first.execute("SET LOCAL deadlock_timeout = '10min'")
    second.execute("SET LOCAL deadlock_timeout = '10ms'")
    waiting = stage.in_background(lambda: first.publish("first", stream="2"))
    stage.wait_until_blocked()

    with pytest.raises(TransactionError, match="deadlock") as caught:
        second.publish("second", stream="1")

    assert caught.value.retryable
    second.publish("still usable", stream="3")
    second.commit()
    assert waiting.result().position == 1
    first.commit()
    assert stage.log() == ["first", "second", "still usable", "first"]


def test_lock_that_cannot_be_had_costs_one_publish_and_not_its_transaction(stage: Stage) -> None:
    holder, writer = stage.writer(), stage.writer()
    holder.publish("held", stream="1")
    writer.publish("kept", stream="2")
    writer.execute("SET LOCAL lock_timeout = '20ms'")

    with pytest.raises(LockTimeoutError):
        writer.publish("late", stream="1")

    writer.commit()
    holder.rollback()
    assert stage.log() == ["kept"]


def test_others_publish_while_somebody_waits_for_a_whole_category(stage: Stage) -> None:
    holder, wide = stage.writer("holder"), stage.writer("wide")
    holder.publish("held", stream="elsewhere")

    waiting = stage.in_background(lambda: wide.store.publish(streams=stage.definitions(*WIDE)))
    stage.wait_until_blocked()
    for _ in range(5):
        stage.publish("meanwhile", stream="another")
    assert not waiting.done()
    holder.commit()

    assert len(waiting.result()) == len(WIDE)
    wide.commit()
    assert stage.category()[-len(WIDE) :] == [f"to-{stream}" for stream in WIDE]


def test_whole_category_that_cannot_be_had_names_who_holds_it(stage: Stage) -> None:
    holder, wide = stage.writer("holder"), stage.writer("wide")
    holder.publish("held", stream="elsewhere")
    wide.execute("SET LOCAL lock_timeout = '50ms'")

    with pytest.raises(LockTimeoutError, match=rf"process {holder.pid} \(holder\)"):
        wide.store.publish(streams=stage.definitions(*WIDE))

    wide.publish("small", stream="1")
    wide.commit()
    assert stage.stream("1") == ["small"]


def test_streams_of_a_widely_locked_category_are_locked(stage: Stage) -> None:
    wide = stage.writer()
    wide.store.publish(streams=stage.definitions(*WIDE))

    waiting = stage.in_background(lambda: stage.publish("after", stream=WIDE[0]))
    stage.wait_until_blocked()
    assert stage.publish("elsewhere", stream="1", category="invoices").position == 0
    wide.commit()

    assert waiting.result().position == 1


def test_publish_to_many_categories_keeps_positions_of_each_stream(stage: Stage) -> None:
    holder = stage.writer()
    holder.publish("held", stream="1", category="invoices")
    streams = [StreamIdentifier("orders", "1"), StreamIdentifier("invoices", "1")]

    definitions = {stream: stream_publish_definition(events=[event("both")]) for stream in streams}
    waiting = stage.in_background(lambda: stage.store.publish(streams=definitions))
    stage.wait_until_blocked()
    assert stage.stream("1", "orders") == []
    holder.commit()

    assert [stored.position for events in waiting.result().values() for stored in events] == [0, 1]
    assert names(stage.store.log().iterate()) == ["held", "both", "both"]
