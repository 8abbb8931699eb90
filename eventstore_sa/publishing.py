"""What a publish is made of, before any database sees it: streams, their events and their conditions.

A publish is a sequence of `StreamPublication`s, stored all or none. The arguments of the public API are normalised here,
and what comes back from storage is turned into results here, the same for every adapter. Pure Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, NotRequired
from uuid import UUID

from msgspec import Raw, Struct
from msgspec.structs import replace
from typing_extensions import ReadOnly, TypedDict, TypeVar

from eventstore_sa.conditions import (
    EMPTY_STREAM_POSITION,
    Alternative,
    NoCondition,
    NoEventMatchesCondition,
    WriteCondition,
    alternatives,
    decided,
    unmet_condition_error,
)
from eventstore_sa.errors import ConfigurationError, DuplicateEventError, SerialisationError
from eventstore_sa.types import (
    AnyNewEvent,
    AnyStoredEvent,
    CategoryIdentifier,
    LogIdentifier,
    NewEvent,
    StoredEvent,
    StreamIdentifier,
    decode_json,
    encode_json,
    serialise_to_string,
    stored_time,
    to_json,
    with_ambient_metadata,
)

__all__ = [
    "PreparedEvent",
    "StreamPublication",
    "StreamPublishDefinition",
    "TypedPublishDefinition",
    "as_read",
    "check_conditions",
    "find_unmet",
    "keyed_results",
    "own_copy",
    "prepare",
    "publications",
    "replayed",
    "stored_events",
    "stream_publish_definition",
]

T = TypeVar("T")
Name = TypeVar("Name", covariant=True, default=str)
Payload = TypeVar("Payload", covariant=True, default=Any)
Metadata = TypeVar("Metadata", covariant=True, default=Any)

_CONTAINERS: Final = frozenset({dict, list})


class StreamPublishDefinition(TypedDict, Generic[Name, Payload, Metadata]):
    """The events for one stream of a publish to many, and the condition that the stream must meet."""

    events: ReadOnly[Sequence[NewEvent[Name, Payload, Metadata]]]
    condition: ReadOnly[NotRequired[WriteCondition]]


class TypedPublishDefinition(TypedDict, Generic[Payload]):
    """The same, with objects of event types among its events; only a store with these takes it."""

    events: ReadOnly[Sequence[Payload | AnyNewEvent]]
    condition: ReadOnly[NotRequired[WriteCondition]]


def stream_publish_definition(
    *, events: Sequence[NewEvent[Name, Payload, Metadata]], condition: WriteCondition | None = None
) -> StreamPublishDefinition[Name, Payload, Metadata]:
    """Build a `StreamPublishDefinition`; a literal `{"events": [...], "condition": ...}` is the same."""
    return {"events": events} if condition is None else {"events": events, "condition": condition}


class PreparedEvent(Struct, frozen=True, omit_defaults=True):
    """What is stored of an event, and how it is written into a document: JSON text, times in UTC, sorted tags.

    Defaults are left out of the document.
    """

    id: UUID
    name: str
    payload: Raw
    observed_at: datetime
    occurred_at: datetime
    metadata: Raw | None = None
    tags: tuple[str, ...] = ()
    version: int = 1


class StreamPublication(Struct, frozen=True, dict=True):
    """The part of a publish that concerns one stream.

    Attributes:
        stream: The stream.
        events: What is stored.
        condition: What must be true.
        tags: Tags that are locked as if they were written: those of events that another publish of the transaction stores.
    """

    stream: StreamIdentifier
    events: tuple[AnyNewEvent, ...]
    condition: WriteCondition
    tags: frozenset[str] = frozenset()

    @property
    def prepared(self) -> Sequence[PreparedEvent]:
        """What is stored of the events: made once, and not changed by whatever happens to the objects in them later.

        Raises:
            SerialisationError: If an event cannot be stored exactly.
        """
        # Not a cached_property: that of Python 3.11 would hold a lock of all publishes while code of the caller runs.
        known: Any = self.__dict__
        if "prepared" not in known:
            known["prepared"] = [prepare(event) for event in self.events]
        prepared: Sequence[PreparedEvent] = known["prepared"]
        return prepared

    def locks_only(self) -> StreamPublication:
        """Return a part that stores nothing and is always met, but for which the same is locked."""
        tags = self.tags.union(*(event.tags for event in self.prepared))
        return StreamPublication(self.stream, (), decided(self.condition, lambda _: True) | NoCondition(), tags)


def publications(
    *,
    target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
    events: Sequence[AnyNewEvent] | None = None,
    condition: WriteCondition | None = None,
    streams: Mapping[Any, StreamPublishDefinition[Any, Any, Any]] | None = None,
) -> tuple[StreamPublication, ...]:
    """Normalise the arguments of an adapter's `save`.

    A stream takes `events` and a `condition`; a category takes `streams` by name; the log takes `streams` by
    `StreamIdentifier`.

    Raises:
        ValueError: If the arguments do not fit the target.
        ConfigurationError: If an event, a condition or a definition is of the wrong type.
        DuplicateEventError: If two of the events have the same id.
    """
    parts: tuple[StreamPublication, ...]
    match target:
        case StreamIdentifier():
            if events is None or streams is not None:
                raise ValueError("publishing to a stream takes `events` and `condition`, not `streams`")
            parts = (_publication(target, events, condition),)
        case CategoryIdentifier() | LogIdentifier():
            if streams is None or events is not None or condition is not None:
                raise ValueError("publishing to a category or the log takes `streams`, not `events` and `condition`")
            parts = tuple(
                _publication(_stream_of(target, key), *_definition_parts(definition))
                for key, definition in _checked_streams(streams).items()
            )
        case _:
            raise ValueError(
                "publishing to a target needs a stream, a category or the log, such as StreamIdentifier('orders', '42'); "
                f"got {type(target).__name__}"
            )
    _refuse_repeated_ids(parts)
    return parts


def find_unmet(
    parts: Sequence[StreamPublication],
    ways: Sequence[Sequence[Alternative]],
    last_position: Callable[[StreamIdentifier], int | None],
    is_absent: Callable[[NoEventMatchesCondition], bool],
) -> tuple[StreamPublication, int | None] | None:
    """Return the first part whose condition is not met, and the last position of its stream; None if there is none.

    Each part sees what those before it would add.

    Args:
        parts: The publish.
        ways: The `alternatives` of the condition of each part.
        last_position: Returns the position of the last stored event of a stream; None if there is none.
        is_absent: Tells whether a condition on events of a query is met by the stored events.
    """

    def is_met(absent: NoEventMatchesCondition, earlier: Sequence[StreamPublication]) -> bool:
        return is_absent(absent) and not any(
            absent.item.met_by(event=event) for part in earlier for event in part.prepared
        )

    lasts: dict[StreamIdentifier, int] = {}
    for item, (part, ways_of_part) in enumerate(zip(parts, ways, strict=True)):
        last = lasts.get(part.stream)
        if last is None:
            stored = last_position(part.stream)
            last = EMPTY_STREAM_POSITION if stored is None else stored
        if not any(
            any(low <= last and (high is None or last <= high) for low, high in way.allowed)
            and all(is_met(each, parts[:item]) for each in way.absent)
            for way in ways_of_part
        ):
            return part, None if last == EMPTY_STREAM_POSITION else last
        lasts[part.stream] = last + len(part.events)
    return None


def check_conditions(
    parts: Sequence[StreamPublication],
    last_position: Callable[[StreamIdentifier], int | None],
    is_absent: Callable[[NoEventMatchesCondition], bool] | None = None,
) -> None:
    """Check the conditions of a publish, for storage that takes the built-in ones.

    Args:
        parts: The publish; a later part sees what the earlier ones would add.
        last_position: Returns the position of the last stored event of a stream; None if there is none.
        is_absent: Tells whether a condition on events of a query is met by the stored events; by default, such conditions
            are refused.

    Raises:
        UnmetWriteConditionError: If a condition is not met.
        ConfigurationError: If a condition is not a built-in one or a combination of these, or if it looks at events of a
            query and these cannot be checked.
    """
    ways = [alternatives(part.condition) for part in parts]
    unmet = find_unmet(parts, ways, last_position, _refuse_queries if is_absent is None else is_absent)
    if unmet is not None:
        part, actual = unmet
        raise unmet_condition_error(part.stream, part.condition, actual)


def _refuse_queries(condition: NoEventMatchesCondition) -> bool:
    raise ConfigurationError(f"this storage cannot check conditions on events of queries: {condition.describe()}")


def keyed_results(
    streams: Mapping[Any, object] | None, results: Sequence[Sequence[AnyStoredEvent]]
) -> Sequence[AnyStoredEvent] | Mapping[Any, Sequence[AnyStoredEvent]]:
    """Give the results of `publications` the shape of an adapter's `save`: a sequence, or one for each key of `streams`."""
    return results[0] if streams is None else dict(zip(streams, results, strict=True))


