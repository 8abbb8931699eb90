"""What `event` says of a class: the name and version that its payloads are stored under, and how old ones are read.

`event_types.py` collects such classes for a store; handlers are found by them too (`projection/annotations.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types.conversion import serialise_to_string
from eventstore_sa.types.identifiers import StreamIdentifier

__all__ = ["Cast", "Declaration", "checked_version", "declared", "event", "names_of"]

Class = TypeVar("Class", bound=type)

Cast: TypeAlias = Callable[[Any], Any]
"""Turns the JSON of a payload into that of another version."""

_MARK: Final = "__eventstore_sa_event__"


class Declaration(Struct, frozen=True):
    """What `event` says of a class; see there."""

    name: str
    version: int
    aliases: tuple[str, ...]
    upcast: Mapping[int, Cast]
    downcast: Mapping[int, Cast]
    encrypted: frozenset[str]
    tags: Callable[[Any], Iterable[str]] | None
    stream: Callable[[Any], StreamIdentifier | tuple[str, str]] | None

    @property
    def names(self) -> tuple[str, ...]:
        """The name, and the names that it had before."""
        return (self.name, *self.aliases)


def event(
    name: str,
    *,
    version: int = 1,
    aliases: Iterable[str] = (),
    upcast: Mapping[int, Cast] | None = None,
    downcast: Mapping[int, Cast] | None = None,
    encrypted: Iterable[str] = (),
    tags: Callable[[Any], Iterable[str]] | None = None,
    stream: Callable[[Any], StreamIdentifier | tuple[str, str]] | None = None,
) -> Callable[[Class], Class]:
    """Make a class the type of the payloads of an event, under a name that does not change with the code.

    The class is a dataclass, an attrs class, a msgspec Struct, a TypedDict or a pydantic model, or it has the methods
    `serialise` and `deserialise`. The decorator stands above the one that makes it a dataclass or attrs class.

    Args:
        name: The name of the event, as it is stored.
        version: The version of the form of its payload: increase it with a change that old or new code cannot read.
        aliases: Names that it had before: events that are stored under one of these are read as events of this type.
        upcast: For each version before this one, a function that turns the JSON of its payload into that of the next
            version: `{1: add_currency}`. It may change what it is given, and returns the result.
        downcast: For versions after the first, a function that turns the JSON of its payload into that of the version
            before: `{2: remove_currency}`; needed only to publish older versions, see `EventTypes`.
        encrypted: The fields that the `Encryption` of the store encrypts.
        tags: Called with the payload; returns the tags of the event.
        stream: Called with the payload; returns the stream that the event belongs to, as a `StreamIdentifier` or as its
            category and its name. For `store.publish(events=[...])`, which need not say where to then.

    Raises:
        ConfigurationError: If an argument is not as described, or an upcast is missing.

    Examples:
        >>> from dataclasses import dataclass
        >>> from eventstore_sa import EventTypes, SyncEventStore, event
        >>> @event("order-placed")
        ... @dataclass(frozen=True)
        ... class OrderPlaced:
        ...     total: int
        >>> with SyncEventStore("sqlite://", types=EventTypes(OrderPlaced)) as store:
        ...     store.create_schema()
        ...     order = store.stream(category="orders", stream="1")
        ...     stored = order.publish(events=[OrderPlaced(total=12)])
        ...     [(event.name, event.payload) for event in order]
        [('order-placed', OrderPlaced(total=12))]
    """
    declaration = Declaration(
        _checked_name(name),
        checked_version(name, version),
        tuple(_checked_name(alias) for alias in _several(name, "aliases", aliases)),
        dict(upcast or {}),
        dict(downcast or {}),
        frozenset(_several(name, "encrypted", encrypted)),
        tags,
        stream,
    )
    _check_chain(declaration)
    for what, function in (("tags", tags), ("stream", stream)):
        if function is not None and not callable(function):
            raise ConfigurationError(f"{what} of the event {name!r} is a function of the payload; got {function!r}")

    def mark(payload_type: Class) -> Class:
        decorated: object = payload_type
        if not isinstance(decorated, type):
            raise ConfigurationError(f"@event({name!r}) decorates a class; got {decorated!r}")
        if _MARK in vars(decorated):
            raise ConfigurationError(
                f"{decorated.__name__} is decorated with @event twice: a class is one type of event"
            )
        setattr(decorated, _MARK, declaration)
        return payload_type

    return mark


def declared(payload_type: object) -> Declaration | None:
    """Return what `event` says of a class; None if it is not decorated itself."""
    return vars(payload_type).get(_MARK) if isinstance(payload_type, type) else None


def names_of(named: object) -> tuple[str, ...]:
    """Return the names of events that something stands for: a name, or a class decorated with `event`."""
    if type(named) is str:
        return (named,)
    declaration = declared(named)
    return (serialise_to_string(named),) if declaration is None else declaration.names


def _checked_name(name: object) -> str:
    if isinstance(name, str) and name:
        return str.__str__(name)
    raise ConfigurationError(f'the name of an event is text, as in @event("order-placed"); got {name!r}')


def checked_version(name: str, version: object) -> int:
    """Return a version of an event.

    Raises:
        ConfigurationError: If it is not an integer from 1.
    """
    if type(version) is int and version >= 1:
        return version
    raise ConfigurationError(f"the version of the event {name!r} is an integer of 1 or more; got {version!r}")


def _several(name: str, what: str, given: Iterable[str]) -> Sequence[str]:
    if isinstance(given, str):
        raise ConfigurationError(
            f"{what} of the event {name!r} are several, even a single one: write {what}=[{given!r}]"
        )
    return tuple(given)


def _check_chain(declaration: Declaration) -> None:
    """Refuse a class that could not read all of its older versions."""
    steps, version = set(range(1, declaration.version)), declaration.version
    missing, needless = sorted(steps - declaration.upcast.keys()), sorted(declaration.upcast.keys() - steps)
    if missing or needless:
        problem = f"has no upcast from version {missing[0]}" if missing else f"has an upcast from version {needless[0]}"
        raise ConfigurationError(
            f"the event {declaration.name!r} of version {version} {problem}: it needs one from each version before, as in "
            f"upcast={{{', '.join(f'{step}: from_{step}' for step in sorted(steps)) or ''}}}"
        )
    if wrong := sorted(declaration.downcast.keys() - set(range(2, version + 1))):
        raise ConfigurationError(
            f"the event {declaration.name!r} of version {version} has a downcast from version {wrong[0]}: one from version "
            "n turns payloads of version n into those of the version before"
        )
    for convert in (*declaration.upcast.values(), *declaration.downcast.values()):
        if not callable(convert):
            raise ConfigurationError(
                f"upcast and downcast of the event {declaration.name!r} hold functions of the payload; got {convert!r}"
            )
