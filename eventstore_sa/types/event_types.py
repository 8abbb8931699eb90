"""The event types of a store: which class stands for which name and version of an event, in both directions.

A store is given them by `EventStore(..., types=...)`. Stored events are never changed: payloads of older versions are
brought up to date when they are read, one event for one event. `payload_codecs.py` converts objects to JSON and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeAlias, cast, get_args, is_typeddict

from msgspec import Struct
from msgspec.structs import force_setattr
from typing_extensions import TypeVar

from eventstore_sa.errors import (
    ConfigurationError,
    InvalidPayloadError,
    PayloadKeyError,
    SerialisationError,
    UnknownEventTypeError,
    UnreadableEventError,
)
from eventstore_sa.types.codec import decode_json, encode_json, to_json
from eventstore_sa.types.conversion import serialise_to_string
from eventstore_sa.types.encryption import LostKeyError
from eventstore_sa.types.event_declaration import Cast, Declaration, checked_version, declared
from eventstore_sa.types.event_query import EventQuery, QueryItem
from eventstore_sa.types.events import AnyNewEvent, AnyStoredEvent, NewEvent, StoredEvent
from eventstore_sa.types.identifiers import StreamIdentifier
from eventstore_sa.types.json import is_dict
from eventstore_sa.types.payload_codecs import PayloadCodec, codec_of, field_names, harmless, invalid_reason
from eventstore_sa.types.payload_pipeline import PayloadContext, PayloadTransform
from eventstore_sa.types.tags import NO_TAGS, checked_tags

__all__ = ["EventTypes", "OnUnreadable", "Read", "checked_types", "with_payload"]

P = TypeVar("P", covariant=True, default=Any)

Read: TypeAlias = Callable[[AnyStoredEvent], AnyStoredEvent | None]
OnUnreadable: TypeAlias = Literal["raise", "keep", "skip"]


class _EventType(Struct, frozen=True):
    """One class among the types of a store."""

    payload_type: type[Any]
    declaration: Declaration
    codec: PayloadCodec
    written_as: str
    written: int
    encrypted: frozenset[str]

    def made(self, payload: Any, version: int, *, is_own: bool) -> Any:
        """Bring the JSON of a payload up to date, and make an object of it.

        Args:
            payload: The payload.
            version: Its version.
            is_own: Whether it may be changed.
        """
        if version < self.declaration.version and not is_own:
            payload = _copy(payload)
        for step in range(version, self.declaration.version):
            payload = self.declaration.upcast[step](payload)
            if payload is None:
                raise SerialisationError(f"upcast[{step}] returned None: return the payload")
        return self.codec.from_json(payload)

    def to_be_written(self, payload: Any) -> Any:
        """Turn the JSON of a payload, which is not changed itself, into that of the version that is published."""
        self._check_encrypted(payload)
        if self.written < self.declaration.version:
            payload = _copy(payload)
        for step in range(self.declaration.version, self.written, -1):
            hidden = self.encrypted & payload.keys() if is_dict(payload) else self.encrypted
            payload = self.declaration.downcast[step](payload)
            if payload is None:
                raise SerialisationError(f"downcast[{step}] returned None: return the payload")
            if hidden - set(payload):
                raise SerialisationError(
                    f"downcast[{step}] removes or renames {sorted(hidden - set(payload))}, which would be stored without "
                    "being encrypted: keep the names of encrypted fields"
                )
        return payload

    def _check_encrypted(self, payload: Any) -> None:
        """Refuse JSON in which a field that is to be encrypted may be called otherwise; some classes leave fields out."""
        missing = self.encrypted - payload.keys() if is_dict(payload) else self.encrypted
        leaves_out = issubclass(self.payload_type, Struct) or is_typeddict(self.payload_type)
        if missing and not (is_dict(payload) and leaves_out):
            raise SerialisationError(f"it has no member {min(missing)!r}, which is to be encrypted")


class EventTypes(Generic[P]):
    """The types of the events of a store, for `EventStore(..., types=...)`.

    With it, objects of these classes are published as they are, and reads return events whose payloads are objects of
    them, whatever version is stored. What is stored is JSON as before, readable by stores without types.

    Args:
        classes: Classes decorated with `event`, each of another name.
        write: The versions to publish for a while instead of the newest, by name: during a deployment, processes with the
            old code cannot read the new version yet. The classes need a `downcast` for each step back. An alias instead
            of the name: publish under that name.
        unknown: What reads do with an event of a name or a version that none of the classes has: raise an
            UnknownEventTypeError, keep its payload as JSON, or skip it. Unless they raise, events of other names may
            also be published.
        invalid: What reads do with an event whose payload does not fit its class, cannot be brought up to date, or cannot
            be decrypted: the same, with an InvalidPayloadError or a PayloadKeyError.
        pipeline: What changes payloads on their way into the store, in this order, and back: `Encryption`, `Compression`,
            or your own.

    Raises:
        ConfigurationError: If a class is not decorated, cannot be converted, or is given twice; if two have the same name;
            if `write` names a version that cannot be written; or if the pipeline does not fit the classes.
    """

    def __init__(
        self,
        *classes: type[P],
        write: Mapping[str, int] | None = None,
        unknown: OnUnreadable = "raise",
        invalid: OnUnreadable = "raise",
        pipeline: Sequence[PayloadTransform] = (),
    ) -> None:
        self.unknown: OnUnreadable = _checked_policy("unknown", unknown)
        self.invalid: OnUnreadable = _checked_policy("invalid", invalid)
        self._pipeline = _checked_pipeline(pipeline)
        self._by_class: dict[type, _EventType] = {}
        self._by_name: dict[str, _EventType] = {}
        written = dict(write or {})
        for payload_type in classes:
            self._add(payload_type, written)
        self.read: Read = self._reader(from_text=False)
        """Turns an event whose payload is JSON, as it is stored, into a typed one, or into None if it is to be skipped.

        Raises an UnreadableEventError if the event is to be neither kept nor skipped.
        """
        self.read_text: Read = self._reader(from_text=True)
        """The same for an event whose payload is JSON text, and that nobody else has: it is changed."""
        if wrong := sorted(written.keys() - self._by_name.keys()):
            raise ConfigurationError(f"write names {wrong}, but none of the event types has that name")

    @property
    def skips(self) -> bool:
        """Whether reads may leave events out."""
        return "skip" in (self.unknown, self.invalid)

    @property
    def classes(self) -> Sequence[type[Any]]:
        """The classes, in the order of the names of their events."""
        return [self._by_class[kind].payload_type for kind in sorted(self._by_class, key=self.name_of)]

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return for each name of an event what other code has to know to read its payloads, the JSON schema above all."""
        return {
            each.declaration.name: {
                "version": each.declaration.version,
                "aliases": sorted(each.declaration.aliases),
                "encrypted": sorted(each.encrypted),
                "schema": each.codec.schema(),
            }
            for each in map(self._by_class.__getitem__, self.classes)
        }

    def versions(self, names: Callable[[str], bool]) -> str:
        """Return the versions of the types that a reader knows, as text: what it makes of events may change with it.

        Args:
            names: Tells whether the reader handles events of a name.
        """
        known = (each.declaration for each in self._by_class.values())
        return ",".join(sorted(f"{each.name}={each.version}" for each in known if any(map(names, each.names))))

    def all_names(self, names: Iterable[str]) -> frozenset[str]:
        """Return names of events with all other names of the same types."""
        found = set(names)
        for name in names:
            if (known := self._by_name.get(name)) is not None:
                found.update(known.declaration.names)
        return frozenset(found)

    def with_all_names(self, query: EventQuery) -> EventQuery:
        """Return a query for the events that are stored under any name of the types that it names."""
        return EventQuery(
            QueryItem(names=self.all_names(item.names), tags=item.tags) if item.names else item for item in query.items
        )

    @property
    def known_names(self) -> frozenset[str]:
        """All names of the types."""
        return frozenset(self._by_name)

    def name_of(self, payload_type: type) -> str:
        """Return the name of the events of a class, whatever name they are published under."""
        return self._by_class[payload_type].declaration.name

    def tags_of(self, event: AnyStoredEvent) -> frozenset[str]:
        """Return the tags that the type of an event that was read declares; none if it is unknown, or declares none.

        Raises:
            SerialisationError: If they are no tags.
        """
        declaration = self._declaration_of(event.name, event.payload)
        return (
            NO_TAGS
            if declaration is None or declaration.tags is None
            else checked_tags(declaration.tags(event.payload))
        )

    def stream_of(self, given: object) -> StreamIdentifier:
        """Return the stream that the type of an event to publish declares.

        Args:
            given: An object of one of the classes, or a NewEvent with one as its payload.

        Raises:
            ConfigurationError: If its type is unknown, or declares no stream.
            SerialisationError: If the category or the name cannot be stored.
        """
        name: object = ""
        payload: object = given
        if isinstance(given, NewEvent):
            new: AnyNewEvent = given  # pyright: ignore[reportUnknownVariableType]
            name, payload = new.name, new.payload
        declaration = self._declaration_of(name, payload)
        if declaration is None or declaration.stream is None:
            what = type(payload).__name__ if declaration is None else f"the event {declaration.name!r}"
            raise ConfigurationError(
                f"{what} does not say which stream it belongs to: publish to a stream, or declare it, as in "
                '@event("order-placed", stream=lambda placed: ("orders", placed.order_id))'
            )
        declared_stream: Any = declaration.stream(payload)
        match declared_stream:
            case StreamIdentifier():
                return declared_stream
            case (category, stream):
                return StreamIdentifier(category, stream)
            case _:
                raise ConfigurationError(
                    f"stream of the event {declaration.name!r} returns a StreamIdentifier, or a category and a name; got "
                    f"{type(declared_stream).__name__}"
                )

    def _declaration_of(self, name: object, payload: object) -> Declaration | None:
        """Return what is said of the class of a payload; that of a TypedDict is found by the name of the event."""
        known = self._by_class.get(type(payload))
        if known is None:
            known = self._by_name.get(serialise_to_string(name))
            if known is not None and not is_typeddict(known.payload_type):
                return None
        return None if known is None else known.declaration

    def new_event(self, given: object) -> AnyNewEvent:
        """Return an event as it is to be stored: with JSON as its payload.

        Args:
            given: A NewEvent, or an object of one of the classes.

        Raises:
            ConfigurationError: If it is neither, its name and its payload do not belong together, or its name is unknown.
            SerialisationError: If the payload cannot be converted, or does not fit the type of this name.
        """
        if not isinstance(given, NewEvent):
            known = self._by_class.get(type(given))
            if known is None:
                raise ConfigurationError(
                    f"events to publish are NewEvents or objects of the store's event types; got {type(given).__name__}: "
                    "give the store types=EventTypes(...) with its class, decorated with @event"
                )
            return self._encoded(NewEvent(name=known.written_as, payload=given), known, given)
        new: AnyNewEvent = given  # pyright: ignore[reportUnknownVariableType]
        payload: object = new.payload
        name = serialise_to_string(new.name)
        known = self._by_class.get(type(payload))
        if known is None:
            return self._of_plain_payload(new, self._by_name.get(name), name)
        if name not in known.declaration.names:
            raise ConfigurationError(
                f"{type(payload).__name__} is the payload of {known.declaration.name!r} events, not of {name!r}"
            )
        return self._encoded(new, known, payload)

    def _reader(self, *, from_text: bool) -> Read:
        made: dict[tuple[object, int], tuple[str, Cast]] = {}
        if not self._pipeline:
            for name, known in self._by_name.items():
                make = known.codec.from_text if from_text else known.codec.from_json
                made[name, known.declaration.version] = known.declaration.name, make
        slowly = self._read_text if from_text else self._read

        def read(stored: AnyStoredEvent) -> AnyStoredEvent | None:
            try:
                name, make = made[stored.name, stored.version]
                payload = make(stored.payload)
            except Exception:  # noqa: BLE001 - of an unknown type, or whatever a class raises: told apart there
                return slowly(stored)
            if not from_text:
                return with_payload(stored, name, payload)
            # Made for this read alone; a second event for each would double the work of the garbage collector.
            force_setattr(stored, "payload", payload)
            if stored.name != name:
                force_setattr(stored, "name", name)
            return stored

        return read

    def all_read(self, events: Iterable[AnyStoredEvent]) -> list[AnyStoredEvent]:
        """Return events as they are read, without those that are skipped."""
        return [event for event in map(self.read, events) if event is not None]

    def _add(self, payload_type: type[Any], written: dict[str, int]) -> None:
        declaration = declared(payload_type)
        if declaration is None:
            raise ConfigurationError(
                f"{getattr(payload_type, '__name__', payload_type)!s} is not an event type: decorate it with "
                '@event("its-name")'
            )
        if payload_type in self._by_class:
            raise ConfigurationError(f"{payload_type.__name__} was given twice: leave one out")
        written_as = next((name for name in declaration.names if name in written), declaration.name)
        known = _EventType(
            payload_type,
            declaration,
            codec_of(payload_type),
            written_as,
            _checked_written(declaration, written.get(written_as, declaration.version)),
            _encrypted_names(payload_type, declaration),
        )
        if known.encrypted and not any(each.encrypts for each in self._pipeline):
            raise ConfigurationError(
                f"the event {declaration.name!r} has encrypted fields, which would be stored as they are: give EventTypes "
                "pipeline=[Encryption(...)]"
            )
        for name in declaration.names:
            other = self._by_name.setdefault(name, known)
            if other is not known:
                raise ConfigurationError(
                    f"{other.payload_type.__name__} and {payload_type.__name__} are both called {name!r}: rename one of them"
                )
        self._by_class[payload_type] = known

    def _of_plain_payload(self, given: AnyNewEvent, known: _EventType | None, name: str) -> AnyNewEvent:
        """Check an event whose payload is not an object of one of the classes; that of a TypedDict never is."""
        if known is None:
            if self.unknown == "raise":
                raise ConfigurationError(
                    f"the event name {name!r} is not among the store's event types, so its events could not be read: add "
                    'its type, or use EventTypes(..., unknown="keep")'
                )
            if not self._pipeline:
                return given
            payload = to_json(given.payload, label=f"payload of event {name!r}", exact_floats=False)
            return _stored_as(given, self._transformed(given, payload, frozenset()), given.tags, given.version)
        declaration = known.declaration
        if given.version not in (1, declaration.version):
            raise ConfigurationError(
                f"the event {name!r} has version {given.version}, but its type is of version {declaration.version}: leave "
                "the version out; to store old events, use a store without types"
            )
        return self._encoded(given, known, given.payload)

    def _encoded(self, given: AnyNewEvent, known: _EventType, payload: Any) -> AnyNewEvent:
        declaration, codec = known.declaration, known.codec
        label = f"payload of event {declaration.name!r}"
        is_object = type(payload) is known.payload_type
        try:
            stored = codec.encode(payload) if is_object or is_typeddict(known.payload_type) else payload
            made = payload
            if not is_object or self._pipeline or known.written != declaration.version:
                stored = to_json(stored, label=label, exact_floats=False)
                if not is_object:
                    made = codec.from_json(stored)
                stored = self._transformed(given, known.to_be_written(stored), known.encrypted)
            tags = given.tags
            if declaration.tags is not None:
                tags = tags.union(checked_tags(declaration.tags(made)))
        except ConfigurationError:
            raise
        except Exception as error:
            if isinstance(error, SerialisationError) and error.message.startswith(label):
                raise
            raise SerialisationError(f"{label} cannot be stored: {invalid_reason(error)}") from harmless(error)
        return _stored_as(given, stored, tags, known.written)

    def _transformed(self, given: AnyNewEvent, payload: Any, encrypted: frozenset[str]) -> Any:
        if self._pipeline:
            context = PayloadContext(given.id, serialise_to_string(given.name), encrypted)
            for transform in self._pipeline:
                payload = transform.store(payload, context)
        return payload

    def _read_text(self, stored: AnyStoredEvent) -> AnyStoredEvent | None:
        try:
            payload = decode_json(stored.payload)
        except SerialisationError as error:
            return self._unfit(stored, error)
        return self._read(with_payload(stored, stored.name, payload), is_own=True)

    def _read(self, stored: AnyStoredEvent, *, is_own: bool = False) -> AnyStoredEvent | None:
        """Read an event for which there is no shorter way.

        Args:
            stored: The event.
            is_own: Whether nobody else has its payload.
        """
        payload: Any = stored.payload
        try:
            if self._pipeline:
                context = PayloadContext(stored.id, stored.name)
                for transform in reversed(self._pipeline):
                    payload = transform.restore(payload, context)
        except Exception as error:  # noqa: BLE001 - whatever a transformation of the application raises
            return self._unfit(stored, error)
        plain = stored if payload is stored.payload else with_payload(stored, stored.name, payload)
        known = self._by_name.get(serialise_to_string(stored.name))
        if known is None or stored.version > known.declaration.version:
            if self.unknown == "raise":
                raise _unknown(stored, known)
            return plain if self.unknown == "keep" else None
        try:
            # What is kept is kept as it is stored, whatever an upcast has done to it.
            made = known.made(payload, stored.version, is_own=is_own and self.invalid != "keep")
        except Exception as error:  # noqa: BLE001 - whatever the class, or an upcast, raises
            return self._unfit(plain, error)
        return with_payload(stored, known.declaration.name, made)

    def _unfit(self, stored: AnyStoredEvent, error: Exception) -> AnyStoredEvent | None:
        if self.invalid == "raise":
            raise _invalid(stored, error) from harmless(error)
        return stored if self.invalid == "keep" else None


