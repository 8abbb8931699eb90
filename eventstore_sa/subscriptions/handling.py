"""What a subscription calls for events: functions, projectors and table projections, all of them as one kind of call.

`Handling` says how; the two `handle` functions call it, with asyncio and without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from inspect import Parameter, isawaitable, iscoroutinefunction, signature
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection import ProjectionStore, Projector, SyncProjectionStore, TableProjection
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions.failures import HandlerFailed
from eventstore_sa.types import AnyStoredEvent
from eventstore_sa.types.event_types import Read

__all__ = ["Handling", "handle", "handle_sync", "handling"]

_POSITIONAL: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Handling(Struct, frozen=True):
    """How events are handled.

    Attributes:
        call: Takes an event, or a list of events, and a session or None.
        per_batch: Whether it takes a list.
        needs_session: Whether it cannot do without a session.
        projection: The name of the stored projections that it updates.
        spans_streams: Whether events of several streams have to come in one order.
        read: Makes typed events of stored ones, or None of those that are skipped; None: handlers get them as stored.
    """

    call: Callable[[Any, Any], Any]
    per_batch: bool
    needs_session: bool = False
    projection: str | None = None
    spans_streams: bool = False
    read: Read | None = None

    def given(self, event: AnyStoredEvent) -> AnyStoredEvent | None:
        """Return an event as the handler gets it; None if it does not.

        Raises:
            HandlerFailed: If it cannot be read as its type.
        """
        if self.read is None:
            return event
        try:
            return self.read(event)
        except Exception as error:
            raise HandlerFailed(error, 0) from error

    def batch(self, events: Sequence[AnyStoredEvent]) -> tuple[list[AnyStoredEvent], int]:
        """Return what the handler gets of events up to the first that cannot be read, and how many these are.

        Raises:
            HandlerFailed: If the very first cannot be read.
        """
        given: list[AnyStoredEvent] = []
        for index, event in enumerate(events):
            try:
                read = self.given(event)
            except HandlerFailed:
                if index:
                    return given, index
                raise
            if read is not None:
                given.append(read)
        return given, len(events)

    def shown(self, event: AnyStoredEvent) -> AnyStoredEvent:
        """Return an event as the handler gets it, or as it is stored if it cannot be read."""
        try:
            return self.given(event) or event
        except HandlerFailed:
            return event


def handling(handler: object, store: EventStore | SyncEventStore, *, per_batch: bool, asynchronous: bool) -> Handling:
    """Return how a handler is called.

    Args:
        handler: What users give.
        store: The store of the events: with its types they are read, and its projections are kept beside them.
        per_batch: Whether a function takes a list of events.
        asynchronous: Whether sessions are AsyncSessions.

    Raises:
        ConfigurationError: If it is not a handler.
    """
    how = _handling(handler, store, per_batch=per_batch, asynchronous=asynchronous)
    return how if store.types is None else replace(how, read=store.types.read)


def _handling(handler: object, store: EventStore | SyncEventStore, *, per_batch: bool, asynchronous: bool) -> Handling:
    if isinstance(handler, TableProjection):
        handler.check_inline()
        apply: Any = handler.apply
        if asynchronous:
            return Handling(lambda events, session: session.run_sync(apply, events), per_batch=True, needs_session=True)
        return Handling(lambda events, session: apply(session, events), per_batch=True, needs_session=True)
    given: Any = handler
    if isinstance(handler, Projector):
        return _projecting(given, store)
    if isinstance(handler, type) or not callable(handler):
        raise ConfigurationError(
            f"a handler is a function, a projector or a table projection (an instance, not its class); got {handler!r}"
        )
    if not asynchronous and iscoroutinefunction(handler):
        raise ConfigurationError(
            f"{handler!r} is a coroutine function, which only an event loop can run: use a Subscription, or make it a `def`"
        )
    call: Any = handler
    if _takes_session(handler):
        return Handling(call, per_batch=per_batch, needs_session=True)
    return Handling(lambda given, _: call(given), per_batch=per_batch)


def _projecting(projector: Projector[Any, Any, Any], store: EventStore | SyncEventStore) -> Handling:
    in_memory = store.adapter.subscription_storage().in_memory
    projections: Any = ProjectionStore(store) if isinstance(store, EventStore) else SyncProjectionStore(store)

    def project(events: Sequence[AnyStoredEvent], session: Any) -> Any:
        within = projections if session is None else projections.within(session)
        return within.project(projector, events=events)

    return Handling(
        project,
        per_batch=True,
        # So that a rebuild and the checkpoint agree.
        needs_session=not in_memory,
        projection=projector.name,
        # What comes with a lower number than the last that was applied to a projection is left out.
        spans_streams=not projector.projects_streams,
    )


def _takes_session(handler: Callable[..., Any]) -> bool:
    """Tell whether a function takes a session after what it handles.

    Raises:
        ConfigurationError: If it takes neither one argument nor two.
    """
    parameters = [each for each in signature(handler).parameters.values() if each.kind in _POSITIONAL]
    needed = [each for each in parameters if each.default is Parameter.empty]
    variable = any(each.kind is Parameter.VAR_POSITIONAL for each in signature(handler).parameters.values())
    if len(needed) > 2 or (not parameters and not variable):
        raise ConfigurationError(
            f"{handler!r} cannot be a handler, because it takes {len(needed)} arguments: define it as `handler(event)` or, "
            "for effects in the database, as `handler(event, session)`; with per_batch=True, a list of events is passed "
            "instead of an event"
        )
    return len(needed) == 2


async def handle(
    handling: Handling,
    events: Sequence[AnyStoredEvent],
    session: Any,
    *,
    deadline_s: float,
    may_continue: Callable[[], bool],
) -> int:
    """Handle events in order, as far as it may continue, and up to the first that cannot be read; return how many.

    Raises:
        HandlerFailed: If the handler raised, or took longer than the deadline, or the very first event cannot be read.
    """
    if handling.per_batch:
        batch, count = handling.batch(events)
        if batch:
            await _call(handling.call, batch, session, None, deadline_s)
        return count
    for index, event in enumerate(events):
        if index and not may_continue():
            return index
        try:
            given = handling.given(event)
        except HandlerFailed:
            if index:
                return index
            raise
        if given is not None:
            await _call(handling.call, given, session, index, deadline_s)
    return len(events)


async def _call(
    call: Callable[[Any, Any], Any], given: Any, session: Any, index: int | None, deadline_s: float
) -> None:
    deadline = asyncio.timeout(deadline_s)
    try:
        async with deadline:
            result = call(given, session)
            if isawaitable(result):
                await result
    except TimeoutError as error:
        late = TimeoutError(f"the handler took longer than {deadline_s} s") if deadline.expired() else error
        raise HandlerFailed(late, index) from error
    except Exception as error:
        raise HandlerFailed(error, index) from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Of what the handler has waited for, not of this task, which would end and leave its partition to nobody.
        raise HandlerFailed(_as_exception(error), index) from error


def handle_sync(
    handling: Handling,
    events: Sequence[AnyStoredEvent],
    session: Any,
    *,
    deadline_s: float,  # noqa: ARG001 - as for `handle`
    may_continue: Callable[[], bool],
) -> int:
    """Handle events without asyncio; see `handle`. Nothing here ends a call at its deadline: the node evicts its thread."""
    if handling.per_batch:
        batch, count = handling.batch(events)
        if batch:
            _call_sync(handling.call, batch, session, None)
        return count
    for index, event in enumerate(events):
        if index and not may_continue():
            return index
        try:
            given = handling.given(event)
        except HandlerFailed:
            if index:
                return index
            raise
        if given is not None:
            _call_sync(handling.call, given, session, index)
    return len(events)


def _call_sync(call: Callable[[Any, Any], Any], given: Any, session: Any, index: int | None) -> None:
    try:
        call(given, session)
    except BaseException as error:
        # Whatever it is: in a thread, even SystemExit ends nothing but the thread.
        raise HandlerFailed(_as_exception(error), index) from error


def _as_exception(error: BaseException) -> Exception:
    """Return what failure policies can handle."""
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"the handler has raised {type(error).__name__}, which is not an Exception: {error}")
