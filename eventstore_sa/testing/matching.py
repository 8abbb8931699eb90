"""Matchers: what a test expects of an event, and how it differs from an event that there is.

A matcher compares names, payloads and metadata, and categories and streams if they are given; never ids, numbers and times.
New, staged and stored events are matched alike, by what is stored of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, NewEvent, StoredEvent, serialise_to_string, to_json
from eventstore_sa.types.event_declaration import declared
from eventstore_sa.types.payload_codecs import codec_of

__all__ = ["EventMatcher", "ExpectedEvent", "described", "json_text", "matcher_of", "matching"]

_ANYTHING: Final[Any] = object()


class EventMatcher:  # noqa: PLW1641 - equal to many events, so no hash suits it
    """Compares equal to every event that it matches; made by `matching`.

    Args:
        name: The name of the event, or the class of its payload if that is decorated with `event`.
        payload: What the payload has to contain; by default anything.
        metadata: What the metadata has to contain; by default anything.
        category: The category of the event's stream; None: any.
        stream: The name of the event's stream; None: any.
        exactly: Whether payload and metadata may contain nothing else.
    """

    def __init__(
        self,
        name: object,
        *,
        payload: object = _ANYTHING,
        metadata: object = _ANYTHING,
        category: str | None = None,
        stream: str | None = None,
        exactly: bool = False,
    ) -> None:
        declaration = declared(name)
        self._name = serialise_to_string(name) if declaration is None else declaration.name
        self._parts = {
            part: value for part, value in (("payload", payload), ("metadata", metadata)) if value is not _ANYTHING
        }
        self._place = {part: value for part, value in (("category", category), ("stream", stream)) if value is not None}
        self._exactly = exactly

    def __eq__(self, other: object) -> bool:
        if isinstance(other, EventMatcher) or not hasattr(other, "name"):
            return NotImplemented
        return not self.differences(other)

    def __repr__(self) -> str:
        parts = [repr(self._name), *(f"{part}={value!r}" for part, value in (self._parts | self._place).items())]
        return f"{'exactly' if self._exactly else 'matching'}({', '.join(parts)})"

    def differences(self, event: Any) -> list[str]:
        """Return how an event differs from what is expected, a sentence for each part; empty if it matches."""
        found: list[str] = []
        name = serialise_to_string(event.name)
        if name != self._name:
            found.append(f"the name is {name!r}, expected {self._name!r}")
        for part, place in self._place.items():
            if getattr(event, part, None) != place:
                found.append(f"the {part} is {getattr(event, part, None)!r}, expected {place!r}")
        for part, expected in self._parts.items():
            found += _differences(expected, getattr(event, part), part, exactly=self._exactly)
        return found


ExpectedEvent: TypeAlias = str | EventMatcher | AnyNewEvent | AnyStoredEvent | object
"""What a test expects: the name of an event, a matcher, an event with the same name, payload and metadata, or an object of a
class that is decorated with `event`, which is the payload."""


def matching(
    name: object,
    *,
    payload: object = _ANYTHING,
    metadata: object = _ANYTHING,
    category: str | None = None,
    stream: str | None = None,
) -> EventMatcher:
    """Return a matcher for events with this name whose payload and metadata contain what is given.

    Objects contain the given members, and may have others, at any depth. Lists have the given items and no others. Every
    other value is compared with `==`, so `unittest.mock.ANY` and `pytest.approx(...)` can be used anywhere.

    Args:
        name: The name of the event, or the class of its payload if that is decorated with `event`.
        payload: What the payload has to contain; by default anything.
        metadata: What the metadata has to contain; by default anything.
        category: The category of the event's stream; None: any.
        stream: The name of the event's stream; None: any.

    Returns:
        The matcher. It is equal to every event that it matches: `assert events == [matching("order-placed")]`.
    """
    return EventMatcher(name, payload=payload, metadata=metadata, category=category, stream=stream)


def matcher_of(expected: ExpectedEvent) -> EventMatcher:
    """Return the matcher of an expectation.

    Raises:
        ConfigurationError: If it is not an expectation.
    """
    match expected:
        case EventMatcher():
            return expected
        case str():
            return EventMatcher(expected)
        case NewEvent() | StoredEvent():
            event = cast("AnyNewEvent | AnyStoredEvent", expected)  # type: ignore[redundant-cast] # for pyright
            return EventMatcher(event.name, payload=event.payload, metadata=event.metadata, exactly=True)
        case _:
            declaration = declared(type(expected))
            if declaration is None:
                raise ConfigurationError(
                    "an expected event is a name, matching(...), a NewEvent, a StoredEvent or an object of an event type; "
                    f"got {type(expected).__name__}"
                )
            return EventMatcher(declaration.name, payload=expected, exactly=True)


def described(events: Iterable[Any]) -> str:
    """Return events as numbered lines: their names, streams, payloads and metadata."""
    lines: list[str] = []
    for number, event in enumerate(events, start=1):
        category, stream = getattr(event, "category", None), getattr(event, "stream", None)
        place = "" if category is None else f" in {category}/{stream}"
        metadata = "" if event.metadata is None else f" metadata {json_text(event.metadata)}"
        lines.append(f"  {number}. {serialise_to_string(event.name)}{place}: {json_text(event.payload)}{metadata}")
    return "\n".join(lines) or "  none"


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return any value as JSON, with its representation for whatever has no JSON."""
    return json.dumps(_plain(value), indent=indent, sort_keys=True, ensure_ascii=False, default=repr)


def _differences(expected: Any, actual: Any, path: str, *, exactly: bool) -> list[str]:
    wanted, found = expected, _stored(actual)
    if not _is_object(expected) and not _is_array(expected):
        if expected in (actual, found):
            return []
        # An object of the caller's is compared by what is stored of it.
        wanted = _stored(expected)
    if _is_object(wanted) and _is_object(found):
        return _of_members(wanted, found, path, exactly=exactly)
    if _is_array(wanted) and _is_array(found) and len(wanted) == len(found):
        items = enumerate(zip(wanted, found, strict=True))
        return [
            difference
            for index, pair in items
            for difference in _differences(*pair, f"{path}[{index}]", exactly=exactly)
        ]
    return [] if wanted == found else [f"{path} is {json_text(actual)}, expected {_expected_text(wanted)}"]


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_array(value: object) -> bool:
    return isinstance(value, list | tuple)


def _of_members(expected: Mapping[Any, Any], actual: Mapping[Any, Any], path: str, *, exactly: bool) -> list[str]:
    found: list[str] = []
    for key, value in expected.items():
        if key in actual:
            found += _differences(value, actual[key], f"{path}.{key}", exactly=exactly)
        else:
            found.append(f"{path}.{key} is missing, expected {_expected_text(value)}")
    if exactly:
        found += [f"{path}.{key} is {json_text(actual[key])}, expected none" for key in actual if key not in expected]
    return found


def _stored(value: object) -> Any:
    """Return what is stored of a value, or the value itself if it cannot be stored."""
    try:
        if declared(type(value)) is not None:
            return codec_of(type(value)).encode(value)
        return to_json(value, exact_floats=False)
    except SerialisationError:
        return value


def _expected_text(value: object) -> str:
    try:
        return json.dumps(_stored(value), sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _plain(value: object) -> object:
    """Return a value as what JSON has, as far as it has it."""
    stored = _stored(value)
    if isinstance(stored, Mapping):
        members = cast("Mapping[object, object]", stored)
        return {key if isinstance(key, str) else repr(key): _plain(item) for key, item in members.items()}
    if isinstance(stored, list | tuple):
        return [_plain(item) for item in cast("Sequence[object]", stored)]
    return stored
