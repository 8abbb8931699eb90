"""Decisions: what rules on tags cost beside rules on streams, in a log of a million events with two tags each.

The one peer with dynamic consistency boundaries appends the same events, on a condition on the same two tags.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

from msgspec import Struct

from benchmarks.contenders import PEERS
from benchmarks.databases import Setting, database
from benchmarks.harness import OURS, Side, Suite, Workload, rate
from benchmarks.samples import METADATA, NAME, order_placed
from benchmarks.tagged import fill_with_tags
from eventstore_sa import EventQuery, EventStore, NewEvent, Projector, StreamIdentifier
from eventstore_sa.conditions import AndCondition, NoEventMatchesCondition, WriteCondition, position_is, stream_is_empty

__all__ = ["SUITE"]

STREAMS = "two streams"
WITHOUT = "without tags"
_EACH = 50

_numbers = count(1)


class _Amount(Projector[Any, int, None]):
    """How many events there are."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def order_placed(self, state: int, event: Any) -> int:
        return state + 1


class _Opened(Struct, frozen=True):
    """A store with events, and the recorder of the peer, if it is installed.

    Attributes:
        store: The store, whose streams and tags have as many events each.
        amount: How many streams and courses there are.
        peer: The peer's.
    """

    store: EventStore
    amount: int
    peer: Any


@asynccontextmanager
async def _opened(setting: Setting) -> AsyncIterator[_Opened]:
    events = setting.sized(1_000_000, 100_000, 500)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(database(setting))
        store = await db.store()
        await fill_with_tags(await db.raw(), events=events, streams=events // _EACH)
        peer = None
        if setting.with_peers and PEERS["eventsourcing"].missing is None:
            *_, contender = PEERS["eventsourcing"].classes()
            other = await stack.enter_async_context(database(setting))
            peer = await stack.enter_async_context(contender.opened(other, 1))
        yield _Opened(store, events // _EACH, peer)


def _tags(number: int) -> tuple[str, str]:
    return f"course:{number}", f"student:{number}"


def _side(name: str, work: Callable[[int], Awaitable[object]]) -> Side:
    async def repeated(times: int) -> None:
        for _ in range(times):
            await work(next(_numbers))

    return rate(name, 1, repeated, most=1000)


def _decide(opened: _Opened, _: Setting) -> Sequence[Side]:
    """Read two tags, or two streams, of fifty events, decide and publish one event."""
    store, amount = opened.store, opened.amount

    async def by_tags(turn: int) -> None:
        course, student = f"course:{turn % amount}", f"student:{turn * 7 % amount}"
        models = {tag: (EventQuery.tagged(tag), _Amount()) for tag in (course, student)}
        decision = await store.decide(models)
        event = NewEvent(name="order-noted", payload={"amount": decision.state[course]}, tags=[course, student])
        await store.stream(category="notes", stream=f"tags-{turn}").publish(
            events=[event], condition=decision.unchanged()
        )

    async def by_streams(turn: int) -> None:
        positions: list[int] = []
        for number in (turn % amount, turn * 7 % amount):
            stream = store.stream(category="orders", stream=f"order-{number}")
            read = await stream.read()
            projection = await _Amount().reduce(
                events=[event for event in read if event.name == NAME], state=0, metadata=None
            )
            positions.append(read[-1].position if projection[0] else 0)
        first, second = (StreamIdentifier("orders", f"order-{each}") for each in (turn % amount, turn * 7 % amount))
        streams: dict[StreamIdentifier, Any] = {
            first: {"events": [NewEvent(name="order-noted", payload=None)], "condition": position_is(positions[0])}
        }
        if second != first:
            streams[second] = {"events": [], "condition": position_is(positions[1])}
        await store.publish(streams=streams)

    return [_side(OURS, by_tags), _side(STREAMS, by_streams)]


def _publish(opened: _Opened, _: Setting) -> Sequence[Side]:
    """Publish an event with two tags, on a condition that knows the last event of each; or one on its stream's position."""
    store = opened.store

    def condition(tags: Sequence[str], known: Any) -> WriteCondition:
        items = [EventQuery.tagged(tag).items[0] for tag in tags]
        return AndCondition(
            frozenset(
                NoEventMatchesCondition(item)
                if known is None
                else NoEventMatchesCondition(item, known.sequence_number, known.id, "")
                for item in items
            )
        )

    last: dict[int, Any] = {}

    async def with_tags(turn: int) -> None:
        which = turn % 100
        tags = [f"writer:{which}", f"desk:{which}"]
        event = NewEvent(name=NAME, payload=order_placed(turn), metadata=METADATA, tags=tags)
        stream = store.stream(category="written", stream=f"with-{turn}")
        (last[which],) = await stream.publish(events=[event], condition=condition(tags, last.get(which)))

    async def without(turn: int) -> None:
        stream = store.stream(category="written", stream=f"without-{turn}")
        event = NewEvent(name=NAME, payload=order_placed(turn), metadata=METADATA)
        await stream.publish(events=[event], condition=stream_is_empty())

    return [_side(OURS, with_tags), _side(WITHOUT, without), *_of_peer(opened)]


def _of_peer(opened: _Opened) -> Sequence[Side]:
    peer = opened.peer
    if peer is None:
        return ()

    async def append(turn: int) -> None:
        which = turn % 100
        peer.append_on_tags([f"writer:{which}", f"desk:{which}"], order_placed(turn))

    return [_side(peer.name, append)]


SUITE = Suite(
    _opened,
    (
        Workload(
            name="decide",
            title="decide on two tags of 50 events and publish, against two streams",
            unit="decisions/s",
            sides=_decide,
            mark=STREAMS,
            floor=0.6,
        ),
        Workload(
            name="publish-tags",
            title="publish an event with two tags on remembered positions, against one without tags",
            unit="events/s",
            sides=_publish,
            mark=WITHOUT,
            floor=0.7,
        ),
    ),
)
