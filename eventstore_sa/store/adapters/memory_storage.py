"""The storage core of the in-memory adapters: JSON text in lists, synchronous, behind one lock.

It accepts, returns and refuses what the databases accept, return and refuse. The adapters over it are in `event_memory.py`;
which of its records a read returns is decided in `memory_reads.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.conditions import (
    Alternative,
    NoEventMatchesCondition,
    WriteCondition,
    alternatives,
    custom_conditions,
    decided,
    unmet_condition_error,
)
from eventstore_sa.contracts.inline_projections import Projections, apply_projections
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.publishing import (
    PreparedEvent,
    StreamPublication,
    find_unmet,
    keyed_results,
    publications,
    replayed,
    stored_events,
)
from eventstore_sa.sources.base import checked_limit
from eventstore_sa.sources.constraints import QueryConstraints, checked_constraints
from eventstore_sa.store.adapters.event_contract import (
    AnyStreamPublishDefinition,
    Latestable,
    Listable,
    Scannable,
    checked_listable,
    checked_target,
)
from eventstore_sa.store.adapters.memory_projections import InMemoryProjections, InMemoryPublishPlace
from eventstore_sa.store.adapters.memory_reads import selected
from eventstore_sa.store.adapters.memory_subscriptions import InMemorySubscriptions
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventQuery,
    LogIdentifier,
    LogPartitionIdentifier,
    QueryItem,
    QueryPartitionIdentifier,
    StoredEvent,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    decode_json,
)

__all__ = ["InMemoryConditionContext", "InMemoryConditionEvaluator", "InMemoryEventStorage"]


class _Content(Struct, frozen=True):
    """What is stored of an event before it has a place: JSON text, so that no reader or writer can change it."""

    id: UUID
    name: str
    payload: bytes
    metadata: bytes
    observed_at: datetime
    occurred_at: datetime
    tags: frozenset[str]
    version: int


class _Record(Struct, frozen=True):
    """A stored event."""

    content: _Content
    stream: StreamIdentifier
    position: int
    sequence_number: int

    def event(self) -> AnyStoredEvent:
        """Return it as an event with its own payload and metadata."""
        return self._event(decode_json(self.content.payload), decode_json(self.content.metadata))

    def text_event(self) -> AnyStoredEvent:
        """Return it as an event whose payload is the JSON text."""
        return self._event(self.content.payload, decode_json(self.content.metadata))

    def outline(self) -> AnyStoredEvent:
        """Return it without payload and metadata, which are not decoded."""
        return self._event(None, None)

    def _event(self, payload: Any, metadata: Any) -> AnyStoredEvent:
        content = self.content
        return StoredEvent(
            content.id,
            content.name,
            self.stream.stream,
            self.stream.category,
            self.position,
            self.sequence_number,
            payload,
            metadata,
            content.observed_at,
            content.occurred_at,
            content.tags,
            content.version,
        )


class _Records:
    """The records of a store: lists that are only ever appended to, so that a list and a length are a snapshot."""

    def __init__(self) -> None:
        self.log: list[_Record] = []
        self.categories: dict[str, list[_Record]] = {}
        self.streams: dict[StreamIdentifier, list[_Record]] = {}
        self.tags: dict[str, list[_Record]] = {}
        self.by_id: dict[UUID, _Record] = {}

    def of(self, target: Scannable) -> Sequence[_Record]:
        """Return the list of the target, or an empty one; for a partition or query a list that it is a part of."""
        match target:
            case EventQuery((QueryItem(tags=tags),)) | QueryPartitionIdentifier(
                EventQuery((QueryItem(tags=tags),))
            ) if tags:
                return min((self.tags.get(tag, ()) for tag in tags), key=len)
            case EventQuery() | QueryPartitionIdentifier():
                return self.log
            case LogIdentifier() | LogPartitionIdentifier():
                return self.log
            case (
                CategoryIdentifier(category)
                | CategoryPartitionIdentifier(category)
                | StreamNamePrefixPartitionIdentifier(category)
            ):
                return self.categories.get(category, ())
            case StreamIdentifier():
                return self.streams.get(target, ())

    def with_ids_of(self, contents: Sequence[Sequence[_Content]]) -> list[_Record]:
        """Return those of the events that are stored already."""
        by_id = self.by_id
        return [by_id[content.id] for batch in contents for content in batch if content.id in by_id]

    def places(self, parts: Sequence[StreamPublication]) -> list[tuple[int, range]]:
        """Return where the events of each part would be appended: the position of the first, and all sequence numbers."""
        number = len(self.log) + 1
        positions: dict[StreamIdentifier, int] = {}
        places: list[tuple[int, range]] = []
        for part in parts:
            position, count = positions.get(part.stream, len(self.of(part.stream))), len(part.events)
            places.append((position if count else 0, range(number, number + count)))
            positions[part.stream] = position + count
            number += count
        return places

    def append(self, stream: StreamIdentifier, contents: Sequence[_Content], place: tuple[int, range]) -> None:
        """Append events to a stream, at the place that is next."""
        if not contents:
            return
        position, number = place[0], place[1].start
        records = [_Record(content, stream, position + i, number + i) for i, content in enumerate(contents)]
        self.log += records
        self.categories.setdefault(stream.category, []).extend(records)
        self.streams.setdefault(stream, []).extend(records)
        for record in records:
            for tag in record.content.tags:
                self.tags.setdefault(tag, []).append(record)
        self.by_id.update((record.content.id, record) for record in records)

    def with_tags(self, added: Mapping[int, AbstractSet[str]]) -> _Records:
        """Return the same records with more tags; running scans keep those that they have begun with."""
        records = _Records()
        for record in self.log:
            content, more = record.content, added.get(record.sequence_number, frozenset())
            content = content if content.tags.issuperset(more) else replace(content, tags=content.tags | more)
            number = record.sequence_number
            records.append(record.stream, [content], (record.position, range(number, number + 1)))
        return records


class InMemoryConditionContext:
    """What the evaluator of your own condition may look at.

    Attributes:
        stream: The stream that is published to.
    """

    def __init__(self, storage: InMemoryEventStorage, stream: StreamIdentifier) -> None:
        self.stream: StreamIdentifier = stream
        self._storage = storage

    @property
    def latest(self) -> AnyStoredEvent | None:
        """The last event of the stream; None if the stream is empty."""
        return self._storage.latest(target=self.stream)

    def scan(self, target: Scannable) -> Iterator[AnyStoredEvent]:
        """Iterate over the events of a target within the condition's scope."""
        return self._storage.scan(target=target, constraints=frozenset(), limit=None, backwards=False)


