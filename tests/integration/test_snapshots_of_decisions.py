"""Decisions that begin with snapshots: what is read again, what cannot be missed, and which snapshots are not used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventstore_sa import EventQuery, Projector, QueryItem, StreamIdentifier, SyncEventStore
from eventstore_sa.errors import ConfigurationError, UnmetWriteConditionError
from eventstore_sa.projection import SnapshotStore, SyncSnapshotStore
from eventstore_sa.projection.adapters import InMemorySnapshotStorageAdapter
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from tests.awaiting import settled
from tests.databases import PostgresDatabase
from tests.hosts import Host, each_driver, new_event
from tests.interleaving import Stage, install_schema, open_stage

A, B = EventQuery.tagged("a"), EventQuery.tagged("b")
BOTH = EventQuery([*A.items, *B.items])


class Names(Projector[Any, list[str], None]):
    """Collects the names of events, and notes for which of them a handler was called."""

    snapshot_every = 2
    called: list[str]

    def __init__(self) -> None:
        self.called = []

    def initial_state_factory(self) -> list[str]:
        return []

    def initial_metadata_factory(self) -> None:
        return None

    def first(self, state: list[str], event: Any) -> list[str]:
        self.called.append(event.name)
        return [*state, event.name]

    second = third = fourth = first


class Whole(Names):
    """Takes no snapshots."""

    name = "whole"
    snapshot_every: int | None = None  # type: ignore[assignment]


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as opened:
        yield opened


async def publish(store: Any, name: str, *tags: str, **options: Any) -> Any:
    stream = store.stream(category="tagged", stream=name)
    return await settled(stream.publish(events=[new_event(name, tags=tags)], **options))


async def names(store: Any, query: Any, snapshots: Any) -> tuple[list[str], list[str], Any]:
    """Decide; return the state, for which events a handler was called, and the condition."""
    projector = Names()
    decision = await settled(store.decide(query, projector, snapshots=snapshots))
    return decision.state, projector.called, decision.unchanged()


@each_driver("sqlite", "postgresql+psycopg2")
async def test_decision_begins_with_its_snapshot_and_is_as_exact_as_without(host: Host) -> None:
    snapshots = SyncSnapshotStore(host.engine)
    await publish(host.store, "first", "a")
    await publish(host.store, "second", "a", "b")

    assert (await names(host.store, BOTH, snapshots))[:2] == (["first", "second"], ["first", "second"])
    await publish(host.store, "third", "b")
    state, called, condition = await names(host.store, BOTH, snapshots)
    assert (state, called) == (["first", "second", "third"], ["third"])
    await publish(host.store, "fourth", "a", condition=condition)
    with pytest.raises(UnmetWriteConditionError):
        await publish(host.store, "again", "a", condition=condition)


@each_driver("postgresql+asyncpg")
async def test_snapshots_serve_both_faces_and_updates(host: Host) -> None:
    snapshots = SnapshotStore(host.engine)
    await publish(host.store, "first", "a")
    await publish(host.store, "second", "a")
    await names(host.store, A, snapshots)
    projector = Names()

    def decide(state: list[str]) -> dict[StreamIdentifier, Any]:
        return {StreamIdentifier("tagged", "3"): {"events": [new_event("third", tags={"a"})]}}

    update = await settled(host.store.update_decision(A, projector, decide=decide, snapshots=snapshots))

    assert (update.state, projector.called) == (["first", "second", "third"], ["third"])


@each_driver("sqlite", "postgresql+psycopg2")
async def test_models_without_snapshots_read_everything(host: Host) -> None:
    snapshots = SyncSnapshotStore(host.engine)
    for name in ("first", "second"):
        await publish(host.store, name, "a")
    await names(host.store, A, snapshots)
    await publish(host.store, "third", "a", "b")
    kept, whole = Names(), Whole()

    decision = host.store.decide({"kept": (A, kept), "whole": (BOTH, whole)}, snapshots=snapshots)

    assert decision.state == {"kept": ["first", "second", "third"], "whole": ["first", "second", "third"]}
    assert (kept.called, whole.called) == (["third"], ["first", "second", "third"])
    assert sorted(each.after for each in decision.items) == [3, 3]


@each_driver("sqlite", "postgresql+psycopg2")
async def test_decision_within_a_session_begins_with_what_is_committed(host: Host) -> None:
    snapshots = SyncSnapshotStore(host.engine)
    for name in ("first", "second"):
        await publish(host.store, name, "a")
    await names(host.store, A, snapshots)

    async with host.caller() as (_, store):
        await publish(store, "third", "a")
        state, called, condition = await names(store, A, snapshots)
        await publish(store, "fourth", "a", condition=condition)

    assert (state, called) == (["first", "second", "third"], ["third"])


@each_driver("sqlite", "postgresql+psycopg2")
async def test_snapshot_from_before_tags_were_added_is_not_used(host: Host) -> None:
    snapshots = SyncSnapshotStore(host.engine)
    await publish(host.store, "first")
    for name in ("second", "third"):
        await publish(host.store, name, "a")
    await names(host.store, A, snapshots)

    host.store.backfill_tags(lambda event: ["a"])

    for read in (["first", "second", "third"], []):
        assert (await names(host.store, A, snapshots))[:2] == (["first", "second", "third"], read)


class Tagged(Names):
    """Looks at tags, of the events of a stream."""

    def first(self, state: list[str], event: Any) -> list[str]:
        return [*state, *sorted(event.tags)]

    second = third = fourth = first


@each_driver("sqlite", "postgresql+psycopg2")
async def test_snapshot_of_a_stream_is_used_after_tags_were_added_until_the_version_changes(host: Host) -> None:
    """As the page on snapshots says: only queries ask for the epoch of tags, because it takes a statement."""
    snapshots = SyncSnapshotStore(host.engine)
    stream = host.store.stream(category="tagged", stream="first")
    stream.publish(events=[new_event("first"), new_event("second")])
    assert Tagged().project_sync(source=stream, snapshots=snapshots).state == []

    host.store.backfill_tags(lambda event: [event.name])

    assert Tagged().project_sync(source=stream, snapshots=snapshots).state == []
    changed = Tagged()
    changed.version = 2
    assert changed.project_sync(source=stream, snapshots=snapshots).state == ["first", "second"]


def test_projector_has_to_say_when_to_take_snapshots() -> None:
    store = SyncEventStore(InMemoryEventStorageAdapter())

    with pytest.raises(ConfigurationError, match="does not say when to take snapshots"):
        store.decide(A, Whole(), snapshots=SyncSnapshotStore(InMemorySnapshotStorageAdapter()))


def test_event_that_a_slow_writer_numbered_earlier_is_missing_in_no_snapshot(stage: Stage) -> None:
    snapshots = SyncSnapshotStore(stage.engine)
    slow = stage.writer()

    def decide() -> Any:
        projector = Names()
        projector.snapshot_every = 1
        return stage.store.decide(
            EventQuery([*BOTH.items, QueryItem(names=["fourth"])]), projector, snapshots=snapshots
        )

    for store, name, tag in ((slow.store, "first", "a"), (stage.store, "second", "b")):
        store.stream(category="tagged", stream=name).publish(events=[new_event(name, tags=[tag])])
    before = decide()
    slow.commit()
    after = decide()

    assert (before.state, after.state) == (["second"], ["first", "second"])
    assert decide().state == ["first", "second"]