def prepare(event: AnyNewEvent) -> PreparedEvent:
    """Return what is stored of an event.

    Raises:
        SerialisationError: If the event cannot be stored exactly.
    """
    try:
        return _prepared(event, "event", "payload", "metadata")
    except SerialisationError:
        # Describing the event takes time, so it is done only now.
        name: object = event.name
        label = f"event {name!r}" if isinstance(name, str) else f"event {event.id}"
        return _prepared(event, label, f"payload of {label}", f"metadata of {label}")


def stored_events(
    publication: StreamPublication, *, first_position: int, sequence_numbers: Sequence[int]
) -> list[AnyStoredEvent]:
    """Pair the events of a publication with their numbers; the caller's own payload objects are kept.

    Args:
        publication: What was stored.
        first_position: The position of its first event; the others follow without a gap.
        sequence_numbers: One for each event, in their order.
    """
    stream, category = publication.stream.stream, publication.stream.category
    return [
        StoredEvent(
            event.id,
            event.name,
            stream,
            category,
            position,
            sequence_number,
            event.payload,
            event.metadata,
            prepared.observed_at,
            prepared.occurred_at,
            event.tags,
            event.version,
        )
        for position, (event, prepared, sequence_number) in enumerate(
            zip(publication.events, publication.prepared, sequence_numbers, strict=True), start=first_position
        )
    ]


