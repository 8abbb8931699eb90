"""What mypy --strict and pyright strict must infer about projectors, and refuse. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict, assert_type

from eventstore_sa.projection import (
    MissingHandlerBehaviour,
    Projection,
    Projector,
    SnapshotStore,
    SyncSnapshotStore,
    handles,
)
from eventstore_sa.sources import EventSource, SyncEventSource
from eventstore_sa.types import CategoryIdentifier, EventSourceIdentifier, LogIdentifier, StoredEvent, StreamIdentifier


class Profile(TypedDict):
    name: str


class ProfileProjector(Projector[StreamIdentifier, Profile, dict[str, int]]):
    name = "profiles"
    missing_handler_behaviour = MissingHandlerBehaviour.IGNORE
    version = "2024-02"
    snapshot_every = 50
    state_type = Profile
    metadata_type = dict[str, int]

    def initial_state_factory(self) -> Profile:
        return {"name": ""}

    def initial_metadata_factory(self) -> dict[str, int]:
        return {}

    def id_factory(self, state: Profile, source: StreamIdentifier) -> str:
        return source.stream

    @handles("renamed", "registered")
    def take_name(self, state: Profile, event: StoredEvent[str, str]) -> Profile:
        return {"name": event.payload}

    @handles("looked-up")
    async def look_up(self, state: Profile, event: StoredEvent) -> Profile:
        return state


class CountingProjector(Projector[EventSourceIdentifier, int, None]):
    def __init__(self, name: str) -> None:
        self.name = name

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: EventSourceIdentifier) -> str:
        return "all"

    def registered(self, state: int, event: StoredEvent) -> int:
        return state + 1


class Channel:
    """No EventSource, but an asynchronous iterable with an identifier."""

    identifier = LogIdentifier()

    def __aiter__(self) -> AsyncIterator[StoredEvent[str, bytes, None]]:
        raise NotImplementedError


async def project_infers_state_and_metadata(stream: EventSource[StreamIdentifier]) -> None:
    projection = await ProfileProjector().project(source=stream)
    assert_type(projection, Projection[Profile, dict[str, int]])
    assert_type(projection.state, Profile)
    assert_type(projection.state["name"], str)
    assert_type(projection.metadata, dict[str, int])


def project_sync_infers_state_and_metadata(stream: SyncEventSource[StreamIdentifier]) -> None:
    projection = ProfileProjector().project_sync(source=stream, state={"name": ""}, metadata={})
    assert_type(projection, Projection[Profile, dict[str, int]])
    assert_type(projection.state, Profile)


async def snapshots_change_no_type(
    stream: EventSource[StreamIdentifier], snapshots: SnapshotStore, sync_snapshots: SyncSnapshotStore
) -> None:
    projection = await ProfileProjector().project(source=stream, snapshots=snapshots)
    assert_type(projection, Projection[Profile, dict[str, int]])
    await ProfileProjector().project(source=stream, snapshots=sync_snapshots)  # type: ignore[arg-type]


def apply_infers_the_state(event: StoredEvent[Any, Any, Any]) -> None:
    assert_type(ProfileProjector().apply(event=event, state={"name": ""}), Profile)


async def projectors_of_wide_sources_take_narrow_ones(stream: EventSource[StreamIdentifier]) -> None:
    wide = CountingProjector("counts")
    narrow: Projector[StreamIdentifier, int, None] = wide
    assert_type((await narrow.project(source=stream)).state, int)
    assert_type((await wide.project(source=stream)).state, int)
    assert_type((await wide.project(source=Channel())).state, int)


def names_are_strings() -> None:
    assert_type(ProfileProjector.name, str)
    assert_type(CountingProjector("counts").name, str)


def handles_keeps_the_type_of_the_method(projector: ProfileProjector) -> None:
    method: Callable[[Profile, StoredEvent[str, str]], Profile] = projector.take_name
    del method


async def wrong_arguments_are_refused(
    stream: EventSource[StreamIdentifier], sync_stream: SyncEventSource[StreamIdentifier], event: StoredEvent
) -> None:
    projector = ProfileProjector()
    of_categories: Projector[CategoryIdentifier, int, None] = CountingProjector("counts")
    await of_categories.project(source=stream)  # type: ignore[arg-type]
    await projector.project(source=Channel())  # type: ignore[arg-type]
    await projector.project(source=sync_stream)  # type: ignore[arg-type]
    projector.project_sync(source=stream)  # type: ignore[arg-type]
    await projector.project(source=stream, state=3)  # type: ignore[arg-type]
    await projector.project(source=stream, metadata={"a": "b"})  # type: ignore[dict-item]
    projector.apply(event=event, state=3)  # type: ignore[arg-type]
    Projector[StreamIdentifier, int, None]()  # type: ignore[abstract]


class HandlerInPlaceOfAMethod(CountingProjector):
    def apply(self, state: int, event: StoredEvent) -> int:  # type: ignore[misc, override]
        return state
