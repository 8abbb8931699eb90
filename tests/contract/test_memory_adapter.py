"""The in-memory adapters: the shipped cases, and what only they promise: snapshots, no gaps, one storage for all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread
from typing import Any

import pytest

from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import ConfigurationError, DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.sources.constraints import (
    QueryConstraint,
    name_in,
    position_after,
    position_before,
    sequence_number_after,
)
from eventstore_sa.store import EventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter, memory_storage
from eventstore_sa.store.adapters.memory_storage import InMemoryEventStorage
from eventstore_sa.testing.cases import EventStorageAdapterCases, SyncEventStorageAdapterCases
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    CategoryIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    NewEvent,
    StoredEvent,
    StreamIdentifier,
    decode_json,
)
from tests.patience import PATIENCE_S

LOG = LogIdentifier()
ORDERS = CategoryIdentifier("orders")
STREAM = StreamIdentifier("orders", "42")


class TestInMemoryEventStorageAdapter(EventStorageAdapterCases):
    scans_are_snapshots = True
    keeps_subscriptions = True

    def construct_storage_adapter(self) -> InMemoryEventStorageAdapter:
        return InMemoryEventStorageAdapter()


class TestSyncInMemoryEventStorageAdapter(SyncEventStorageAdapterCases):
    scans_are_snapshots = True
    keeps_subscriptions = True
    thorough = False

    def construct_storage_adapter(self) -> SyncInMemoryEventStorageAdapter:
        return SyncInMemoryEventStorageAdapter()


@pytest.mark.long
class TestAllOfSyncInMemoryEventStorageAdapter(TestSyncInMemoryEventStorageAdapter):
    thorough = True


class EvenPosition(QueryConstraint, frozen=True):
    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.position % 2 == 0


def new_events(amount: int) -> list[NewEvent[str, dict[str, int], None]]:
    return [NewEvent(name="order-placed", payload={"number": number}) for number in range(amount)]


@pytest.fixture
def adapter() -> SyncInMemoryEventStorageAdapter:
    return SyncInMemoryEventStorageAdapter()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every JSON text that the adapter decodes."""
    texts: list[bytes] = []

    def decode(text: bytes) -> Any:
        texts.append(text)
        return decode_json(text)

    monkeypatch.setattr(memory_storage, "decode_json", decode)
    return texts


class CountingList(list[Any]):
    """A list that counts how many of its items are looked at."""

    looked_at = 0

    def __getitem__(self, index: Any) -> Any:
        self.looked_at += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("nobody goes through all events")