def as_read(event: AnyStoredEvent, prepared: PreparedEvent) -> AnyStoredEvent:
    """Return a stored event that carries the caller's own objects as a read would: with what was stored of them."""
    return StoredEvent(
        event.id,
        prepared.name,
        event.stream,
        event.category,
        event.position,
        event.sequence_number,
        decode_json(bytes(prepared.payload)),
        None if prepared.metadata is None else decode_json(bytes(prepared.metadata)),
        event.observed_at,
        event.occurred_at,
        event.tags,
        event.version,
    )


def own_copy(event: AnyStoredEvent) -> AnyStoredEvent:
    """Return a copy of a read event with its own dicts and lists, for one of several consumers that may change them."""
    payload, metadata = event.payload, event.metadata
    if type(payload) not in _CONTAINERS and type(metadata) not in _CONTAINERS:
        return event
    return replace(
        event,
        payload=_copied(payload) if type(payload) in _CONTAINERS else payload,
        metadata=_copied(metadata) if type(metadata) in _CONTAINERS else metadata,
    )


def _copied(container: Any) -> Any:
    """Copy a dict or list with those in it."""
    copy = container.copy()
    kind = type(container)  # pyright: ignore[reportUnknownVariableType]
    # Most items are not containers: a call for each would take longer than the rest.
    for place, item in container.items() if kind is dict else enumerate(container):
        if type(item) in _CONTAINERS:
            copy[place] = _copied(item)
    return copy


def replayed(parts: Sequence[StreamPublication], stored: Mapping[UUID, AnyStoredEvent]) -> list[list[AnyStoredEvent]]:
    """Recognise a publish that is already stored: a retry after a lost reply.

    Args:
        parts: The publish that failed.
        stored: Those of its events, by id, that are stored anywhere in the store; at least one.

    Returns:
        The stored events of each part, when all of them are stored in the streams and in the order of the publish.

    Raises:
        DuplicateEventError: If some are stored, but the publish is not an exact repetition.
    """
    ids = [event.id for part in parts for event in part.events]
    found = [event_id for event_id in ids if event_id in stored]
    if len(found) == len(ids):
        results = [[stored[event.id] for event in part.events] for part in parts]
        if _are_in_place(parts, results):
            return [
                [*map(_with_own_objects, result, part.events, part.prepared)]
                for part, result in zip(parts, results, strict=True)
            ]
    first = stored[found[0]]
    raise DuplicateEventError(
        f"{len(found)} of {len(ids)} events to publish are already stored, the first of them, {first.id}, at position "
        f"{first.position} of stream {f'{first.category}/{first.stream}'!r}: give new events new ids; only exactly the "
        "same publish, with all events in the same order and streams, may be repeated",
        event_ids=found,
    )


