"""Projecting with snapshots, in memory: when they are taken, what they spare, and when they are not trusted."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from eventstore_sa import EventStore, NewEvent, Projector, SyncEventStore
from eventstore_sa.errors import ConfigurationError, SerialisationError, StorageError
from eventstore_sa.projection import MissingHandlerBehaviour, SnapshotStore, SyncSnapshotStore
from eventstore_sa.projection.adapters import InMemorySnapshotStorageAdapter
from eventstore_sa.sources import (
    ConstrainedEventSource,
    InMemoryEventSource,
    SyncConstrainedEventSource,
    SyncInMemoryEventSource,
)
from eventstore_sa.sources.constraints import name_in
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    EventSourceIdentifier,
    LogIdentifier,
    Snapshot,
    SnapshotKey,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)
from tests.awaiting import settled

ORDER = StreamIdentifier("orders", "1")


class CountProjector(Projector[EventSourceIdentifier, Any, Any]):
    """Counts events; `handled` tells how many were handled by this very projector."""

    name = "count"
    snapshot_every = 5

    def __init__(self, **attributes: Any) -> None:
        self.handled = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def initial_state_factory(self) -> Any:
        return {"count": 0}

    def initial_metadata_factory(self) -> Any:
        return []

    def id_factory(self, state: Any, source: EventSourceIdentifier) -> str:
        return "1"

    def update_metadata(self, state: Any, metadata: Any, event: Any) -> Any:
        return [*metadata, event.position]

    def counted(self, state: Any, event: Any) -> Any:
        self.handled += 1
        state["count"] += 1
        return state

    def failed(self, state: Any, event: Any) -> Any:
        raise RuntimeError("no")


@dataclass
class Order:
    lines: dict[str, int] = field(default_factory=dict)
    placed_at: datetime | None = None


class OrderProjector(CountProjector):
    name = "order"
    state_type = Order
    snapshot_every = 1

    def initial_state_factory(self) -> Order:
        return Order()

    def counted(self, state: Order, event: Any) -> Order:
        state.lines[str(event.position)] = state.lines.get(str(event.position), 0) + 1
        state.placed_at = datetime(2024, 2, 29, tzinfo=UTC)
        return state


class World:
    """An event store and a snapshot store in memory, used with asyncio or without."""

    def __init__(self, *, asynchronous: bool) -> None:
        events, self.kept = InMemoryEventStorageAdapter(), InMemorySnapshotStorageAdapter()
        self.asynchronous = asynchronous
        self.store: Any = EventStore(events) if asynchronous else SyncEventStore(events)
        self.snapshots: Any = (SnapshotStore if asynchronous else SyncSnapshotStore)(self.kept)

    @property
    def stream(self) -> Any:
        return self.store.stream(category="orders", stream="1")

    async def publish(self, count: int, name: str = "counted", stream: str = "1") -> None:
        target = self.store.stream(category="orders", stream=stream)
        await settled(target.publish(events=[NewEvent(name=name, payload=None) for _ in range(count)]))

    async def project(self, projector: Any = None, source: Any = None, **arguments: Any) -> Any:
        projector = CountProjector() if projector is None else projector
        source = self.stream if source is None else source
        project = projector.project if self.asynchronous else projector.project_sync
        return await settled(project(source=source, **({"snapshots": self.snapshots} | arguments)))

    def snapshot(self, version: Any = 1, source: Any = ORDER, name: str = "count") -> Snapshot | None:
        return self.kept.sync_adapter.find(key=SnapshotKey.of(name, version, source))

    def keep(self, **changes: Any) -> Snapshot:
        """Change the kept snapshot behind the library's back."""
        kept = self.snapshot()
        assert kept is not None
        changed = replace(kept, **changes)
        self.kept.sync_adapter.prune(projector="count")
        self.kept.sync_adapter.save(snapshot=changed)
        return changed


@pytest.fixture(params=[True, False], ids=["asyncio", "sync"])
def world(request: pytest.FixtureRequest) -> World:
    return World(asynchronous=request.param)