def _copy(payload: Any) -> Any:
    return decode_json(encode_json(payload))


def _stored_as(given: AnyNewEvent, payload: Any, tags: frozenset[str], version: int) -> AnyNewEvent:
    return NewEvent(
        id=given.id,
        name=given.name,
        payload=payload,
        metadata=given.metadata,
        observed_at=given.observed_at,
        occurred_at=given.occurred_at,
        tags=tags,
        version=version,
    )


def checked_types(types: object) -> Any:
    """Return the event types of a store.

    Raises:
        ConfigurationError: If they are something else.
    """
    if types is None or isinstance(types, EventTypes):
        return cast("Any", types)
    raise ConfigurationError(f"types are EventTypes, as in types=EventTypes(OrderPlaced); got {types!r:.60}")


def with_payload(event: AnyStoredEvent, name: object, payload: object) -> AnyStoredEvent:
    """Return a stored event with another name and payload."""
    # Not `replace`, which takes several times as long.
    return StoredEvent(
        event.id,
        name,
        event.stream,
        event.category,
        event.position,
        event.sequence_number,
        payload,
        event.metadata,
        event.observed_at,
        event.occurred_at,
        event.tags,
        event.version,
    )


def _unknown(stored: AnyStoredEvent, known: _EventType | None) -> UnreadableEventError:
    if known is None:
        reason = "its name is not among the store's event types: add its type, or an alias to the type that it has now"
    else:
        reason = (
            f"{known.payload_type.__name__} is of version {known.declaration.version}: deploy the code that reads version "
            f"{stored.version} everywhere before it is published; see EventTypes(..., write=...)"
        )
    return _unreadable(UnknownEventTypeError, stored, f'{reason}; or use EventTypes(..., unknown="keep")')


