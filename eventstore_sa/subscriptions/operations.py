"""What can be done to a subscription from outside: wait for it, and replay or discard what it has parked.

Steps, for both faces.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from eventstore_sa.contracts.subscriptions import ParkedEvent, ParkedState, PartitionState, SubscriptionStorage
from eventstore_sa.errors import ConfigurationError, SubscriptionError, WaitTimeoutError
from eventstore_sa.steps import Pause, Steps
from eventstore_sa.subscriptions.faces import Face
from eventstore_sa.subscriptions.failures import HandlerFailed, described
from eventstore_sa.subscriptions.partition import Work, as_failure
from eventstore_sa.types import AnyStoredEvent, StoredEvent, StreamIdentifier, partition_of

__all__ = ["replay", "unknown", "wait_for"]

_FIRST_PAUSE_S: Final = 0.002
_LONGEST_PAUSE_S: Final = 0.1


def wait_for(
    face: Face, storage: SubscriptionStorage, name: str, event: AnyStoredEvent, timeout_s: float | None
) -> Steps[None]:
    """Wait until a subscription has come to an event.

    Raises:
        WaitTimeoutError: If it has not in time.
        SubscriptionError: If it has parked or skipped the event, is stopped before it, or does not exist.
        ConfigurationError: If this is not a stored event.
    """
    given: object = event
    if not isinstance(given, StoredEvent):
        raise ConfigurationError(f"wait_for takes a StoredEvent, as publishes return it; got {type(given).__name__}")
    until = None if timeout_s is None else time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    number = event.sequence_number
    while True:
        survey = yield partial(face.run, storage.survey, [name])
        records = survey.partitions
        if not records:
            raise unknown(name)
        record = records[partition_of(event.category, event.stream, len(records))]
        if record.sequence_number >= number:
            parked = yield partial(face.run, storage.find_parked, name, number)
            if parked is not None:
                raise _not_handled(parked)
            return
        if record.state is not PartitionState.RUNNING:
            raise SubscriptionError(
                f"subscription {name!r} is {record.state} at {record.sequence_number}, before event {number}"
                + (f", because of an error ({record.last_error})" if record.last_error else "")
                + ": resume it",
                subscription=name,
            )
        left_s = pause_s if until is None else until - time.monotonic()
        if left_s <= 0:
            held_by = (
                f"held by {record.owner_name}" if record.owner_name else "not held by any node: is it run anywhere?"
            )
            raise WaitTimeoutError(
                f"subscription {name!r} did not come to event {number} within {timeout_s} s: it is at "
                f"{record.sequence_number}, {held_by}"
            )
        yield Pause(min(pause_s, left_s))
        pause_s = min(pause_s * 1.3, _LONGEST_PAUSE_S)


def _not_handled(event: ParkedEvent) -> SubscriptionError:
    because = f": {event.error}" if event.error else ""
    what = {
        ParkedState.PARKED: "is parked",
        ParkedState.HELD: "is held back behind a parked event of its stream",
        ParkedState.SKIPPED: "was skipped",
    }[event.state]
    return SubscriptionError(
        f"subscription {event.subscription!r} has not handled event {event.sequence_number}, which {what}{because}",
        subscription=event.subscription,
    )


def unknown(name: str) -> SubscriptionError:
    """Return the error for a subscription that is not stored."""
    return SubscriptionError(
        f"there is no subscription {name!r} in this store: it is stored when it is first run", subscription=name
    )


def replay(face: Face, storage: SubscriptionStorage, work: Work, stream: StreamIdentifier | None) -> Steps[int]:
    """Handle parked events again, each stream up to its end or its first event that fails; return how many were handled.

    The row of the stream is locked while an event of it is handled in a session, so nothing overtakes it.
    """
    handled = 0
    streams = [stream] if stream is not None else (yield from _parked_streams(face, storage, work.name))
    for each in streams:
        while (yield from _replay_first(face, storage, work, each)):
            handled += 1
    return handled


def _parked_streams(face: Face, storage: SubscriptionStorage, name: str) -> Steps[list[StreamIdentifier]]:
    streams: dict[StreamIdentifier, None] = {}
    after = 0
    while page := (yield partial(face.run, storage.parked_events, name, after=after)):
        streams.update((event.stream, None) for event in page if event.state is not ParkedState.SKIPPED)
        after = page[-1].sequence_number
    return list(streams)


def _replay_first(face: Face, storage: SubscriptionStorage, work: Work, stream: StreamIdentifier) -> Steps[bool]:
    """Handle the first parked event of a stream; return False if there is none, or it has failed."""
    parked: ParkedEvent | None = yield partial(face.run, storage.first_parked, None, work.name, stream)
    if parked is None:
        return False
    event: AnyStoredEvent | None = yield partial(face.run, storage.find_event, parked)
    events = [] if event is None else [event]
    try:
        if work.sessions is None:
            yield from _handle(face, work, events, None)
            yield partial(face.run, storage.discard, None, parked)
        else:
            yield from _replay_in(work.sessions(), face, storage, work, events=events, parked=parked)
    except HandlerFailed as failure:
        yield partial(face.run, storage.failed_again, parked, described(failure.error))
        return False
    return True


def _replay_in(
    session: Any,
    face: Face,
    storage: SubscriptionStorage,
    work: Work,
    *,
    events: Sequence[AnyStoredEvent],
    parked: ParkedEvent,
) -> Steps[None]:
    try:
        locked = yield partial(face.in_session, session, storage.first_parked, work.name, parked.stream)
        if locked is None or locked.sequence_number != parked.sequence_number:
            # Somebody else was faster.
            return
        yield from _handle(face, work, events, session)
        with as_failure():
            yield session.flush
        yield partial(face.in_session, session, storage.discard, parked)
        with as_failure():
            yield session.commit
    finally:
        yield session.close


def _handle(face: Face, work: Work, events: Sequence[AnyStoredEvent], session: Any) -> Steps[None]:
    if events:
        yield partial(
            face.handle, work.handling, events, session, deadline_s=work.deadline_s, may_continue=lambda: True
        )
