"""Applying events of any streams to the stored projections of one projector: which are affected, and what becomes of them.

`Batch` does no I/O. `apply_batch` loads and saves through a storage adapter, for the projection store; inline
projections do so in the transaction of a publish, and rebuilds in their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.attempts import Attempts, Backoff
from eventstore_sa.contracts.projection_records import ProjectionRecord, projection_text, record_of
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, SerialisationError
from eventstore_sa.projection.definition import check_storable
from eventstore_sa.projection.handlers import note_event, note_events, noting
from eventstore_sa.projection.reading import batch_of
from eventstore_sa.publishing import own_copy
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventSourceIdentifier,
    LogIdentifier,
    Projection,
    StreamIdentifier,
    decode_json,
    deserialise_from_json_value,
)
from eventstore_sa.types.identifiers import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventstore_sa.projection.adapters import ProjectionStorageAdapter, SyncProjectionStorageAdapter
    from eventstore_sa.projection.projector import Projector

__all__ = ["Batch", "apply_batch", "apply_batch_sync"]

_TRIES: Final = 10
_BACKOFF: Final = Backoff()


class _Route(Struct):
    """The events of a batch for one projection, and the source of that projection."""

    source: EventSourceIdentifier
    events: list[AnyStoredEvent]


class _Step(Struct, frozen=True):
    """One projection of a batch: what is stored of it, and what is to be applied."""

    id: str
    source: EventSourceIdentifier
    events: list[AnyStoredEvent]
    stored: ProjectionRecord | None
    state: Any
    metadata: Any


class Batch:
    """Events in the order of their sequence numbers, distributed to the projections of a projector.

    Args:
        projector: The projector.
        events: The events; those that it does not take are ignored.

    Raises:
        ConfigurationError: If the projection of an event cannot be determined.
    """

    def __init__(self, projector: Projector[Any, Any, Any], events: Iterable[AnyStoredEvent]) -> None:
        self._projector = projector
        self._routes: dict[str, _Route] = {}
        self._by_stream = projector.projects_streams
        taken = filter(projector.takes, events)
        if self._by_stream:
            self._deal_by_stream(taken)
        else:
            self._deal_by_event(taken)

    @property
    def ids(self) -> Collection[str]:
        """The ids of the projections that the events affect."""
        return self._routes.keys()

    def reduced_sync(self, stored: Mapping[str, ProjectionRecord], *, again: bool = False) -> list[ProjectionRecord]:
        """Apply the events; return the projections that have changed, with the version of what is stored.

        Args:
            stored: What is stored of the projections, by id.
            again: Whether events may have been applied already: then those up to the number recorded with a projection
                are skipped.
        """
        return [
            self._record(
                step,
                *self._projector.reduce_sync(events=step.events, state=step.state, metadata=step.metadata),
            )
            for step in self._steps(stored, again)
        ]

    async def reduced(self, stored: Mapping[str, ProjectionRecord], *, again: bool = False) -> list[ProjectionRecord]:
        """Apply the events; the twin of `reduced_sync` for handlers that are coroutine functions."""
        return [
            self._record(
                step, *await self._projector.reduce(events=step.events, state=step.state, metadata=step.metadata)
            )
            for step in self._steps(stored, again)
        ]

    def _deal_by_stream(self, events: Iterable[AnyStoredEvent]) -> None:
        routes: dict[tuple[str, str], _Route] = {}
        for event in events:
            route = routes.get((event.category, event.stream))
            if route is None:
                source = StreamIdentifier(event.category, event.stream)
                try:
                    route = self._route_of_stream(source)
                except Exception as error:
                    note_event(error, self._projector.name, event)
                    raise
                routes[event.category, event.stream] = route
            route.events.append(event)

    def _route_of_stream(self, source: StreamIdentifier) -> _Route:
        key = self._projector.id_of(source)
        route = self._route(key, source)
        if route.source is not source:
            raise self._one_id_for_two(key, route.source, source)
        return route

    def _deal_by_event(self, events: Iterable[AnyStoredEvent]) -> None:
        categories = self._projector.categories
        source = CategoryIdentifier(*categories) if categories and len(categories) == 1 else LogIdentifier()
        for event in events:
            with noting(self._projector.name, [event]):
                routes = [self._route(key, source) for key in self._ids_of(event)]
            for number, route in enumerate(routes):
                # A handler may make the payload its state, and change it with the next event.
                route.events.append(own_copy(event) if number else event)

    def _ids_of(self, event: AnyStoredEvent) -> Iterable[str]:
        given: Any = self._projector.ids(event)
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise ConfigurationError(
                f"{type(self._projector).__name__}.ids(event) returned {given!r}, but the ids of projections are returned "
                f"in a list: write {'[]' if given is None else f'[{given!r}]'}"
            )
        return dict.fromkeys(check_name("projection id's", each) for each in cast("Iterable[str]", given))

    def _route(self, key: str, source: EventSourceIdentifier) -> _Route:
        route = self._routes.get(key)
        if route is None:
            route = self._routes[check_name("projection id's", key)] = _Route(source, [])
        return route

    def _steps(self, stored: Mapping[str, ProjectionRecord], again: bool) -> Iterator[_Step]:
        projector = self._projector
        for key, route in self._routes.items():
            record = stored.get(key)
            events = _missing(route.events, record) if again else route.events
            if record is None:
                yield _Step(
                    key,
                    route.source,
                    events,
                    None,
                    projector.initial_state_factory(),
                    projector.initial_metadata_factory(),
                )
                continue
            if self._by_stream and not _is_of(record.source, route.source):
                raise self._one_id_for_two(key, record.source, route.source)
            if events:
                try:
                    state = _converted(projector.state_type, record, "state", record.state)
                    metadata = _converted(projector.metadata_type, record, "metadata", record.metadata)
                except Exception as error:
                    note_events(error, projector.name, events)
                    raise
                yield _Step(key, route.source, events, record, state, metadata)

    def _record(self, step: _Step, state: Any, metadata: Any) -> ProjectionRecord:
        try:
            return self._checked_record(step, state, metadata)
        except Exception as error:
            note_events(error, self._projector.name, step.events)
            raise

    def _checked_record(self, step: _Step, state: Any, metadata: Any) -> ProjectionRecord:
        projector, stored, number = self._projector, step.stored, step.events[-1].sequence_number
        if self._by_stream and projector.id_factory(state, step.source) != step.id:
            raise ConfigurationError(
                f"the ids of projector {projector.name!r} depend on the state, so that the projection of an event cannot be "
                f"found: override `ids(self, event)` in {type(projector).__name__}, and return them from there"
            )
        if stored is None:
            projection = Projection(id=step.id, name=projector.name, source=step.source, state=state, metadata=metadata)
            return replace(record_of(projection), sequence_number=number)
        return ProjectionRecord(
            stored.name,
            stored.id,
            stored.source,
            projection_text("state", state, name=projector.name, id=step.id),
            projection_text("metadata", metadata, name=projector.name, id=step.id),
            stored.version,
            number if stored.sequence_number is None else max(number, stored.sequence_number),
            stored.source_hash,
        )

    def _one_id_for_two(self, id: str, first: object, second: object) -> ConfigurationError:
        return ConfigurationError(
            f"projector {self._projector.name!r} gives the id {id!r} to two streams, {first!r} and {second!r}: name those "
            "whose events it takes in its attribute `categories`, let `id_factory` tell the streams apart, or override "
            "`ids(self, event)` for projections that are fed by several streams"
        )


def _missing(events: Iterable[AnyStoredEvent], record: ProjectionRecord | None) -> list[AnyStoredEvent]:
    """Return what is not applied yet, as copies: the events are the caller's, and needed again by who loses a race."""
    applied = None if record is None else record.sequence_number
    return [own_copy(event) for event in events if applied is None or event.sequence_number > applied]