async def test_a_snapshot_is_taken_when_enough_events_were_read(world: World) -> None:
    await world.publish(4)
    await world.project()
    assert world.snapshot() is None

    await world.publish(1)
    await world.project()
    kept = world.snapshot()
    assert kept is not None
    assert (kept.place, kept.state, kept.metadata) == (4, '{"count":5}', "[0,1,2,3,4]")

    await world.publish(4)
    await world.project()
    assert world.snapshot() == kept

    await world.publish(1)
    await world.project()
    later = world.snapshot()
    assert later is not None
    assert later.place == 9


async def test_only_what_follows_the_snapshot_is_projected(world: World) -> None:
    await world.publish(7)
    await world.project()
    await world.publish(2)
    again = CountProjector()

    projection = await world.project(again)

    assert (projection.state, projection.metadata) == ({"count": 9}, list(range(9)))
    assert (projection.name, projection.id, projection.source) == ("count", "1", ORDER)
    assert again.handled == 2
    assert await world.project() == await world.project(snapshots=None)


async def test_a_long_replay_takes_one_snapshot_at_its_end(world: World) -> None:
    saved: list[int] = []
    save = world.kept.sync_adapter.save
    world.kept.sync_adapter.save = lambda **given: (saved.append(given["snapshot"].place), save(**given))[1]  # type: ignore[method-assign]
    await world.publish(23)

    await world.project()

    assert saved == [22]


async def test_nothing_is_kept_of_an_empty_stream(world: World) -> None:
    assert (await world.project(CountProjector(snapshot_every=1))).state == {"count": 0}
    assert world.snapshot() is None


async def test_every_kind_of_source_has_its_own_snapshot(world: World) -> None:
    await world.publish(6)
    await world.publish(6, stream="2")
    store = world.store
    sources = [
        store.stream(category="orders", stream="1"),
        store.stream(category="orders", stream="2"),
        store.category(category="orders"),
        store.log(),
        *store.log().partitions(2),
        *store.category(category="orders").partitions(3),
        store.partition(StreamNamePrefixPartitionIdentifier("orders", "2")),
    ]
    plain = [await world.project(source=source, snapshots=None) for source in sources]

    for _ in range(2):
        assert [await world.project(source=source) for source in sources] == plain
    await world.publish(1, stream="2")
    for source in sources:
        projector = CountProjector()
        assert await world.project(projector, source) == await world.project(source=source, snapshots=None)
        assert projector.handled <= 1

    whole = world.snapshot(source=LogIdentifier())
    assert whole is not None
    assert whole.place == 12


async def test_another_version_takes_its_own_snapshots(world: World) -> None:
    await world.publish(5)
    await world.project()
    second = CountProjector(version="2b")

    await world.project(second)

    assert second.handled == 5
    assert world.snapshot(1) is not None
    assert world.snapshot("2b") is not None
    assert await settled(world.snapshots.prune(projector="count", keep_version="2b")) == 1
    assert world.snapshot(1) is None


async def test_versions_are_the_same_as_numbers_and_as_strings(world: World) -> None:
    await world.publish(5)
    await world.project(CountProjector(version=2))
    again = CountProjector(version="2")

    await world.project(again)

    assert again.handled == 0


async def test_states_of_other_types_come_back(world: World) -> None:
    await world.publish(2)
    await world.project(OrderProjector())
    await world.publish(1)

    projection = await world.project(OrderProjector())

    assert projection.state == Order({"0": 1, "1": 1, "2": 1}, datetime(2024, 2, 29, tzinfo=UTC))
    kept = world.snapshot(name="order")
    assert kept is not None
    assert kept.place == 2


async def test_a_state_of_none_is_a_state(world: World) -> None:
    class Forgetting(CountProjector):
        def counted(self, state: Any, event: Any) -> Any:
            return {"count": 7} if state is None else None

    await world.publish(5)
    await world.project(Forgetting())
    await world.publish(1)

    assert (await world.project(Forgetting())).state == (await world.project(Forgetting(), snapshots=None)).state


async def test_events_without_a_handler_count_as_read(world: World) -> None:
    await world.publish(5, name="unknown")
    await world.project(CountProjector(missing_handler_behaviour=MissingHandlerBehaviour.IGNORE))

    assert world.snapshot() is not None


async def test_what_a_caller_does_to_the_state_is_not_in_the_snapshot(world: World) -> None:
    await world.publish(5)
    (await world.project()).state["count"] = "spoilt"

    assert (await world.project()).state == {"count": 5}


