"""Events and rows of the host in one transaction, whichever way the store comes into it.

The same cases for every driver and for each kind of caller: a session or scoped session that the store works within, and
sessions and connections that it is bound to. What fails inside of a transaction is in `test_host_failures`.
"""

from __future__ import annotations

from typing import Any

import pytest

from eventstore_sa import StreamIdentifier
from eventstore_sa.conditions import position_is, stream_is_empty
from tests.awaiting import collected, settled
from tests.hosts import CALLERS, Host, TransactionSteps, each_kind_of_driver, new_event

pytestmark = pytest.mark.keeps_connections

each_caller = pytest.mark.parametrize("kind", CALLERS)


async def names_in(source: Any) -> list[str]:
    return [stored.name for stored in await collected(source.iterate())]


@each_caller
@each_kind_of_driver()
async def test_commit_keeps_the_event_and_the_row_of_the_host(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.write(caller)
        stored = await host.publish(store)
        await settled(caller.commit())

    assert host.ground.notes() == ["mine"]
    assert host.ground.names() == ["mine"]
    assert await collected(host.store.log().iterate()) == [stored]


@each_caller
@each_kind_of_driver()
async def test_rollback_drops_the_event_and_the_row_of_the_host(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.write(caller)
        await host.publish(store)
        await settled(caller.rollback())
        await host.write(caller, "later")
        await settled(caller.commit())

    assert host.ground.notes() == ["later"]
    assert host.ground.names() == []


@each_caller
@each_kind_of_driver()
async def test_publish_as_the_first_thing_in_a_transaction_is_part_of_it(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.publish(store, "dropped")
        await settled(caller.rollback())
        await host.publish(store, "kept")
        assert host.ground.names() == []
        await settled(caller.commit())

    assert host.ground.names() == ["kept"]


@each_caller
@each_kind_of_driver()
async def test_leaving_without_a_commit_drops_the_event(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.write(caller)
        await host.publish(store)

    assert host.ground.notes() == []
    assert host.ground.names() == []


@each_caller
@each_kind_of_driver()
async def test_savepoint_that_is_rolled_back_drops_its_events_and_no_others(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.publish(store, "before")
        savepoint = await settled(caller.begin_nested())
        await host.write(caller, "inside")
        await host.publish(store, "inside")
        await settled(savepoint.rollback())
        await host.publish(store, "after", condition=position_is(0))
        await settled(caller.commit())

    assert host.ground.notes() == []
    assert host.ground.names() == ["before", "after"]


@each_caller
@each_kind_of_driver()
async def test_savepoint_that_is_released_keeps_its_events(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        savepoint = await settled(caller.begin_nested())
        await host.write(caller, "inside")
        await host.publish(store, "inside")
        await settled(savepoint.commit())
        assert host.ground.names() == []
        await settled(caller.commit())

    assert host.ground.notes() == ["inside"]
    assert host.ground.names() == ["inside"]


@each_caller
@each_kind_of_driver()
async def test_rollback_drops_what_a_released_savepoint_has_stored(host: Host, kind: str) -> None:
    async with host.caller(kind) as (caller, store):
        await host.write(caller)
        savepoint = await settled(caller.begin_nested())
        await host.publish(store, "inside")
        await settled(savepoint.commit())
        await settled(caller.rollback())

    assert host.ground.notes() == []
    assert host.ground.names() == []


@each_caller
@each_kind_of_driver()
async def test_reads_see_events_of_their_own_transaction_at_once_and_others_do_not(host: Host, kind: str) -> None:
    host.ground.publish("committed")
    async with host.caller(kind) as (caller, store):
        stored = await host.publish(store, "open")

        stream = store.stream(category="orders", stream="1")
        assert await settled(stream.latest()) == stored
        for source in (stream, store.category(category="orders"), store.log()):
            assert await names_in(source) == ["committed", "open"]
        assert host.ground.names() == ["committed"]
        for source in (host.store.stream(category="orders", stream="1"), host.store.log()):
            assert await names_in(source) == ["committed"]
        await settled(caller.commit())

    assert await names_in(host.store.log()) == ["committed", "open"]


@each_caller
@each_kind_of_driver()
async def test_store_never_begins_nor_ends_a_transaction(host: Host, kind: str) -> None:
    event = new_event()
    async with host.caller(kind) as (caller, store):
        await host.write(caller)
        steps = TransactionSteps(host.engine)

        await settled(store.stream(category="orders", stream="1").publish(events=[event]))
        await settled(store.category(category="orders").publish(streams={"2": {"events": [new_event()]}}))
        await settled(store.publish(streams={StreamIdentifier("orders", "3"): {"events": [new_event()]}}))
        await settled(store.stream(category="orders", stream="1").publish(events=[event], condition=stream_is_empty()))
        await collected(store.log().iterate())
        await settled(store.category(category="orders").latest())
        await settled(store.watermark())

        assert steps.seen == []
        await settled(caller.commit())
        assert steps.seen == ["commit"]

    assert len(host.ground.names()) == 3


@each_kind_of_driver()
async def test_several_publishes_of_a_transaction_follow_one_another(host: Host) -> None:
    async with host.caller() as (caller, store):
        for position in range(5):
            condition = position_is(position - 1) if position else stream_is_empty()
            stored = await host.publish(store, str(position), condition=condition)
            assert stored.position == position
        await settled(caller.commit())

    assert host.ground.names() == ["0", "1", "2", "3", "4"]


@each_kind_of_driver()
async def test_publish_is_repeated_within_its_own_transaction_and_in_the_next(host: Host) -> None:
    events = [new_event("first"), new_event("second")]
    async with host.caller() as (caller, store):
        stream = store.stream(category="orders", stream="1")
        stored = await settled(stream.publish(events=events, condition=stream_is_empty()))
        assert await settled(stream.publish(events=events, condition=stream_is_empty())) == stored
        await settled(caller.commit())
        assert await settled(stream.publish(events=events, condition=stream_is_empty())) == stored
        assert await settled(stream.publish(events=events)) == stored
        assert await host.locks(caller) == 0
        await host.write(caller)
        await settled(caller.commit())

    assert host.ground.names() == ["first", "second"]
    assert host.ground.notes() == ["mine"]


@each_kind_of_driver()
async def test_store_within_a_session_serves_one_transaction_after_the_other(host: Host) -> None:
    async with host.caller() as (caller, store):
        for name in ("first", "second"):
            async with host.caller() as (other, store_of_other):
                await host.publish(store_of_other, f"{name} of other")
                await settled(other.commit())
            await host.publish(store, name)
            await settled(caller.commit())

    assert host.ground.names() == ["first of other", "first", "second of other", "second"]


@each_kind_of_driver()
async def test_scan_within_a_session_goes_through_many_pages(host: Host) -> None:
    async with host.caller() as (caller, store):
        stream = store.stream(category="orders", stream="1")
        stored = await settled(stream.publish(events=[new_event(str(number)) for number in range(2500)]))

        assert await collected(stream.iterate()) == list(stored)
        assert await collected(store.log().iterate(backwards=True)) == list(stored)[::-1]
        await settled(caller.rollback())