InMemoryConditionEvaluator: TypeAlias = Callable[[Any, InMemoryConditionContext], bool]


class InMemoryEventStorage:
    """Events in memory, safe to use from any number of threads, tasks and event loops at once.

    Sequence numbers start at 1, positions at 0, and neither has gaps. The lock is held for a moment only, never while
    code of the caller runs: JSON conversion happens before and after.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._records = _Records()
        self.projections: Final = InMemoryProjections()
        self.subscriptions: Final = InMemorySubscriptions()
        self.wakeups: Final = Wakeups()
        self._evaluators: dict[type[WriteCondition], InMemoryConditionEvaluator] = {}
        self.tags_epoch: str = ""
        """Another text whenever tags have been added to stored events."""

    def register_condition(self, condition: type[WriteCondition], evaluate: InMemoryConditionEvaluator) -> None:
        """Register how conditions of exactly this type are checked."""
        self._evaluators[condition] = evaluate

    def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None,
        condition: WriteCondition | None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None,
        projections: Projections = (),
    ) -> Sequence[AnyStoredEvent] | Mapping[Any, Sequence[AnyStoredEvent]]:
        """Store events, all or none; see `EventStorageAdapter.save`."""
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        return keyed_results(streams, self.publish(parts, projections))

    def publish(self, parts: Sequence[StreamPublication], projections: Projections = ()) -> list[list[AnyStoredEvent]]:
        """Store the events of all parts, or none; a later part of the same stream sees what the earlier ones add.

        Projections are reduced before anything is stored, and stored together with the events; if there was another
        publish, or one of them was saved, in between, all of it is done again.

        Raises:
            UnmetWriteConditionError: If a condition is not met.
            DuplicateEventError: If some of the ids are taken, and the publish is not an exact repetition.
            SerialisationError: If a value cannot be stored exactly.
        """
        contents = [[_content_of(event) for event in part.prepared] for part in parts]
        while True:
            results = self._try_to_publish(parts, contents, projections)
            if results is not None:
                self.wakeups.wake()
                return results

    def _try_to_publish(
        self,
        parts: Sequence[StreamPublication],
        contents: Sequence[Sequence[_Content]],
        projections: Projections,
    ) -> list[list[AnyStoredEvent]] | None:
        """Publish; or do nothing and return None if anything was stored while code of the caller ran."""
        looked_at = self._records
        amount = len(looked_at.log)
        ways = [alternatives(decided(part.condition, partial(self._verdict, part.stream))) for part in parts]
        evaluated = any(True for part in parts for _ in custom_conditions(part.condition))
        place: InMemoryPublishPlace | None = None
        if projections:
            place = self._projected(parts, contents, ways, projections)
        with self._lock:
            records = self._records
            if (evaluated or place is not None) and (records is not looked_at or len(records.log) != amount):
                return None
            unmet = find_unmet(parts, ways, partial(_last_position, records), self._is_absent)
            taken = records.with_ids_of(contents)
            if unmet is None and not taken:
                if projections and (place is None or not place.commit()):
                    return None
                places = records.places(parts)
                for part, batch, at in zip(parts, contents, places, strict=True):
                    records.append(part.stream, batch, at)
                return _results(parts, places)
        if unmet is not None and not taken:
            part, actual = unmet
            raise unmet_condition_error(part.stream, part.condition, actual)
        stored = {record.content.id: record.event() for record in taken}
        return replayed(parts, stored)

    def _projected(
        self,
        parts: Sequence[StreamPublication],
        contents: Sequence[Sequence[_Content]],
        ways: Sequence[Sequence[Alternative]],
        projections: Projections,
    ) -> InMemoryPublishPlace | None:
        """Apply to the projections what would be stored now; return None if nothing would be."""
        with self._lock:
            records = self._records
            unmet = find_unmet(parts, ways, partial(_last_position, records), self._is_absent)
            if unmet is not None or records.with_ids_of(contents):
                return None
            results = _results(parts, records.places(parts))
        place = InMemoryPublishPlace(self.projections)
        apply_projections(place, [projections] * len(parts), parts, results)
        return place

    def _verdict(self, stream: StreamIdentifier, condition: WriteCondition) -> bool:
        evaluate = self._evaluators.get(type(condition))
        if evaluate is None:
            raise ConfigurationError(
                f"{type(condition).__name__} cannot be checked in memory: register how with "
                "adapter.register_condition(type, evaluate)"
            )
        return evaluate(condition, InMemoryConditionContext(self, stream))

    def _is_absent(self, absent: NoEventMatchesCondition) -> bool:
        """Tell whether no event matches after the last one that is known, and that one is still the last before."""
        log = self._records.log
        after = min(absent.after, len(log))
        if absent.last_id is not None and (after < absent.after or log[after - 1].content.id != absent.last_id):
            return False
        if absent.tags_epoch not in (None, self.tags_epoch):
            return False
        return not any(absent.item.met_by(event=log[number].content) for number in range(after, len(log)))

    def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        """Add tags to stored events; see `EventStorageAdapter.add_tags`."""
        with self._lock:
            log = self._records.log
            changed = {
                number: tags
                for number, tags in added.items()
                if 0 < number <= len(log) and not log[number - 1].content.tags.issuperset(tags)
            }
            if changed:
                self._records = self._records.with_tags(changed)
                self.tags_epoch = uuid4().hex
            return len(changed)

    def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        """Return the last event of the target, None if there is none; as fast in a store of any size."""
        scan = self.scan(target=target, constraints=frozenset(), limit=1, backwards=True)
        return next(scan, None)

    def scan(
        self,
        *,
        target: Scannable,
        constraints: QueryConstraints,
        limit: int | None,
        backwards: bool,
        as_text: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        """Iterate over the events that are stored at the time of the call; each is decoded when its turn comes.

        With `as_text`, payloads remain JSON text.

        Raises:
            ConfigurationError: If the limit is negative or not an integer, or the constraints are not a set of constraints.
            ValueError: If the target is not the log, a category, a stream, a query or a partition.
        """
        most, checked = checked_limit(limit), checked_constraints(constraints)
        with self._lock:
            records = self._records.of(checked_target(target))
            end = len(records)
        events = selected(records, end, target, checked, backwards=backwards, as_text=as_text)
        return islice(events, end if most is None else min(most, end))

    @property
    def length(self) -> int:
        """How many events there are."""
        return len(self._records.log)

    def if_unchanged(self, length: int, work: Callable[[], object]) -> bool:
        """Do something while publishes wait, unless the length has changed; return whether it was done."""
        with self._lock:
            if len(self._records.log) != length:
                return False
            work()
            return True

    def streams(self, target: Listable) -> Iterator[StreamIdentifier]:
        """Iterate over the streams of the log or a category that have events now, in code-point order."""
        checked = checked_listable(target)
        with self._lock:
            streams = list(self._records.streams)
        if isinstance(checked, CategoryIdentifier):
            streams = [stream for stream in streams if stream.category == checked.category]
        return iter(sorted(streams))

    def categories(self) -> Iterator[CategoryIdentifier]:
        """Iterate over the categories that have events now, in code-point order."""
        with self._lock:
            categories = list(self._records.categories)
        return map(CategoryIdentifier, sorted(categories))

    def clear(self) -> None:
        """Forget all events and projections, and start again at sequence number 1; running scans are not disturbed."""
        with self._lock:
            self._records = _Records()
            self.projections.clear()
            self.subscriptions.clear()


def _content_of(event: PreparedEvent) -> _Content:
    return _Content(
        event.id,
        event.name,
        bytes(event.payload),
        b"null" if event.metadata is None else bytes(event.metadata),
        event.observed_at,
        event.occurred_at,
        frozenset(event.tags),
        event.version,
    )


def _last_position(records: _Records, stream: StreamIdentifier) -> int | None:
    return len(records.of(stream)) - 1 if stream in records.streams else None


def _results(parts: Sequence[StreamPublication], places: Sequence[tuple[int, range]]) -> list[list[AnyStoredEvent]]:
    return [
        stored_events(part, first_position=position, sequence_numbers=numbers)
        for part, (position, numbers) in zip(parts, places, strict=True)
    ]
