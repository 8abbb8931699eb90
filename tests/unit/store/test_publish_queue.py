"""Which publishes travel when, and which of them together."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore_sa import EventQuery, NewEvent, QueryItem, StreamIdentifier
from eventstore_sa.conditions import no_event_matches
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.publishing import publications
from eventstore_sa.store.adapters.publish_queue import PublishQueue, Travel, WaitingPublish
from eventstore_sa.types import LogIdentifier


def publish(
    *streams: str,
    tags: Collection[str] = (),
    depends_on: str | None = None,
    caller: Hashable = None,
    ids: Sequence[UUID] = (),
    payload: Any = None,
) -> WaitingPublish:
    """Make a publish of one event to each stream."""
    condition = None if depends_on is None else no_event_matches(EventQuery.tagged(depends_on))
    definitions: dict[StreamIdentifier, Any] = {}
    for number, stream in enumerate(streams):
        event = NewEvent(id=ids[number] if ids else uuid4(), name="placed", payload=payload, tags=frozenset(tags))
        definitions[StreamIdentifier("orders", stream)] = {
            "events": [event],
            **({} if condition is None else {"condition": condition}),
        }
    parts = publications(target=LogIdentifier(), streams=definitions)
    return WaitingPublish(parts, publish_document(parts), caller)


def busy_queue(connections: int | None = None) -> tuple[PublishQueue, Travel]:
    """Make a queue with a publish under way, so that others gather."""
    queue = PublishQueue(connections)
    travel = queue.enter(publish("under way"))
    assert travel is not None
    return queue, travel


def taken(queue: PublishQueue) -> Travel:
    travel = queue.take()
    assert travel is not None
    return travel


def all_added(queue: PublishQueue, *publishes: WaitingPublish) -> list[WaitingPublish]:
    for each in publishes:
        queue.add(each)
    return list(publishes)


def test_a_publish_that_finds_nothing_under_way_goes_straight() -> None:
    queue = PublishQueue()

    travel = queue.enter(publish("1"))

    assert travel is not None
    assert not travel.is_batch
    assert queue.enter(publish("2")) is None
    queue.finish(travel)
    assert queue.enter(publish("2")) is not None


def test_what_gathers_travels_together() -> None:
    queue, _ = busy_queue()
    waiting = all_added(queue, publish("1"), publish("2"), publish("1"))

    travel = taken(queue)

    assert travel.is_batch
    assert travel.publishes == waiting
    assert queue.take() is None


def test_at_most_two_batches_are_under_way() -> None:
    queue, straight = busy_queue()
    all_added(queue, publish("1"))
    first = taken(queue)
    (waiting,) = all_added(queue, publish("2"))

    assert queue.take() is None

    queue.finish(straight)
    assert taken(queue).publishes == [waiting]
    queue.finish(first)


def test_batches_that_exclude_each_other_follow_one_another() -> None:
    queue = PublishQueue(in_turn=True)
    straight = queue.enter(publish("1"))
    assert straight is not None
    (waiting,) = all_added(queue, publish("2"))

    assert queue.take() is None

    queue.finish(straight)
    assert taken(queue).publishes == [waiting]


def test_nothing_overtakes_what_is_under_way_to_the_same_stream_or_tag_or_of_the_same_caller() -> None:
    queue, straight = busy_queue()
    all_added(queue, publish("1", "2", tags=["t"], caller="me"))
    first = taken(queue)
    queue.finish(straight)
    *kept, free = all_added(
        queue,
        publish("2"),
        publish("3", tags=["t"]),
        publish("4", depends_on="t"),
        publish("5", caller="me"),
        publish("6"),
    )

    second = taken(queue)
    assert second.publishes == [free]

    queue.finish(second)
    assert queue.take() is None
    queue.finish(first)
    assert taken(queue).publishes == kept


def test_nothing_overtakes_what_has_to_wait_before_it() -> None:
    queue, straight = busy_queue()
    all_added(queue, publish("1"))
    first = taken(queue)
    queue.finish(straight)
    both, after = all_added(queue, publish("1", "2"), publish("2"))

    assert queue.take() is None

    queue.finish(first)
    assert taken(queue).publishes == [both, after]


def test_the_same_ids_are_never_under_way_twice() -> None:
    queue, straight = busy_queue()
    event_id = uuid4()
    first, again = all_added(queue, publish("1", ids=[event_id]), publish("2", ids=[event_id]))

    batch = taken(queue)
    assert batch.publishes == [first]
    queue.finish(straight)
    assert queue.take() is None

    queue.finish(batch)
    assert taken(queue).publishes == [again]


def test_a_batch_is_bounded_in_events_characters_and_locks() -> None:
    for name, publishes in {
        "events": [publish("1") for _ in range(1001)],
        "characters": [publish("1", payload="x" * 600_000), publish("1", payload="x" * 600_000)],
        # The category is one of 32 locks.
        "locks": [publish(str(number)) for number in range(32)],
        "locks with tags": [publish(str(number), tags=[f"t{number}"]) for number in range(16)],
    }.items():
        queue, straight = busy_queue()
        waiting = all_added(queue, *publishes)

        batch = taken(queue)

        assert batch.publishes == waiting[:-1], name
        queue.finish(straight)
        queue.finish(batch)
        assert taken(queue).publishes == waiting[-1:], name


def test_the_server_says_how_many_locks_a_batch_may_need() -> None:
    queue, _ = busy_queue()
    queue.most_locks = 4
    waiting = all_added(queue, *(publish(str(number)) for number in range(9)))

    assert taken(queue).publishes == waiting[:3]


def test_what_waits_is_measured_by_what_the_server_has_said_meanwhile() -> None:
    queue, straight = busy_queue()
    all_added(queue, publish("1", caller="me"))
    batch = taken(queue)
    (large,) = all_added(queue, publish("2", "3", "4", "5", caller="me"))
    queue.finish(straight)

    queue.most_locks = 4
    queue.finish(batch)
    travel = taken(queue)

    assert (travel.publishes, travel.is_batch) == ([large], False)


def test_what_is_too_large_for_a_batch_travels_alone() -> None:
    for name, large in {
        "events": publications(
            target=StreamIdentifier("orders", "1"), events=[NewEvent(name="placed", payload=0) for _ in range(1001)]
        ),
        "characters": publish("1", payload="x" * 2**20).parts,
        "locks": publish(*map(str, range(32))).parts,
        "all of the log": publications(
            target=StreamIdentifier("orders", "1"),
            events=[],
            condition=no_event_matches(EventQuery([QueryItem(names=["placed"])])),
        ),
    }.items():
        queue, straight = busy_queue()
        small, alone, after = all_added(
            queue, publish("small"), WaitingPublish(large, publish_document(large)), publish("1", "8")
        )

        assert taken(queue).publishes == [small], name
        travel = taken(queue)
        assert travel.publishes == [alone], name
        assert not travel.is_batch, name
        assert queue.take() is None, name
        queue.finish(travel)
        queue.finish(straight)
        assert taken(queue).publishes == [after], name


def test_what_was_busy_travels_alone_and_what_follows_it_waits_before_all_others() -> None:
    queue, straight = busy_queue()
    first, following, other = all_added(queue, publish("1"), publish("1"), publish("2"))
    batch = taken(queue)
    later, latest = all_added(queue, publish("1"), publish("3"))

    queue.finish(batch, [first, following])

    assert taken(queue).publishes == [latest]
    alone = taken(queue)
    assert alone.publishes == [first]
    assert not alone.is_batch
    assert queue.take() is None
    queue.finish(alone)
    queue.finish(straight)
    assert taken(queue).publishes == [following, later]
    assert other.is_withdrawn is False


def test_busy_publishes_leave_connections_to_batches() -> None:
    for connections, most_alone, most_batches in ((1, 1, 1), (2, 1, 1), (3, 1, 2), (6, 4, 2), (50, 8, 2), (None, 8, 2)):
        queue = PublishQueue(connections)
        batch = queue.enter(publish("under way"))
        assert batch is not None
        queue.finish(batch)
        waiting = all_added(queue, *(publish(str(number)) for number in range(20)))
        batch = taken(queue)
        queue.finish(batch, waiting)
        all_added(queue, publish("free"))

        travels = list(iter(queue.take, None))
        all_added(queue, publish("also free"))
        travels += list(iter(queue.take, None))

        assert [travel.is_batch for travel in travels].count(False) == most_alone, connections
        assert [travel.is_batch for travel in travels].count(True) == most_batches, connections
        assert queue.most_at_once == most_alone + most_batches


def test_a_batch_that_failed_as_a_whole_is_made_one_by_one() -> None:
    queue, _ = busy_queue()
    first, second, other = all_added(queue, publish("1"), publish("1"), publish("2"))
    batch = taken(queue)
    for each in batch.publishes:
        each.travels_alone = True

    queue.finish(batch, batch.publishes)

    travels = [taken(queue), taken(queue)]
    assert [travel.publishes for travel in travels] == [[first], [other]]
    assert queue.take() is None
    queue.finish(travels[0])
    assert taken(queue).publishes == [second]


def test_a_withdrawn_publish_is_not_sent_and_keeps_nobody_waiting() -> None:
    queue, straight = busy_queue()
    first, waiting = all_added(queue, publish("1"), publish("2"))
    batch = taken(queue)
    after = publish("1")
    all_added(queue, after)
    queue.finish(batch, [first])

    queue.withdraw(first)  # while it is to travel alone
    assert taken(queue).publishes == [after]

    (gone,) = all_added(queue, publish("3"))
    queue.withdraw(gone)
    queue.finish(straight)
    assert queue.take() is None
    assert not queue.may_send
    assert waiting.is_withdrawn is False


def test_an_emptied_queue_holds_nothing() -> None:
    queue, straight = busy_queue()
    (busy,) = all_added(queue, publish("1"))
    queue.finish(taken(queue), [busy])
    (waiting,) = all_added(queue, publish("2"))

    assert queue.emptied() == [busy, waiting]

    queue.finish(straight)
    assert queue.enter(publish("1", "2")) is not None


@settings(max_examples=30)
@given(st.data())
def test_streams_keep_their_order_and_everything_arrives(data: st.DataObject) -> None:
    queue = PublishQueue(data.draw(st.sampled_from([1, 2, 5])))
    names = st.lists(st.sampled_from("abcd"), min_size=1, max_size=2, unique=True)
    expected: dict[str, list[WaitingPublish]] = {name: [] for name in "abcd"}
    arrived: dict[str, list[WaitingPublish]] = {name: [] for name in "abcd"}
    under_way: list[Travel] = []
    to_come = data.draw(st.integers(1, 12))
    while to_come or under_way:
        if to_come and (not under_way or data.draw(st.booleans())):
            to_come -= 1
            streams = data.draw(names)
            new = publish(*streams)
            for name in streams:
                expected[name].append(new)
            straight = queue.enter(new)
            if straight is None:
                queue.add(new)
            else:
                under_way.append(straight)
        else:
            travel = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            left: list[WaitingPublish] = []
            busy: set[StreamIdentifier] = set()
            for each in travel.publishes:
                streams_of = {part.stream for part in each.parts}
                # What follows a busy one is busy too: so does the database.
                if travel.is_batch and (streams_of & busy or data.draw(st.booleans())):
                    left.append(each)
                    busy |= streams_of
                else:
                    for stream in streams_of:
                        arrived[stream.stream].append(each)
            queue.finish(travel, left)
        while (travel_now := queue.take()) is not None:
            under_way.append(travel_now)

    assert arrived == expected
    assert queue.enter(publish("a")) is not None