def _invalid(stored: AnyStoredEvent, error: Exception) -> UnreadableEventError:
    if isinstance(error, LostKeyError):
        return _unreadable(PayloadKeyError, stored, str(error))
    return _unreadable(InvalidPayloadError, stored, f"its payload does not fit its type: {invalid_reason(error)}")


def _unreadable(kind: type[UnreadableEventError], stored: AnyStoredEvent, reason: str) -> UnreadableEventError:
    place = f"at position {stored.position} of stream {f'{stored.category}/{stored.stream}'!r}"
    return kind(
        f"event {stored.sequence_number}, {stored.name!r} in version {stored.version}, {place}, cannot be read: {reason}",
        sequence_number=stored.sequence_number,
        position=stored.position,
        stream=StreamIdentifier(stored.category, stored.stream),
        name=serialise_to_string(stored.name),
        version=stored.version,
    )


def _checked_written(declaration: Declaration, written: object) -> int:
    version = checked_version(declaration.name, written)
    missing = [step for step in range(version + 1, declaration.version + 1) if step not in declaration.downcast]
    if version > declaration.version or missing:
        problem = (
            f"has no downcast from version {missing[-1]}: add it to @event({declaration.name!r}, downcast={{...}})"
            if missing
            else f"is of version {declaration.version}"
        )
        raise ConfigurationError(f"version {version} of {declaration.name!r} cannot be published: its type {problem}")
    return version


