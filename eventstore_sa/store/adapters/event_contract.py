"""The contract of storage adapters for events, with asyncio and without, and the asyncio adapter over a synchronous one.

Third parties implement `save`, `latest` and `scan`, and prove them with the shipped `EventStorageAdapterCases`. The other
methods have defaults for storage in which every stored event is visible at once, and which is small enough to be read for a
list of its streams.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Self, TypeAlias, overload
from uuid import UUID

from msgspec.structs import replace
from typing_extensions import TypeVar

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.contracts.inline_projections import InlineProjection
from eventstore_sa.contracts.inspection import InspectionStorage
from eventstore_sa.contracts.rebuilds import RebuildStorage
from eventstore_sa.contracts.subscriptions import SubscriptionStorage
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.publishing import StreamPublication, StreamPublishDefinition
from eventstore_sa.session import CommitCallback, StagedPublish
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters.scanned_inspection import ScannedInspectionStorage
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter, StorageAdapter, SyncStorageAdapter
from eventstore_sa.store.turns import Turns
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    EventPartitionIdentifier,
    EventSequenceIdentifier,
    EventTypes,
    LogIdentifier,
    PartitionIdentifier,
    QueryIdentifier,
    StreamIdentifier,
    query_of,
)
from eventstore_sa.types.codec import encode_json
from eventstore_sa.types.watermark import Watermark

__all__ = [
    "STAGING_NEEDS_A_SESSION",
    "AnyStreamPublishDefinition",
    "AwaitableEventStorageAdapter",
    "EventStorageAdapter",
    "Holdable",
    "Latestable",
    "Listable",
    "Scannable",
    "SyncEventStorageAdapter",
    "belongs_to",
    "checked_listable",
    "checked_target",
]

R = TypeVar("R")

AnyStreamPublishDefinition: TypeAlias = StreamPublishDefinition[Any, Any, Any]

Holdable: TypeAlias = StreamIdentifier | Mapping[StreamIdentifier, AnyStreamPublishDefinition]
"""What can be locked while some work is done: a stream, or all that a publish needs."""
Latestable: TypeAlias = EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier
Scannable: TypeAlias = EventSequenceIdentifier | EventPartitionIdentifier | QueryIdentifier
Listable: TypeAlias = LogIdentifier | CategoryIdentifier

_NO_PROJECTIONS = (
    "{adapter} keeps no projections beside its events, so it cannot update them with a publish or rebuild them: use a "
    "store on a SQLAlchemy bind or in memory, or project into a ProjectionStore"
)

_NO_ADDED_TAGS = "{adapter} cannot add tags to events that are stored: use a store on PostgreSQL, SQLite or in memory"

STAGING_NEEDS_A_SESSION = (
    "staging needs a session, whose commit stores the events: use store.within(session), or publish at once"
)


class _EventStorage:
    """What both contracts say of projections and staging, which takes no I/O."""

    @property
    def types(self) -> EventTypes[Any] | None:
        """The event types of the store, where they are known; payloads of storage itself are JSON."""
        return None

    @property
    def untyped(self) -> Any:
        """The storage itself, whose payloads are JSON; with its subscriptions, projections and sessions."""
        return self

    def with_projections(self, projections: Sequence[InlineProjection]) -> Self:
        """Return the same storage whose publishes update these projections too, besides those that it updates already.

        Raises:
            ConfigurationError: If this storage cannot, one of them cannot be inline, or two have the same name.
        """
        raise ConfigurationError(_NO_PROJECTIONS.format(adapter=type(self).__name__))

    def rebuild_storage(self, name: str) -> RebuildStorage:
        """Return storage for rebuilding the projections of a name that are kept beside the events.

        Raises:
            ConfigurationError: If there are none, or everything is part of a transaction of the caller.
        """
        raise ConfigurationError(_NO_PROJECTIONS.format(adapter=type(self).__name__))

    def boundary_of(self, tags: AbstractSet[str]) -> AbstractSet[str]:
        """Return those of some tags whose writers exclude each other until they commit; by default, all do."""
        return tags

    def subscription_storage(self) -> SubscriptionStorage:
        """Return storage for subscriptions that is kept beside the events.

        Raises:
            ConfigurationError: If there is none, or everything is part of a transaction of the caller.
        """
        raise ConfigurationError(
            f"{type(self).__name__} keeps no subscriptions beside its events: use a store on a SQLAlchemy bind or in memory"
        )

    def inspection_storage(self) -> InspectionStorage:
        """Return what answers questions about the store as a whole; see `eventstore_sa.inspection`.

        Raises:
            ConfigurationError: If there is none.
        """
        raise ConfigurationError(
            f"{type(self).__name__} cannot be inspected: use a store on a SQLAlchemy bind or in memory"
        )

    @property
    def wakeups(self) -> Wakeups:
        """Says in this process that events may have been stored; what is not announced is found by polling."""
        return Wakeups()

    @property
    def turns(self) -> Turns | None:
        """The turns of updates in this process, where it takes a while to lose a race; None: they do not queue."""
        return None

    def stage(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> StagedPublish[Any]:
        """Stage events, to be stored when the session's transaction commits; arguments as for `save`."""
        raise TransactionError(STAGING_NEEDS_A_SESSION)

    def after_commit(self, callback: CommitCallback) -> None:
        """Register a function to be called with the stored events once the session's transaction is committed."""
        raise TransactionError(STAGING_NEEDS_A_SESSION)