def filled(storage: InMemoryEventStorage, amount: int) -> InMemoryEventStorage:
    """Publish so many events to one category, 100 to a stream."""
    adapter = SyncInMemoryEventStorageAdapter(storage)
    for number in range(amount // 1000):
        adapter.save(target=ORDERS, streams={f"{number}-{part}": {"events": new_events(100)} for part in range(10)})
    return storage


@pytest.fixture(scope="module")
def large_storage() -> InMemoryEventStorage:
    """100,000 events, to be read only."""
    return filled(InMemoryEventStorage(), 100_000)


def counting(storage: InMemoryEventStorage, target: Any) -> CountingList:
    """Count from now on what is looked at in the events of the target."""
    records = storage._records
    counted = CountingList(list.__iter__(records.of(target)))  # type: ignore[arg-type]
    match target:
        case LogIdentifier():
            records.log = counted
        case CategoryIdentifier(category):
            records.categories[category] = counted
        case _:
            records.streams[target] = counted
    return counted


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let threads take turns at nearly every step: a missing lock shows at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_sequence_numbers_start_at_1_and_have_no_gaps(adapter: SyncInMemoryEventStorageAdapter) -> None:
    adapter.save(target=STREAM, events=new_events(2))
    with pytest.raises(UnmetWriteConditionError):
        adapter.save(target=STREAM, events=new_events(2), condition=stream_is_empty())
    adapter.save(target=STREAM, events=[])
    adapter.save(target=ORDERS, streams={"1": {"events": new_events(1)}, "2": {"events": new_events(1)}})

    assert [event.sequence_number for event in adapter.scan()] == [1, 2, 3, 4]


def test_a_scan_begins_when_it_is_called(adapter: SyncInMemoryEventStorageAdapter) -> None:
    stored = adapter.save(target=STREAM, events=new_events(2))

    scans = [adapter.scan(target=target) for target in (LOG, ORDERS, STREAM)]
    backwards = adapter.scan(backwards=True)
    adapter.save(target=STREAM, events=new_events(2))

    assert [list(scan) for scan in scans] == [list(stored)] * 3
    assert list(backwards) == list(stored)[::-1]


async def test_an_async_scan_begins_when_it_is_called() -> None:
    adapter = InMemoryEventStorageAdapter()
    stored = await adapter.save(target=STREAM, events=new_events(2))

    scan = adapter.scan(target=STREAM)
    await adapter.save(target=STREAM, events=new_events(2))

    assert [event async for event in scan] == list(stored)


def test_a_scan_of_a_stream_that_is_not_there_yet_stays_empty(adapter: SyncInMemoryEventStorageAdapter) -> None:
    scans = [adapter.scan(target=target) for target in (LOG, ORDERS, STREAM)]
    adapter.save(target=STREAM, events=new_events(2))

    assert [list(scan) for scan in scans] == [[], [], []]


async def test_both_faces_serve_the_same_events() -> None:
    adapter = InMemoryEventStorageAdapter()
    other = adapter.sync_adapter

    first = await adapter.save(target=STREAM, events=new_events(1))
    second = other.save(target=STREAM, events=new_events(1), condition=position_is(0))

    assert list(other.scan()) == [*first, *second]
    assert [event async for event in adapter.scan()] == [*first, *second]
    assert await adapter.latest(target=STREAM) == other.latest(target=STREAM) == second[0]


async def test_adapters_may_share_a_storage() -> None:
    storage = InMemoryEventStorage()

    stored = SyncInMemoryEventStorageAdapter(storage).save(target=STREAM, events=new_events(1))

    assert [event async for event in InMemoryEventStorageAdapter(storage).scan()] == list(stored)
    assert [event async for event in InMemoryEventStorageAdapter().scan()] == []


async def test_dropping_the_schema_forgets_all_events_and_numbers() -> None:
    adapter = InMemoryEventStorageAdapter()
    events = new_events(2)
    await adapter.save(target=STREAM, events=events)
    scan = adapter.scan()

    await adapter.drop_schema()
    await adapter.create_schema()

    assert [event.id async for event in scan] == [event.id for event in events]
    assert [event async for event in adapter.scan()] == []
    assert await adapter.latest(target=STREAM) is None
    stored = await adapter.save(target=STREAM, events=events[::-1], condition=stream_is_empty())
    assert [event.sequence_number for event in stored] == [1, 2]
    adapter.sync_adapter.drop_schema()
    assert await adapter.latest(target=LOG) is None


async def test_no_session_can_hold_events_in_memory() -> None:
    adapter = InMemoryEventStorageAdapter()

    for face in (adapter, adapter.sync_adapter):
        with pytest.raises(ConfigurationError, match="SQLAlchemy bind"):
            face.within(object())


@in_turn("target", [None, "orders", ("orders", "42")])
def test_reading_from_something_else_is_refused(adapter: SyncInMemoryEventStorageAdapter, target: Any) -> None:
    with pytest.raises(ValueError, match="target"):
        adapter.latest(target=target)
    with pytest.raises(ValueError, match="target"):
        adapter.scan(target=target)


def test_constraints_of_a_caller_work_beside_the_built_in_ones(adapter: SyncInMemoryEventStorageAdapter) -> None:
    adapter.save(target=STREAM, events=new_events(10))
    constraints = {EvenPosition(), sequence_number_after(3)}

    forwards = [event.position for event in adapter.scan(constraints=constraints, limit=2)]
    backwards = [event.position for event in adapter.scan(constraints=constraints, backwards=True)]

    assert forwards == [4, 6]
    assert backwards == [8, 6, 4]


def test_later_parts_of_a_publish_see_what_earlier_ones_add_to_their_stream() -> None:
    storage = InMemoryEventStorage()
    first, second = new_events(2), new_events(1)

    results = storage.publish(
        [
            StreamPublication(STREAM, tuple(first), stream_is_empty()),
            StreamPublication(STREAM, (), position_is(1)),
            StreamPublication(STREAM, tuple(second), position_is(1)),
        ]
    )

    assert [[event.position for event in result] for result in results] == [[0, 1], [], [2]]


def test_a_later_part_that_is_not_met_undoes_the_earlier_ones() -> None:
    storage = InMemoryEventStorage()

    with pytest.raises(UnmetWriteConditionError) as caught:
        storage.publish(
            [
                StreamPublication(STREAM, tuple(new_events(2)), stream_is_empty()),
                StreamPublication(STREAM, tuple(new_events(1)), stream_is_empty()),
            ]
        )

    assert caught.value.actual_position == 1
    assert storage.latest(target=LOG) is None


def test_code_of_the_caller_may_use_the_store_while_it_is_serialised() -> None:
    adapter = SyncInMemoryEventStorageAdapter()

    class Nosy:
        def serialise(self) -> object:
            return {"latest": getattr(adapter.latest(target=LOG), "position", None)}

    event: NewEvent[str, Any, None] = NewEvent(name="looked", payload=Nosy())

    def publish_and_repeat() -> None:
        for _ in range(2):
            adapter.save(target=STREAM, events=[event])

    thread = Thread(target=publish_and_repeat, daemon=True)
    thread.start()
    thread.join(timeout=PATIENCE_S)

    assert not thread.is_alive(), "the adapter waits for its own lock"
    (stored,) = adapter.scan()
    assert stored.payload == {"latest": None}


@pytest.mark.parametrize("target", [LOG, ORDERS, StreamIdentifier("orders", "50-5")], ids=["log", "category", "stream"])
def test_latest_and_limited_scans_cost_what_they_return(
    large_storage: InMemoryEventStorage, decoded: list[bytes], target: Any
) -> None:
    adapter, events = SyncInMemoryEventStorageAdapter(large_storage), counting(large_storage, target)

    reads: dict[str, tuple[Callable[[], object], int]] = {
        "latest": (lambda: adapter.latest(target=target), 1),
        "first": (lambda: list(adapter.scan(target=target, limit=5)), 5),
        "last": (lambda: list(adapter.scan(target=target, limit=5, backwards=True)), 5),
        "none": (lambda: list(adapter.scan(target=target, limit=0)), 0),
        "begun": (lambda: next(adapter.scan(target=target)), 1),
        "after": (
            lambda: list(adapter.scan(target=target, constraints={sequence_number_after(50_590)}, limit=7)),
            7,
        ),
    }
    for name, (run, returned) in reads.items():
        decoded.clear()
        events.looked_at = 0
        run()
        assert len(decoded) == 2 * returned, name
        assert returned <= events.looked_at <= returned + 20, name


def test_events_that_a_read_leaves_out_are_not_decoded(
    large_storage: InMemoryEventStorage, decoded: list[bytes]
) -> None:
    adapter = SyncInMemoryEventStorageAdapter(large_storage)

    for target, constraints in (
        (LogPartitionIdentifier(3, 1000), frozenset[QueryConstraint]()),
        (LOG, {position_before(1), name_in(["order-placed"])}),
        (LOG, {name_in(["unknown"])}),
        (STREAM, {position_after(97), sequence_number_after(5)}),
    ):
        decoded.clear()
        returned = len(list(adapter.scan(target=target, constraints=constraints)))
        assert len(decoded) == 2 * returned < 10_000


def test_the_end_of_a_large_log_is_found_by_bisection(
    large_storage: InMemoryEventStorage, decoded: list[bytes]
) -> None:
    adapter, log = SyncInMemoryEventStorageAdapter(large_storage), counting(large_storage, LOG)

    events = list(adapter.scan(constraints={sequence_number_after(99_998), sequence_number_after(5)}))

    assert [event.sequence_number for event in events] == [99_999, 100_000]
    assert log.looked_at <= 2 + 20
    assert len(decoded) == 4


def test_publishing_decodes_nothing_and_looks_at_no_other_events(decoded: list[bytes]) -> None:
    storage = filled(InMemoryEventStorage(), 10_000)
    target = StreamIdentifier("orders", "5-5")
    adapter = SyncInMemoryEventStorageAdapter(storage)
    counted = [counting(storage, each) for each in (LOG, ORDERS, target)]

    adapter.save(target=target, events=new_events(3), condition=position_is(99))

    assert (len(decoded), [events.looked_at for events in counted]) == (0, [0, 0, 0])


@pytest.mark.usefixtures("hasty_threads")
def test_threads_share_a_store_without_losing_an_event(adapter: SyncInMemoryEventStorageAdapter) -> None:
    writers, publishes = 8, 200
    start = Barrier(writers)

    def write(number: int) -> None:
        start.wait()
        for _ in range(publishes):
            adapter.save(
                target=LOG,
                streams={
                    StreamIdentifier("orders", "shared"): {"events": new_events(2)},
                    StreamIdentifier("orders", str(number)): {"events": new_events(1)},
                },
            )

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))

    total = 3 * writers * publishes
    assert [event.sequence_number for event in adapter.scan()] == list(range(1, total + 1))
    shared = list(adapter.scan(target=StreamIdentifier("orders", "shared")))
    assert [event.position for event in shared] == list(range(2 * writers * publishes))
    assert len({event.id for event in adapter.scan(target=ORDERS)}) == total


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_count_with_conditions_never_count_twice(adapter: SyncInMemoryEventStorageAdapter) -> None:
    def count_up(_: int) -> int:
        wins = 0
        for position in range(200):
            condition = position_is(position - 1 if position else None)
            try:
                adapter.save(target=STREAM, events=new_events(1), condition=condition)
            except UnmetWriteConditionError:
                continue
            wins += 1
        return wins

    with ThreadPoolExecutor(8) as pool:
        wins = sum(pool.map(count_up, range(8)))

    assert wins == len(list(adapter.scan())) > 0