def _checked_policy(option: str, policy: object) -> OnUnreadable:
    for known in get_args(OnUnreadable):
        if policy == known:
            return known  # type: ignore[no-any-return]
    raise ConfigurationError(f'{option} is "raise", "keep" or "skip"; got {policy!r}')


def _checked_pipeline(pipeline: Sequence[PayloadTransform]) -> Sequence[PayloadTransform]:
    for before, transform in zip([None, *pipeline], pipeline, strict=False):
        given: object = transform
        if not isinstance(given, PayloadTransform):
            raise ConfigurationError(
                f"the pipeline holds PayloadTransforms, such as Compression(); got {type(given).__name__}"
            )
        if given.needs_plain_fields and before is not None and not before.needs_plain_fields:
            raise ConfigurationError(
                f"{type(given).__name__} has to come before {type(before).__name__} in the pipeline: it looks at the "
                "fields of payloads, which may be gone after that"
            )
    return tuple(pipeline)


def _encrypted_names(payload_type: type[Any], declaration: Declaration) -> frozenset[str]:
    """Return the encrypted fields by their names in JSON."""
    names = field_names(payload_type)
    if names is None:
        return declaration.encrypted
    if wrong := sorted(declaration.encrypted - names.keys()):
        raise ConfigurationError(
            f"{payload_type.__name__} has no field {wrong[0]!r} that could be encrypted; it has {', '.join(names)}"
        )
    return frozenset(names[name] for name in declaration.encrypted)