@pytest.mark.parametrize(
    "damage",
    [
        {"state": '{"count":6}'},
        {"state": "{"},
        {"metadata": "[]"},
        {"place": 3},
        {"checksum": 1},
        {"format": 2},
        {"key": SnapshotKey("count", "1", ORDER.json()), "state": ""},
    ],
    ids=str,
)
async def test_a_damaged_snapshot_is_not_used_and_replaced(
    world: World, damage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    await world.publish(5)
    await world.project()
    world.keep(**damage)
    projector = CountProjector(snapshot_every=1000)

    with caplog.at_level(logging.WARNING, "eventstore_sa"):
        projection = await world.project(projector)

    assert (projection.state, projector.handled) == ({"count": 5}, 5)
    (record,) = caplog.records
    assert "'count', version 1" in record.getMessage()
    assert "not used" in record.getMessage()
    replaced = world.snapshot()
    assert replaced is not None
    assert (replaced.place, replaced.problem) == (4, None)


async def test_a_snapshot_beyond_the_end_is_not_used_and_replaced(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.publish(5)
    await world.project()
    world.keep(place=70, state='{"count":71}')
    kept = world.snapshot()
    assert kept is not None
    world.keep(checksum=kept.digest)
    projector = CountProjector()

    with caplog.at_level(logging.WARNING, "eventstore_sa"):
        projection = await world.project(projector)
        assert (await world.project()).state == {"count": 5}

    assert (projection.state, projector.handled) == ({"count": 5}, 5)
    assert [record.getMessage().rsplit(": ", 1)[1] for record in caplog.records] == ["the source ends before it"]


async def test_a_snapshot_of_another_history_is_not_used(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.publish(5)
    await world.project()
    other = World(asynchronous=world.asynchronous)
    other.snapshots = world.snapshots
    await other.publish(9)
    projector = CountProjector()

    with caplog.at_level(logging.WARNING, "eventstore_sa"):
        projection = await other.project(projector)

    assert (projection.state, projector.handled) == ({"count": 9}, 9)
    assert "another event is at its position" in caplog.text
    kept = world.snapshot()
    assert kept is not None
    assert kept.place == 8


async def test_a_failing_handler_leaves_the_snapshot_as_it_was(world: World) -> None:
    await world.publish(5)
    await world.project()
    kept = world.snapshot()
    await world.publish(5)
    await world.publish(1, name="failed")

    with pytest.raises(RuntimeError, match="no"):
        await world.project()

    assert world.snapshot() == kept


async def test_a_state_that_json_cannot_hold_is_logged_and_projected(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(CountProjector):
        def counted(self, state: Any, event: Any) -> Any:
            return {"secret": (1, 2)}

    await world.publish(5)

    with caplog.at_level(logging.WARNING, "eventstore_sa"):
        projection = await world.project(Odd())

    assert projection.state == {"secret": (1, 2)}
    assert world.snapshot() is None
    (record,) = caplog.records
    assert "no snapshot of projector 'count'" in record.getMessage()
    assert "state_type" in record.getMessage()
    assert "secret" not in record.getMessage()


@pytest.mark.parametrize(
    ("error", "said"), [(StorageError("the disk is full"), "disk is full"), (OSError("x"), "OSError")]
)
async def test_a_snapshot_that_cannot_be_kept_is_logged(
    world: World, error: Exception, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    def save(**_: Any) -> bool:
        raise error

    world.kept.sync_adapter.save = save  # type: ignore[method-assign, assignment]
    await world.publish(5)

    with caplog.at_level(logging.WARNING, "eventstore_sa"):
        assert (await world.project()).state == {"count": 5}

    assert said in caplog.text


async def test_a_snapshot_of_another_type_is_an_error(world: World) -> None:
    class Line(msgspec.Struct):
        count: str = ""

    class Typed(CountProjector):
        state_type = Line

        def initial_state_factory(self) -> Any:
            return Line()

    await world.publish(5)
    await world.project()

    with pytest.raises(SerialisationError, match="change the projector's version"):
        await world.project(Typed())


@in_turn(
    "attributes, said",
    [
        ({"snapshot_every": None}, "a number of events, such as 100"),
        ({"snapshot_every": 0}, "from 1"),
        ({"snapshot_every": True}, "from 1"),
        ({"version": None}, "an integer or a string"),
        ({"version": True}, "an integer or a string"),
        ({"initial_state_factory": Order}, "set state_type"),
        ({"initial_state_factory": set}, "snapshots of projector 'count' cannot be taken"),
        ({"initial_state_factory": lambda: defaultdict(int)}, "defaultdict became dict"),
        ({"initial_metadata_factory": tuple}, "set metadata_type"),
        ({"state_type": int}, "cannot be deserialised to int"),
    ],
)
async def test_projectors_that_cannot_have_snapshots_are_refused(
    world: World, attributes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        await world.project(CountProjector(**attributes))


async def test_sources_that_are_not_all_of_what_they_are_called_are_refused(world: World) -> None:
    constrained: Any = ConstrainedEventSource if world.asynchronous else SyncConstrainedEventSource
    in_memory: Any = InMemoryEventSource if world.asynchronous else SyncInMemoryEventSource
    for source in (constrained(world.stream, {name_in(["counted"])}), in_memory([], ORDER)):
        assert not source.is_complete
        with pytest.raises(ConfigurationError, match="without snapshots"):
            await world.project(source=source)


async def test_a_state_to_start_from_and_snapshots_exclude_each_other(world: World) -> None:
    for arguments in ({"state": {"count": 1}}, {"metadata": []}):
        with pytest.raises(ConfigurationError, match="one or the other"):
            await world.project(**arguments)


async def test_the_wrong_kind_of_store_is_refused(world: World) -> None:
    other = (SyncSnapshotStore if world.asynchronous else SnapshotStore)(world.kept)
    for wrong in (other, object()):
        with pytest.raises(ConfigurationError, match="SnapshotStore for snapshots"):
            await world.project(snapshots=wrong)


async def test_prune_has_to_be_told_what(world: World) -> None:
    for arguments in ({}, {"keep_version": 1}):
        with pytest.raises(ConfigurationError, match="prune was called"):
            await settled(world.snapshots.prune(**arguments))
    await world.publish(5)
    await world.project()
    assert await settled(world.snapshots.prune(older_than=timedelta(days=1))) == 0
    assert await settled(world.snapshots.prune(older_than=timedelta())) == 1


async def test_updates_begin_with_snapshots(world: World) -> None:
    await world.publish(6)
    seen: list[Any] = []

    def decide(state: Any) -> Any:
        seen.append(state["count"])
        return [NewEvent(name="counted", payload=None)] if state["count"] < 8 else []

    handled: list[int] = []
    for _ in range(3):
        projector = CountProjector()
        update = await settled(world.stream.update(projector, decide, snapshots=world.snapshots))
        handled.append(projector.handled)

    assert (seen, update.state["count"]) == ([6, 7, 8], 8)
    # The second loads a snapshot of six events and reads one, and each but the last applies what it publishes.
    assert handled == [7, 2, 2]


async def test_an_update_after_an_unfit_snapshot_expects_the_right_position(world: World) -> None:
    await world.publish(6)
    await world.project()
    world.keep(place=70, checksum=0)
    kept = world.snapshot()
    assert kept is not None
    world.keep(checksum=kept.digest)

    update = await settled(
        world.stream.update(
            CountProjector(), lambda _: [NewEvent(name="counted", payload=None)], retries=0, snapshots=world.snapshots
        )
    )

    assert [event.position for event in update.events] == [6]


@in_turn("attribute", ["version", "snapshot_every", "state_type", "metadata_type"])
def test_settings_are_not_taken_for_handlers(attribute: str) -> None:
    with pytest.raises(ConfigurationError, match=f"name it `{attribute}_`"):
        type("Wrong", (CountProjector,), {attribute: lambda self, state, event: state})


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 2), st.booleans()), max_size=12))
def test_projections_are_the_same_with_and_without_snapshots(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    store, snapshots = (
        SyncEventStore(InMemoryEventStorageAdapter()),
        SyncSnapshotStore(InMemorySnapshotStorageAdapter()),
    )
    for published, every, version, of_the_log in steps:
        stream = store.stream(category="orders", stream=str(every))
        stream.publish(events=[NewEvent(name="counted", payload=None) for _ in range(published)])
        source: Any = store.log() if of_the_log else stream
        projector = CountProjector(snapshot_every=every, version=version)

        assert projector.project_sync(source=source, snapshots=snapshots) == projector.project_sync(source=source)
