"""The face of a store with event types: objects of the application's classes on one side, an adapter for JSON on the other.

Stores without types do without it. Everything that is published, staged or read through a store passes here; the adapter
behind it knows nothing of types.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import iscoroutinefunction
from itertools import islice
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from msgspec.structs import replace

from eventstore_sa.conditions import AndCondition, NoEventMatchesCondition, OrCondition, WriteCondition
from eventstore_sa.session import CommitCallback, StagedPublish
from eventstore_sa.sources.base import checked_limit
from eventstore_sa.sources.constraints import NameInConstraint, QueryConstraints, checked_constraints
from eventstore_sa.store.adapters.event_contract import (
    AnyStreamPublishDefinition,
    AwaitableEventStorageAdapter,
    EventStorageAdapter,
    Holdable,
    Latestable,
    Listable,
    Scannable,
    SyncEventStorageAdapter,
)
from eventstore_sa.store.adapters.runners import Paged, paged
from eventstore_sa.store.turns import Turns
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    EventQuery,
    EventTypes,
    LogIdentifier,
    NewEvent,
    QueryItem,
    QueryPartitionIdentifier,
    StreamIdentifier,
)
from eventstore_sa.types.event_types import Read, with_payload
from eventstore_sa.types.json import is_mapping
from eventstore_sa.types.watermark import Watermark

__all__ = ["stored_constraints", "stored_target", "typed", "typed_sync"]

Adapter = TypeVar("Adapter", bound=EventStorageAdapter | SyncEventStorageAdapter)
R = TypeVar("R")
Target = StreamIdentifier | CategoryIdentifier | LogIdentifier


def typed(adapter: EventStorageAdapter, types: EventTypes[Any]) -> EventStorageAdapter:
    """Return the face of an adapter that reads and publishes objects of event types."""
    if isinstance(adapter, AwaitableEventStorageAdapter):
        # So events are converted a page at a time, before they are handed to the event loop.
        return _AwaitableTypedEventStorageAdapter(adapter, types)  # pyright: ignore[reportUnknownArgumentType]
    return TypedEventStorageAdapter(adapter, types)


def typed_sync(adapter: SyncEventStorageAdapter, types: EventTypes[Any]) -> SyncEventStorageAdapter:
    """Return the face of an adapter that reads and publishes objects of event types, without asyncio."""
    return SyncTypedEventStorageAdapter(adapter, types)


def stored_constraints(types: EventTypes[Any], constraints: QueryConstraints) -> QueryConstraints:
    """Return constraints that take events of all names that a type has, and leave out those that are skipped anyway."""
    given = {
        NameInConstraint(types.all_names(each.names)) if type(each) is NameInConstraint else each
        for each in checked_constraints(constraints)
    }
    return given | {NameInConstraint(types.known_names)} if types.unknown == "skip" else given


def stored_target(types: EventTypes[Any], target: Scannable) -> Scannable:
    """Return a target that takes events of all names that a type has."""
    match target:
        case EventQuery():
            return types.with_all_names(target)
        case QueryPartitionIdentifier(query, partition, partitions):
            return QueryPartitionIdentifier(types.with_all_names(query), partition, partitions)
        case _:
            return target


class _Typed(Generic[Adapter]):
    """What takes no I/O, with asyncio and without."""

    def __init__(self, adapter: Adapter, types: EventTypes[Any]) -> None:
        self._adapter = adapter
        self._types = types
        self._read = types.read

    @property
    def types(self) -> EventTypes[Any] | None:
        return self._types

    @property
    def untyped(self) -> Any:
        return self._adapter

    @property
    def in_transaction(self) -> bool:
        return self._adapter.in_transaction

    @property
    def turns(self) -> Turns | None:
        return self._adapter.turns

    def stage(
        self,
        *,
        target: Target,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> StagedPublish[Any]:
        publish = _Publish(self._types, events, condition, streams)
        return self._adapter.stage(target=target, **publish.arguments).shaped(publish.results)

    def after_commit(self, callback: CommitCallback) -> None:
        given: object = callback
        if not callable(given):
            self._adapter.after_commit(callback)
        elif iscoroutinefunction(callback):

            async def call(events: Sequence[AnyStoredEvent]) -> None:
                await callback(self._types.all_read(events))

            self._adapter.after_commit(call)
        else:
            self._adapter.after_commit(lambda events: callback(self._types.all_read(events)))

    def _limit(self, limit: int | None) -> int | None:
        """Return how many events to scan; there is no knowing if some are skipped."""
        checked = checked_limit(limit)
        return None if self._types.skips else checked


class SyncTypedEventStorageAdapter(_Typed[SyncEventStorageAdapter], SyncEventStorageAdapter):
    """See `typed_sync`."""

    def save(
        self,
        *,
        target: Target,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        publish = _Publish(self._types, events, condition, streams)
        save: Callable[..., Any] = self._adapter.save
        return publish.results(save(target=target, **publish.arguments))

    def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        if self._types.skips:
            return next(self.scan(target=target, limit=1, backwards=True), None)
        event = self._adapter.latest(target=stored_target(self._types, target))
        return None if event is None else self._read(event)

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        wanted: Any = {
            "target": stored_target(self._types, target),
            "constraints": stored_constraints(self._types, constraints),
            "limit": self._limit(limit),
            "backwards": backwards,
        }
        events, read = self._adapter.scan_text(**wanted), self._types.read_text
        if events is None:
            events, read = self._adapter.scan(**wanted), self._read
        if isinstance(events, Paged) and not self._types.skips:
            return paged(_pages(events.pages, read))
        kept = (event for event in map(read, events) if event is not None)
        return islice(kept, limit) if self._types.skips else kept

    def streams(self, *, target: Listable = LogIdentifier()) -> Iterator[StreamIdentifier]:  # noqa: B008
        return self._adapter.streams(target=target)

    def categories(self) -> Iterator[CategoryIdentifier]:
        return self._adapter.categories()

    def watermark(self) -> Watermark:
        return self._adapter.watermark()

    def flush(self) -> None:
        self._adapter.flush()

    def locked(self, held: Holdable, work: Callable[[SyncEventStorageAdapter], R]) -> R:
        return self._adapter.locked(_encoded(self._types, held), lambda adapter: work(typed_sync(adapter, self._types)))

    def tags_epoch(self, *, current: bool = False) -> str:
        return self._adapter.tags_epoch(current=current)


class _PublishingAdapter(EventStorageAdapter):
    """Publishes by the adapter itself, which may have a way of its own to do it."""

    _adapter: EventStorageAdapter
    _types: EventTypes[Any]

    async def save(
        self,
        *,
        target: Target,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        publish = _Publish(self._types, events, condition, streams)
        save: Callable[..., Any] = self._adapter.save
        return publish.results(await save(target=target, **publish.arguments))

    async def locked(self, held: Holdable, work: Callable[[EventStorageAdapter], Awaitable[R]]) -> R:
        return await self._adapter.locked(
            _encoded(self._types, held), lambda adapter: work(typed(adapter, self._types))
        )


class TypedEventStorageAdapter(_Typed[EventStorageAdapter], _PublishingAdapter):
    """See `typed`; for adapters that have no synchronous one to convert events in."""

    async def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        if self._types.skips:
            return await anext(self.scan(target=target, limit=1, backwards=True), None)
        event = await self._adapter.latest(target=stored_target(self._types, target))
        return None if event is None else self._read(event)

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[AnyStoredEvent]:
        events = self._adapter.scan(
            target=stored_target(self._types, target),
            constraints=stored_constraints(self._types, constraints),
            limit=self._limit(limit),
            backwards=backwards,
        )
        return self._kept(events, limit if self._types.skips else None)

    async def _kept(self, events: AsyncIterator[AnyStoredEvent], limit: int | None) -> AsyncIterator[AnyStoredEvent]:
        left = limit
        if left == 0:
            return
        async for event in events:
            read = self._read(event)
            if read is None:
                continue
            yield read
            left = None if left is None else left - 1
            if left == 0:
                return

    def streams(self, *, target: Listable = LogIdentifier()) -> AsyncIterator[StreamIdentifier]:  # noqa: B008
        return self._adapter.streams(target=target)

    def categories(self) -> AsyncIterator[CategoryIdentifier]:
        return self._adapter.categories()

    async def watermark(self) -> Watermark:
        return await self._adapter.watermark()

    async def flush(self) -> None:
        await self._adapter.flush()

    async def tags_epoch(self, *, current: bool = False) -> str:
        return await self._adapter.tags_epoch(current=current)


class _AwaitableTypedEventStorageAdapter(_PublishingAdapter, AwaitableEventStorageAdapter[SyncEventStorageAdapter]):
    """Converts events in the synchronous adapter, where it is run in the same way as the one that it wraps."""

    def __init__(self, adapter: AwaitableEventStorageAdapter[Any], types: EventTypes[Any]) -> None:
        super().__init__(typed_sync(adapter.sync_adapter, types), runner=adapter.runner)
        self._adapter = adapter
        self._types = types

    @property
    def untyped(self) -> Any:
        return self._adapter


class _Publish:
    """One publish: what the adapter is given, and what becomes of its results."""

    def __init__(
        self,
        types: EventTypes[Any],
        events: object,
        condition: WriteCondition | None,
        streams: object,
    ) -> None:
        self._types = types
        self._given: dict[UUID, tuple[AnyNewEvent, object]] = {}
        self.arguments: dict[str, Any] = {}
        """The arguments of `save` and `stage`: only what was given, since an adapter's defaults are part of the contract."""
        if events is not None:
            self.arguments["events"] = self._encoded(events)
        if condition is not None:
            self.arguments["condition"] = self._under_all_names(condition)
        if streams is not None:
            self.arguments["streams"] = streams
        if is_mapping(streams):
            self.arguments["streams"] = {key: self._definition(each) for key, each in streams.items()}

    def results(self, results: Any) -> Any:
        """Return the stored events of a publish with the caller's own objects, or as they are read if they are not these."""
        if is_mapping(results):
            return {key: [*map(self._own, events)] for key, events in results.items()}
        return [*map(self._own, results)]

    def _definition(self, given: object) -> object:
        if not is_mapping(given):
            return given
        definition: dict[Any, Any] = dict(given)
        if "events" in definition:
            definition["events"] = self._encoded(definition["events"])
        if "condition" in definition:
            definition["condition"] = self._under_all_names(definition["condition"])
        return definition

    def _under_all_names(self, condition: Any) -> Any:
        """Return a condition on the events that are stored under any name of the types that it names."""
        match condition:
            case NoEventMatchesCondition(item):
                names = self._types.all_names(item.names)
                return (
                    condition
                    if names == item.names
                    else replace(condition, item=QueryItem(names=names, tags=item.tags))
                )
            case AndCondition(members) | OrCondition(members):
                return type(condition)(frozenset(map(self._under_all_names, members)))
            case _:
                return condition

    def _encoded(self, events: object) -> object:
        if is_mapping(events) or isinstance(events, str | bytes) or not isinstance(events, Iterable):
            # The adapter says what is wrong with it.
            return events  # pyright: ignore[reportUnknownVariableType]
        encoded: list[AnyNewEvent] = []
        for given in cast("Iterable[object]", events):
            new = self._types.new_event(given)
            self._given[new.id] = new, given
            encoded.append(new)
        return encoded

    def _own(self, stored: AnyStoredEvent) -> AnyStoredEvent:
        new, given = self._given.get(stored.id, (None, None))
        if new is None or stored.payload is not new.payload:
            return self._types.read(stored) or stored
        if isinstance(given, NewEvent):
            own: AnyNewEvent = given  # pyright: ignore[reportUnknownVariableType]
            return with_payload(stored, own.name, own.payload)
        return with_payload(stored, self._types.name_of(type(given)), given)


def _encoded(types: EventTypes[Any], held: Holdable) -> Holdable:
    if isinstance(held, StreamIdentifier):
        return held
    streams: Mapping[StreamIdentifier, AnyStreamPublishDefinition] = _Publish(types, None, None, held).arguments[
        "streams"
    ]
    return streams


def _pages(pages: Iterable[Iterable[AnyStoredEvent]], read: Read) -> Iterator[list[AnyStoredEvent]]:
    for page in pages:
        events: list[Any] = []
        try:
            for event in page:
                events.append(read(event))  # noqa: PERF401 - those before an event that cannot be read are wanted
        except Exception:
            if events:
                yield events
            raise
        yield events
