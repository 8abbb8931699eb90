"""`assert_published`: which events a store, a stream or a session holds."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, overload

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources import EventSource, SyncEventSource
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.testing.matching import ExpectedEvent, described, matcher_of

__all__ = ["assert_published"]


@overload
def assert_published(
    source: SyncEventStore | SyncEventSource[Any] | Sequence[Any], *expected: ExpectedEvent, only: bool = False
) -> None: ...
@overload
def assert_published(
    source: EventStore | EventSource[Any], *expected: ExpectedEvent, only: bool = False
) -> Awaitable[None]: ...
def assert_published(
    source: EventStore | EventSource[Any] | SyncEventStore | SyncEventSource[Any] | Sequence[Any],
    *expected: ExpectedEvent,
    only: bool = False,
) -> Awaitable[None] | None:
    """Check that events were published, in this order; other events may have been published before, between and after.

    Args:
        source: A store, a stream, a category, the log, or a sequence of events, such as `staged_in(session)`. With an
            asyncio store or source, the call returns an awaitable.
        expected: Names, `matching(...)`, events, whose names, payloads and metadata are compared, or objects of event types.
        only: Whether no other event may be there. With nothing expected, nothing may have been published.

    Raises:
        AssertionError: If an event is missing or not expected; the message lists the events, and says how those with the
            expected name differ.
        ConfigurationError: If nothing is expected and `only` is not set, or the source has no events.
    """
    __tracebackhide__ = True
    if not expected and not only:
        raise ConfigurationError(
            "assert_published needs events to look for; to check that nothing was published, pass only=True"
        )
    if isinstance(source, EventStore | EventSource):
        return _check_read(source.log() if isinstance(source, EventStore) else source, expected, only=only)
    if isinstance(source, SyncEventStore):
        source = source.log()
    if isinstance(source, SyncEventSource):
        source = source.read()
    checked: object = source
    if not isinstance(checked, Sequence):
        raise ConfigurationError(f"events are in a store, a source or a sequence; got {type(source).__name__}")
    _check(source, expected, only=only)
    return None


async def _check_read(source: EventSource[Any], expected: Sequence[ExpectedEvent], *, only: bool) -> None:
    __tracebackhide__ = True
    _check(await source.read(), expected, only=only)


def _check(events: Sequence[Any], expected: Sequence[ExpectedEvent], *, only: bool) -> None:
    __tracebackhide__ = True
    rest = list(enumerate(events, start=1))
    for matcher in map(matcher_of, expected):
        passed: list[tuple[int, Any]] = []
        while rest and matcher.differences(rest[0][1]):
            passed.append(rest.pop(0))
        if not rest:
            raise AssertionError(_missing(matcher, passed, events))
        if only and passed:
            raise AssertionError(_unexpected(passed, events))
        rest.pop(0)
    if only and rest:
        raise AssertionError(_unexpected(rest, events))


def _missing(matcher: Any, passed: Sequence[tuple[int, Any]], events: Sequence[Any]) -> str:
    after = "" if len(passed) == len(events) else f" after event {len(events) - len(passed)}"
    lines = [f"{matcher!r} was not published{after}"]
    for number, event in sorted(passed, key=lambda each: len(matcher.differences(each[1])))[:3]:
        lines.append(f"  event {number}: {'; '.join(matcher.differences(event))}")
    return "\n".join([*lines, "the events are:", described(events)])


def _unexpected(passed: Sequence[tuple[int, Any]], events: Sequence[Any]) -> str:
    numbers = ", ".join(str(number) for number, _ in passed)
    return f"events that are not expected: {numbers}\nthe events are:\n{described(events)}"