@pytest.mark.usefixtures("hasty_threads")
async def test_concurrent_tasks_meet_one_another_as_over_a_database() -> None:
    stream = EventStore(InMemoryEventStorageAdapter()).stream(category="orders", stream="42")

    async def read_decide_and_publish() -> bool:
        latest = await stream.latest()
        position = None if latest is None else latest.position
        try:
            await stream.publish(events=[NewEvent(name="counted", payload=None)], condition=position_is(position))
        except UnmetWriteConditionError:
            return False
        return True

    outcomes = await asyncio.gather(*(read_decide_and_publish() for _ in range(5)))

    assert sorted(outcomes) == [False] * 4 + [True]


async def test_event_loops_share_a_store() -> None:
    adapter = InMemoryEventStorageAdapter()
    start = Barrier(2)
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        async def publish(part: int) -> None:
            for _ in range(20):
                await adapter.save(target=StreamIdentifier("orders", "shared"), events=new_events(1))
                await adapter.save(target=StreamIdentifier("orders", f"{name}-{part}"), events=new_events(1))
                assert [event async for event in adapter.scan(target=ORDERS, limit=3)]
                await asyncio.sleep(0)

        await asyncio.gather(*(publish(part) for part in range(5)))

    def run_loop(name: str) -> None:
        start.wait()
        try:
            asyncio.run(work(name))
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=run_loop, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    numbers = [event.sequence_number async for event in adapter.scan()]
    assert numbers == list(range(1, 401))
    shared = [event.position async for event in adapter.scan(target=StreamIdentifier("orders", "shared"))]
    assert shared == list(range(200))