def _publication(
    stream: StreamIdentifier, events: Iterable[AnyNewEvent], condition: WriteCondition | None
) -> StreamPublication:
    given: object = events
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"events to publish are passed as a list, even a single one: events=[event]; got {type(given).__name__}"
        )
    batch = tuple(events)
    for event in batch:
        checked: object = event
        if not isinstance(checked, NewEvent):
            raise ConfigurationError(
                f"events to publish are NewEvents; got {type(checked).__name__}: to publish objects of event types, give "
                "the store types=EventTypes(...)"
            )
    demanded: object = NoCondition() if condition is None else condition
    if not isinstance(demanded, WriteCondition):
        raise ConfigurationError(
            f"a condition is a WriteCondition, such as position_is(3); got {type(demanded).__name__}"
        )
    return StreamPublication(stream, tuple(map(with_ambient_metadata, batch)), demanded)


def _checked_streams(streams: Mapping[Any, T]) -> Mapping[Any, T]:
    checked: object = streams
    if isinstance(checked, Mapping):
        return streams
    raise ConfigurationError(
        "streams to publish to are passed as a mapping, such as {'42': {'events': [event]}}; got "
        f"{type(checked).__name__}"
    )


def _stream_of(target: CategoryIdentifier | LogIdentifier, key: object) -> StreamIdentifier:
    match target, key:
        case CategoryIdentifier(category), str():
            return StreamIdentifier(category, key)
        case LogIdentifier(), StreamIdentifier():
            return key
        case CategoryIdentifier(), _:
            raise ValueError(f"streams of a category are identified by name; got {type(key).__name__}")
        case _:
            raise ValueError(f"streams of the log are identified by StreamIdentifier; got {type(key).__name__}")


def _definition_parts(
    definition: StreamPublishDefinition[Any, Any, Any],
) -> tuple[Sequence[AnyNewEvent], WriteCondition | None]:
    checked: object = definition
    if not isinstance(checked, Mapping) or "events" not in checked or checked.keys() - {"events", "condition"}:
        raise ConfigurationError('a stream publish definition is {"events": [...], "condition": ...}')
    return definition["events"], definition.get("condition")


def _refuse_repeated_ids(parts: Sequence[StreamPublication]) -> None:
    seen: set[UUID] = set()
    for part in parts:
        for event in part.events:
            if event.id in seen:
                raise DuplicateEventError(
                    f"two events of the same publish have the id {event.id}: each event needs its own id",
                    event_ids=[event.id],
                )
            seen.add(event.id)


def _prepared(event: AnyNewEvent, label: str, payload_label: str, metadata_label: str) -> PreparedEvent:
    name: object = event.name
    observed_at = stored_time(event.observed_at, label)
    payload = to_json(event.payload, label=payload_label)
    metadata = None if event.metadata is None else to_json(event.metadata, label=metadata_label)
    return PreparedEvent(
        event.id,
        name if type(name) is str else serialise_to_string(name),
        Raw(encode_json(payload, label=payload_label)),
        observed_at,
        observed_at if event.occurred_at is event.observed_at else stored_time(event.occurred_at, label),
        None if metadata is None else Raw(encode_json(metadata, label=metadata_label)),
        tuple(sorted(event.tags)) if event.tags else (),
        event.version,
    )


def _are_in_place(parts: Sequence[StreamPublication], results: Sequence[Sequence[AnyStoredEvent]]) -> bool:
    """Whether the events are in the streams of the publish, and within each stream in its order."""
    last_positions: dict[StreamIdentifier, int] = {}
    for part, events in zip(parts, results, strict=True):
        for event in events:
            place = (event.category, event.stream)
            if place != (part.stream.category, part.stream.stream) or event.position <= last_positions.get(
                part.stream, -1
            ):
                return False
            last_positions[part.stream] = event.position
    return True


def _with_own_objects(stored: AnyStoredEvent, new: AnyNewEvent, prepared: PreparedEvent) -> AnyStoredEvent:
    same = (stored.name, stored.payload, stored.metadata) == (
        prepared.name,
        decode_json(bytes(prepared.payload)),
        None if prepared.metadata is None else decode_json(bytes(prepared.metadata)),
    )
    if not same:
        return stored
    return StoredEvent(
        stored.id,
        new.name,
        stored.stream,
        stored.category,
        stored.position,
        stored.sequence_number,
        new.payload,
        new.metadata,
        stored.observed_at,
        stored.occurred_at,
        stored.tags,
        stored.version,
    )