class EventStorageAdapter(_EventStorage, StorageAdapter):
    """Storage of events, used with asyncio."""

    @overload
    async def save(
        self, *, target: StreamIdentifier, events: Sequence[AnyNewEvent], condition: WriteCondition | None = None
    ) -> Sequence[AnyStoredEvent]: ...

    @overload
    async def save(
        self, *, target: CategoryIdentifier, streams: Mapping[str, AnyStreamPublishDefinition]
    ) -> Mapping[str, Sequence[AnyStoredEvent]]: ...

    @overload
    async def save(
        self, *, target: LogIdentifier, streams: Mapping[StreamIdentifier, AnyStreamPublishDefinition]
    ) -> Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]: ...

    @abstractmethod
    async def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Sequence[AnyStoredEvent] | Mapping[Any, Sequence[AnyStoredEvent]]:
        """Store events at the end of one stream, or of several: all or none.

        Args:
            target: A stream takes `events` and `condition`; a category takes `streams` by name; the log takes
                `streams` by `StreamIdentifier`.
            events: The events, in order; may be empty: conditions are still checked.
            condition: The condition that the stream must meet; None: none.
            streams: The events and the condition of each stream, in order.

        Returns:
            The stored events in the order and under the keys given. If all of the ids are stored already, in these streams
            and this order, the stored events are returned whatever the conditions say.

        Raises:
            ValueError: If the arguments do not fit the target.
            UnmetWriteConditionError: If a condition is not met. Nothing is stored then.
            DuplicateEventError: If an id is taken. Nothing is stored then.
            SerialisationError: If a value cannot be stored exactly. Nothing is stored then.
        """
        raise NotImplementedError

    @abstractmethod
    async def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        """Return the last event of the target, or None if there is none."""
        raise NotImplementedError

    @abstractmethod
    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[AnyStoredEvent]:
        """Iterate over the events of the target that meet all constraints, by position or sequence number.

        Of a partition these are the events whose stream it `covers`, in the order of the whole that it is a part of.
        """
        raise NotImplementedError

    async def streams(
        self,
        *,
        target: Listable = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> AsyncIterator[StreamIdentifier]:
        """Iterate over the streams of the target that have events, by category and name in code-point order.

        Streams that are created during the iteration may be included or not. The default implementation reads all events
        of the target.
        """
        found = {
            StreamIdentifier(event.category, event.stream) async for event in self.scan(target=checked_listable(target))
        }
        for stream in sorted(found):
            yield stream

    async def categories(self) -> AsyncIterator[CategoryIdentifier]:
        """Iterate over the categories that have events, in code-point order; see `streams`."""
        category: str | None = None
        async for stream in self.streams():
            if stream.category != category:
                category = stream.category
                yield CategoryIdentifier(category)

    async def watermark(self) -> Watermark:
        """Return up to where the log can be read without missing an event."""
        latest = await self.latest(target=LogIdentifier())
        return Watermark(0 if latest is None else latest.sequence_number)

    async def locked(self, held: Holdable, work: Callable[[EventStorageAdapter], Awaitable[R]]) -> R:
        """Do some work while nobody else can publish to a stream, if the storage can do that.

        Args:
            held: The stream; or a publish: then it is what that would lock, with the tags that its conditions depend on.
            work: Is given storage that is part of one transaction, which is committed at its end; by default this storage,
                without any transaction or lock.
        """
        return await work(self)

    async def flush(self) -> None:
        """Store what is staged in the session's transaction now."""
        raise TransactionError(STAGING_NEEDS_A_SESSION)

    async def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        """Add tags to stored events, and begin another epoch of tags; storage need not be able to.

        Args:
            added: The tags to add, by the sequence numbers of the events.

        Returns:
            How many events did not have all of them.

        Raises:
            ConfigurationError: If this storage cannot.
        """
        raise ConfigurationError(_NO_ADDED_TAGS.format(adapter=type(self).__name__))

    async def tags_epoch(self, *, current: bool = False) -> str:
        """Return the epoch of tags, which is another one whenever tags have been added to stored events.

        Args:
            current: Whether it must be the current one. Otherwise an earlier one will do, under which decisions are refused.
        """
        return ""


class SyncEventStorageAdapter(_EventStorage, SyncStorageAdapter):
    """Storage of events, used without asyncio: the twin of `EventStorageAdapter`."""

    @overload
    def save(
        self, *, target: StreamIdentifier, events: Sequence[AnyNewEvent], condition: WriteCondition | None = None
    ) -> Sequence[AnyStoredEvent]: ...

    @overload
    def save(
        self, *, target: CategoryIdentifier, streams: Mapping[str, AnyStreamPublishDefinition]
    ) -> Mapping[str, Sequence[AnyStoredEvent]]: ...

    @overload
    def save(
        self, *, target: LogIdentifier, streams: Mapping[StreamIdentifier, AnyStreamPublishDefinition]
    ) -> Mapping[StreamIdentifier, Sequence[AnyStoredEvent]]: ...

    @abstractmethod
    def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Sequence[AnyStoredEvent] | Mapping[Any, Sequence[AnyStoredEvent]]:
        """Store events at the end of one stream, or of several: all or none; see `EventStorageAdapter.save`."""
        raise NotImplementedError

    def save_parts(self, parts: Sequence[StreamPublication]) -> None:
        """Store events at the ends of streams, in exactly this order: a stream may come again after another one.

        All or none, except by this default implementation: that stores each part by itself.
        """
        for part in parts:
            self.save(target=part.stream, events=part.events, condition=part.condition)

    @abstractmethod
    def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        """Return the last event of the target, or None if there is none."""
        raise NotImplementedError

    @abstractmethod
    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        """Iterate over the events of the target that meet all constraints, by position or sequence number."""
        raise NotImplementedError

    def scan_text(
        self, *, target: Scannable, constraints: QueryConstraints, limit: int | None, backwards: bool
    ) -> Iterator[AnyStoredEvent] | None:
        """Iterate as `scan` does, over events whose payloads are JSON text: a str, or bytes in UTF-8.

        For stores with event types, which make their objects of text faster. None, the default: not here.
        """
        return None

    def find_text(
        self, *, ids: Collection[UUID] = (), sequence_numbers: Collection[int] = ()
    ) -> Sequence[AnyStoredEvent]:
        """Return the events that have one of some ids or numbers, in any order; their payloads are JSON text.

        Events beyond the watermark are among them. The default implementation reads all events.
        """
        wanted_ids, wanted_numbers = frozenset(ids), frozenset(sequence_numbers)
        return [
            replace(event, payload=encode_json(event.payload))
            for event in self.scan(target=LogIdentifier())
            if event.id in wanted_ids or event.sequence_number in wanted_numbers
        ]

    def streams(
        self,
        *,
        target: Listable = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> Iterator[StreamIdentifier]:
        """Iterate over the streams of the target that have events; see `EventStorageAdapter.streams`."""
        events = self.scan(target=checked_listable(target))
        yield from sorted({StreamIdentifier(event.category, event.stream) for event in events})

    def categories(self) -> Iterator[CategoryIdentifier]:
        """Iterate over the categories that have events, in code-point order; see `streams`."""
        category: str | None = None
        for stream in self.streams():
            if stream.category != category:
                category = stream.category
                yield CategoryIdentifier(category)

    def inspection_storage(self) -> InspectionStorage:
        """Return what answers questions about the store as a whole, by default by reading its events."""
        return ScannedInspectionStorage(self)

    def watermark(self) -> Watermark:
        """Return up to where the log can be read without missing an event."""
        latest = self.latest(target=LogIdentifier())
        return Watermark(0 if latest is None else latest.sequence_number)

    def locked(self, held: Holdable, work: Callable[[SyncEventStorageAdapter], R]) -> R:
        """Do some work while nobody else can publish to a stream; see `EventStorageAdapter.locked`."""
        return work(self)

    def flush(self) -> None:
        """Store what is staged in the session's transaction now."""
        raise TransactionError(STAGING_NEEDS_A_SESSION)

    def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        """Add tags to stored events, and begin another epoch of tags; see `EventStorageAdapter.add_tags`."""
        raise ConfigurationError(_NO_ADDED_TAGS.format(adapter=type(self).__name__))

    def tags_epoch(self, *, current: bool = False) -> str:
        """Return the epoch of tags; see `EventStorageAdapter.tags_epoch`."""
        return ""


S = TypeVar("S", bound=SyncEventStorageAdapter, default=SyncEventStorageAdapter)


class AwaitableEventStorageAdapter(AwaitableStorageAdapter[S], EventStorageAdapter):
    """Storage of events, used with asyncio, over a synchronous adapter that it owns."""

    @property
    def types(self) -> EventTypes[Any] | None:
        return self.sync_adapter.types

    async def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        # Only what was given: the adapter's own defaults are part of the contract.
        given = {"events": events, "condition": condition, "streams": streams}
        save: Callable[..., Any] = self.sync_adapter.save
        return await self._runner.run(
            save, target=target, **{name: value for name, value in given.items() if value is not None}
        )

    async def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        return await self._runner.run(self.sync_adapter.latest, target=target)

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[AnyStoredEvent]:
        return self._runner.iterate(
            self.sync_adapter.scan(target=target, constraints=constraints, limit=limit, backwards=backwards)
        )

    def streams(
        self,
        *,
        target: Listable = LogIdentifier(),  # noqa: B008 - an immutable value
    ) -> AsyncIterator[StreamIdentifier]:
        return self._runner.iterate(self.sync_adapter.streams(target=target))

    def categories(self) -> AsyncIterator[CategoryIdentifier]:
        return self._runner.iterate(self.sync_adapter.categories())

    async def watermark(self) -> Watermark:
        return await self._runner.run(self.sync_adapter.watermark)

    async def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        return await self._runner.run(self.sync_adapter.add_tags, added)

    async def tags_epoch(self, *, current: bool = False) -> str:
        return await self._runner.run(self.sync_adapter.tags_epoch, current=current)

    def with_projections(self, projections: Sequence[InlineProjection]) -> Self:
        return self._over(self.sync_adapter.with_projections(projections))

    def rebuild_storage(self, name: str) -> RebuildStorage:
        return self.sync_adapter.rebuild_storage(name)

    def boundary_of(self, tags: AbstractSet[str]) -> AbstractSet[str]:
        return self.sync_adapter.boundary_of(tags)

    def subscription_storage(self) -> SubscriptionStorage:
        return self.sync_adapter.subscription_storage()

    def inspection_storage(self) -> InspectionStorage:
        return self.sync_adapter.inspection_storage()

    @property
    def wakeups(self) -> Wakeups:
        return self.sync_adapter.wakeups

    @property
    def turns(self) -> Turns | None:
        return self.sync_adapter.turns

    def stage(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> StagedPublish[Any]:
        return self.sync_adapter.stage(target=target, events=events, condition=condition, streams=streams)

    async def flush(self) -> None:
        await self._runner.run(self.sync_adapter.flush)

    def after_commit(self, callback: CommitCallback) -> None:
        self.sync_adapter.after_commit(callback)


def checked_target(target: Scannable) -> Scannable:
    """Return a target if events can be read from it.

    Raises:
        ValueError: If it does not identify the log, a category, a stream, a query or a partition.
    """
    checked: object = target
    if isinstance(checked, Scannable):
        return target
    raise ValueError(
        "the target of a read must be the log, a category, a stream, a query or a partition, such as "
        f"CategoryIdentifier('orders'); got {type(checked).__name__}"
    )


def belongs_to(event: AnyStoredEvent, target: Scannable) -> bool:
    """Tell whether an event is part of a target of reads: of the log, a category, a stream, a query or a partition."""
    query = query_of(target)
    if query is not None and not query.met_by(event=event):
        return False
    match target:
        case CategoryIdentifier(category):
            return event.category == category
        case StreamIdentifier(category, stream):
            return (event.category, event.stream) == (category, stream)
        case PartitionIdentifier():
            return target.covers(StreamIdentifier(event.category, event.stream))
        case _:
            return True


def checked_listable(target: Listable) -> Listable:
    """Return a target if its streams can be listed.

    Raises:
        ValueError: If it does not identify the log or a category.
    """
    checked: object = target
    if isinstance(checked, Listable):
        return target
    raise ValueError(
        "the target of a list of streams must be the log or a category, such as CategoryIdentifier('orders'); got "
        f"{type(checked).__name__}"
    )