async def test_a_scan_that_begins_in_one_event_loop_goes_on_in_another() -> None:
    adapter = InMemoryEventStorageAdapter()
    stored = await adapter.save(target=STREAM, events=new_events(3))
    scan = adapter.scan()
    first = await anext(scan)

    def rest() -> list[Any]:
        async def collect() -> list[Any]:
            return [event async for event in scan]

        return asyncio.run(collect())

    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(rest).result()

    assert [first, *others] == list(stored)


def test_a_payload_may_wait_for_the_publish_of_another_thread_while_it_is_converted(
    adapter: SyncInMemoryEventStorageAdapter,
) -> None:
    converting, stored = Event(), Event()

    class Waits:
        def serialise(self) -> bool:
            converting.set()
            return stored.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(adapter.save, target=STREAM, events=[NewEvent(name="waits", payload=Waits())])
        assert converting.wait(PATIENCE_S)
        adapter.save(target=StreamIdentifier("orders", "2"), events=new_events(1))
        stored.set()
        saved.result()

    assert [event.payload for event in adapter.scan(target=STREAM)] == [True]


def test_ids_are_looked_up_in_other_streams_too(adapter: SyncInMemoryEventStorageAdapter) -> None:
    (event,) = new_events(1)
    adapter.save(target=STREAM, events=[event])

    with pytest.raises(DuplicateEventError):
        adapter.save(target=StreamIdentifier("invoices", "1"), events=[event], condition=position_is(8))