def _is_of(text: str, source: EventSourceIdentifier) -> bool:
    """Tell whether the JSON of a source is that of a stream."""
    stored = decode_json(text)
    return (
        isinstance(source, StreamIdentifier)
        and stored.get("stream") == source.stream
        and stored.get("category") == source.category
    )


def _converted(wanted: Any, record: ProjectionRecord, field: str, text: str) -> Any:
    value = None if text == "null" else decode_json(text)
    if wanted is None:
        return value
    try:
        return deserialise_from_json_value(wanted, value)
    except SerialisationError as error:
        raise SerialisationError(
            f"the stored {field} of projection {record.name!r} with id {record.id!r} is not what the projector wants now: "
            f"{error.message}; rebuild the projections"
        ) from error


async def apply_batch(
    adapter: ProjectionStorageAdapter, projector: Projector[Any, Any, Any], events: Iterable[AnyStoredEvent]
) -> int:
    """Apply the events that have not been applied yet; return how many projections were saved.

    Raises:
        ConcurrencyError: If other writers were faster time and again.
        ConfigurationError: If this is not a projector, its `state_type` is missing, or the events are not a batch of stored
            events.
    """
    check_storable(projector)
    batch = Batch(projector, batch_of(events))
    return await drive_async(_apply(adapter, projector.name, batch, batch.reduced))


def apply_batch_sync(
    adapter: SyncProjectionStorageAdapter, projector: Projector[Any, Any, Any], events: Iterable[AnyStoredEvent]
) -> int:
    """Apply the events that have not been applied yet, without asyncio; see `apply_batch`."""
    check_storable(projector)
    batch = Batch(projector, batch_of(events))
    return drive(_apply(adapter, projector.name, batch, batch.reduced_sync))


def _apply(
    adapter: ProjectionStorageAdapter | SyncProjectionStorageAdapter,
    name: str,
    batch: Batch,
    reduce: Callable[..., Any],
) -> Steps[int]:
    if not batch.ids:
        return 0
    saved = 0
    for attempt in Attempts(_TRIES, backoff=_BACKOFF):
        yield attempt.pause
        stored = yield partial(adapter.load_batch, name=name, ids=batch.ids)
        records = yield partial(reduce, stored, again=True)
        if not records:
            return saved
        done: int = yield partial(adapter.save_batch, records=records)
        saved += done
        if done == len(records):
            return saved
    raise ConcurrencyError(
        f"other processes saved the same projections of {name!r} first, {_TRIES} times in a row: let one process at a time "
        "apply the events of a stream"
    )
