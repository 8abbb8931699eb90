"""Processing one partition while its lease is held: read, handle, move the checkpoint, and what happens when that fails.

Steps, taken with asyncio or in a thread. What is known of other partitions and nodes is in `node.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from typing import Any, Final, Protocol

from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from eventstore_sa.attempts import Backoff
from eventstore_sa.contracts.subscriptions import Advance, Lease, ParkedState, SubscriptionStorage
from eventstore_sa.errors import ConfigurationError, EventStoreError, UnreadableEventError
from eventstore_sa.sources.constraints import sequence_number_after, sequence_number_before
from eventstore_sa.steps import Step, Steps
from eventstore_sa.subscriptions.faces import Face, Signal
from eventstore_sa.subscriptions.failures import (
    Consequence,
    FailurePolicy,
    HandlerFailed,
    described,
    is_outage,
    traceable,
)
from eventstore_sa.subscriptions.handling import Handling
from eventstore_sa.subscriptions.sources import Sourced
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier

__all__ = ["CANNOT_PARK", "PartitionWorker", "Surroundings", "Work", "as_failure"]

CANNOT_PARK: Final = (
    "subscription {name!r} updates projections of several streams, which need their events in one order, so that none can "
    'be parked: use "stop" or "skip"'
)

_OUTAGE: Final = Backoff(first_s=0.2, longest_s=10.0)
_LOOK_AGAIN_S: Final = 0.25
_MARGIN_S: Final = 1.0

_log = logging.getLogger("eventstore_sa.subscriptions")


class Work(Struct, frozen=True, kw_only=True):
    """What is done with the events of a subscription; see `Subscription`."""

    name: str
    source: Sourced
    handling: Handling
    sessions: Callable[[], Any] | None
    on_failure: FailurePolicy
    batch_size: int
    deadline_s: float
    commit_every_s: float

    @property
    def longest_s(self) -> float:
        """How long a handler may be at work in a transaction."""
        return self.commit_every_s + self.deadline_s + _MARGIN_S

    def consequence(self, error: Exception, event: AnyStoredEvent) -> Consequence:
        """Return what becomes of an event that has failed.

        Raises:
            ConfigurationError: If it cannot be that.
        """
        consequence = self.on_failure.consequence(error, self.handling.shown(event))
        if consequence == "park" and self.handling.spans_streams:
            raise ConfigurationError(CANNOT_PARK.format(name=self.name))
        return consequence


class Surroundings(Protocol):
    """What a partition needs of the node that processes it."""

    face: Face
    storage: SubscriptionStorage
    budget: Any
    rested: Signal | None
    watermark: int
    save_every_s: float

    def may_work(self) -> bool:
        """Tell whether the node is sure that it is alive to the others."""
        ...


class _LeaseLost(Exception):  # noqa: N818 - it never leaves this module
    """Somebody else has the partition, or nobody."""


class PartitionWorker:
    """Processes a partition.

    Args:
        node: Where it runs.
        work: What is done.
        lease: For which partition.

    Attributes:
        lease: The lease, which may be lost without being noticed.
        signal: To be set when there may be something to do.
        busy_since: When the handler was called, by the monotonic clock; None if it is not at work.
    """

    def __init__(self, node: Surroundings, work: Work, lease: Lease) -> None:
        self.lease: Lease = lease
        self.signal: Signal = node.face.signal()
        self.busy_since: float | None = None
        self._node = node
        self._work = work
        self._sessions: Callable[[], Any] = work.sessions or (lambda: None)
        self._ending = False
        self._lost = False
        self._must_renew = False
        self._begin_at(lease)
        self._size = work.batch_size
        self._failing: tuple[int, int] = (0, 0)
        self._saved_at = self._moved_at = time.monotonic()
        self._looked_at = 0.0
        self._rate = 0.0
        self._batch_until = 0.0
        # One item while a connection of the budget is in use; whoever takes it out gives the connection back.
        self._in_use: list[None] = []

    def _begin_at(self, lease: Lease) -> None:
        self.lease = lease
        self._stored = self._reached = lease.sequence_number
        self._has_parked = lease.has_parked

    @property
    def is_overdue(self) -> bool:
        """Whether the handler has been at work for longer than a transaction may take."""
        since = self.busy_since
        return since is not None and time.monotonic() - since > self._work.longest_s

    def end(self) -> None:
        """End after the current event or batch, and give the partition back."""
        self._ending = True
        self.signal.set()

    def lose(self) -> None:
        """End after the current event or batch: the partition is no longer ours."""
        self._lost = True
        self.end()

    def abandon(self) -> None:
        """Lose the partition, and give back what the handler uses of the budget: it may hang for ever."""
        self.lose()
        self._leave_budget()

    def renew(self) -> None:
        """Look at what is stored before the next batch: the log is not what it was."""
        self._must_renew = True
        self.signal.set()

    def steps(self) -> Steps[None]:
        """Process the partition until its lease is lost, or `end` is called."""
        failures = 0
        while not self._ending:
            try:
                if self._must_renew:
                    yield from self._renew()
                yield from self._go_on()
                failures = 0
            except _LeaseLost:
                self._lost = True
                break
            except Exception as error:  # noqa: BLE001 - a partition goes on, whatever happens
                failures += 1
                self._must_renew = True
                # The server may have ended a transaction that took too long.
                self._size = max(1, self._size // 2)
                level = logging.WARNING if is_outage(error) or isinstance(error, EventStoreError) else logging.ERROR
                _log.log(
                    level, "%s cannot be processed now, and is tried again: %s", self, described(error), exc_info=error
                )
                yield from self._pause(_OUTAGE.pause_s(failures))
        yield from self._give_back()
        self._rest()

    def _give_back(self) -> Steps[None]:
        if self._lost:
            _log.info("%s is no longer held by this node", self)
            return
        try:
            if self._reached > self._stored:
                yield from self._save()
            yield from self._stored_call(self._node.storage.release, self.lease)
        except (EventStoreError, SQLAlchemyError, OSError, _LeaseLost) as error:
            _log.warning("%s could not be given back, and waits for its lease to end: %s", self, described(error))

    def _renew(self) -> Steps[None]:
        lease = yield from self._stored_call(self._node.storage.renewed, self.lease)
        if lease is None:
            raise _LeaseLost
        self._begin_at(lease)
        self._must_renew = False

    def _go_on(self) -> Steps[None]:
        if self.lease.is_behind_its_log:
            yield from self._stop(
                EventStoreError(
                    f"the log no longer has the event that the checkpoint {self.lease.sequence_number} remembers: it was "
                    "restored, or numbers are drawn again. Rewind to a number up to which it is the same, and resume"
                )
            )
            return
        end = self._node.watermark
        drain_to = self.lease.drain_to
        if drain_to is not None:
            end = min(end, drain_to)
        if not self._node.may_work():
            yield partial(self.signal.wait, _LOOK_AGAIN_S)
        elif self._reached < end:
            yield from self._batch(end)
        elif drain_to is not None and self._reached >= drain_to:
            self._ending = True
        elif self._reached > self._stored:
            left_s = self._saved_at + self._node.save_every_s - time.monotonic()
            if left_s <= 0:
                yield from self._save()
            else:
                yield partial(self.signal.wait, left_s)
        else:
            self._rest()
            yield partial(self.signal.wait, None)

    def _rest(self) -> None:
        if self._node.rested is not None:
            self._node.rested.set()

    def _batch(self, end: int) -> Steps[None]:
        """Handle the next events up to a number."""
        work = self._work
        bounds = frozenset({sequence_number_after(self._reached), sequence_number_before(end + 1)})
        target, constraints = work.source.part(self.lease.partition, self.lease.partitions)
        try:
            events, more = yield from self._stored_call(
                self._node.storage.page, target, constraints | bounds, self._size
            )
        except UnreadableEventError as error:
            yield from self._stop(error)
            return
        to: int = events[-1].sequence_number if more else end
        if not events:
            self._reached = to
            return
        self._batch_until = time.monotonic() + work.commit_every_s
        handle = self._in_own_transactions if work.sessions is None else self._in_session
        try:
            yield from handle(events, to)
        except HandlerFailed as failure:
            if is_outage(failure.error):
                raise failure.error from failure.error.__cause__
            yield from self._failed(events, failure)
        finally:
            self.busy_since = None

    def _in_session(self, events: Sequence[AnyStoredEvent], to: int) -> Steps[None]:
        """Handle events and move the checkpoint in the transaction of one session: all of it happens, once, or nothing."""
        storage, work = self._node.storage, self._work
        yield from self._enter_budget()
        try:
            session: Any = self._sessions()
            try:
                inside = self._inside(session)
                yield inside(storage.guard, self.lease, longest_s=work.longest_s)
                todo, held = yield from self._split(
                    events, lambda *given: _taken(inside(storage.parked_streams, *given))
                )
                count: int = yield from self._handle(todo, session)
                with as_failure():
                    yield session.flush
                advance, held = self._advance(todo, held, count, to)
                moved = yield inside(storage.advance, self.lease, advance, held)
                if moved is None:
                    raise _LeaseLost
                with as_failure():
                    yield session.commit
            finally:
                yield session.close
        finally:
            self._leave_budget()
        self._moved(moved)

    def _inside(self, session: Any) -> Callable[..., Step]:
        """Return what makes a step of a call of the storage in the transaction of a session."""
        in_session = self._node.face.in_session

        def step(work: Callable[..., Any], *arguments: Any, **options: Any) -> Step:
            return partial(in_session, session, work, *arguments, **options)

        return step

    def _in_own_transactions(self, events: Sequence[AnyStoredEvent], to: int) -> Steps[None]:
        """Handle events, then move the checkpoint: they may be handled again if that fails."""
        storage = self._node.storage
        todo, held = yield from self._split(
            events, lambda *given: self._on_budget(partial(storage.parked_streams, None), *given)
        )
        failure: HandlerFailed | None = None
        try:
            count: int = yield from self._handle(todo, None)
        except HandlerFailed as error:
            if not error.index:
                raise
            # Those before it are done.
            count, failure = error.index, error
        advance, held = self._advance(todo, held, count, to)
        moved = yield from self._stored_call(storage.advance, None, self.lease, advance, held)
        if moved is None:
            raise _LeaseLost
        self._moved(moved)
        if failure is not None:
            self._size = 1

    def _split(
        self, events: Sequence[AnyStoredEvent], parked_streams: Callable[..., Steps[Any]]
    ) -> Steps[tuple[Sequence[AnyStoredEvent], Sequence[AnyStoredEvent]]]:
        """Return what is to be handled, and what is held back behind parked events."""
        if not self._has_parked:
            return events, ()
        streams = {StreamIdentifier(event.category, event.stream) for event in events}
        parked: Collection[StreamIdentifier] = yield from parked_streams(self._work.name, streams)
        held = [event for event in events if StreamIdentifier(event.category, event.stream) in parked]
        if not held:
            return events, ()
        return [event for event in events if StreamIdentifier(event.category, event.stream) not in parked], held

    def _handle(self, todo: Sequence[AnyStoredEvent], session: Any) -> Steps[int]:
        if not todo:
            return 0
        self.busy_since = time.monotonic()
        work = self._work
        count: int = yield partial(
            self._node.face.handle,
            work.handling,
            todo,
            session,
            deadline_s=work.deadline_s,
            may_continue=self._may_continue,
        )
        return count

    def _may_continue(self) -> bool:
        return not self._ending and time.monotonic() < self._batch_until and self._node.may_work()

    def _advance(
        self, todo: Sequence[AnyStoredEvent], held: Sequence[AnyStoredEvent], count: int, to: int
    ) -> tuple[Advance, Sequence[AnyStoredEvent]]:
        """Return how the checkpoint moves after so many events, and which of those held back are on the way."""
        if count < len(todo):
            to = todo[count].sequence_number - 1
            held = [event for event in held if event.sequence_number <= to]
        now = time.monotonic()
        self._rate += 0.2 * (count / max(now - self._moved_at, 0.001) - self._rate)
        return Advance(self._stored, to, count, self._rate), held

    def _moved(self, advance: Advance) -> None:
        self._stored = self._reached = advance.to
        self._saved_at = self._moved_at = time.monotonic()
        self._size = min(self._work.batch_size, self._size * 2)

    def _save(self) -> Steps[None]:
        """Store a checkpoint that has moved without an event."""
        self._rate *= 0.8
        advance = Advance(self._stored, self._reached, 0, self._rate)
        moved = yield from self._stored_call(self._node.storage.advance, None, self.lease, advance)
        if moved is None:
            raise _LeaseLost
        self._stored, self._saved_at = advance.to, time.monotonic()
        if self._has_parked:
            self._has_parked = yield from self._stored_call(self._node.storage.has_parked, self._work.name)

    def _failed(self, events: Sequence[AnyStoredEvent], failure: HandlerFailed) -> Steps[None]:
        """Make the batch smaller until the event stands alone; then try again, or do what the policy says."""
        if len(events) > 1:
            # An index counts what was handled, not what was held back before it; so this may take a turn more.
            self._size = failure.index or (1 if failure.index == 0 else len(events) // 2)
            return
        work, event, error = self._work, events[0], failure.error
        number, failures = self._failing
        failures = failures + 1 if number == event.sequence_number else 1
        self._failing = (event.sequence_number, failures)
        said = described(error)
        try:
            tries_again = work.on_failure.tries_again(error, failures)
            consequence = "stop" if tries_again else work.consequence(error, event)
        except Exception as broken:  # noqa: BLE001 - a function of the application
            _log.error("%s: the failure policy failed itself: %s", self, described(broken), exc_info=traceable(broken))
            tries_again, consequence = False, "stop"
        if tries_again:
            _log.info("%s: event %d failed, and is tried again: %s", self, event.sequence_number, said)
            yield from self._stored_call(self._node.storage.note_error, self.lease, said)
            yield from self._pause(work.on_failure.backoff.pause_s(failures))
            return
        if consequence == "stop":
            yield from self._stop(error)
            return
        state = ParkedState.PARKED if consequence == "park" else ParkedState.SKIPPED
        advance = Advance(self._stored, event.sequence_number, 0, self._rate)
        set_aside = partial(
            self._node.storage.set_aside, self.lease, advance, event, state=state, attempts=failures, error=said
        )
        if not (yield from self._stored_call(set_aside)):
            raise _LeaseLost
        _log.error("%s: event %d is %s: %s", self, event.sequence_number, state, said, exc_info=traceable(error))
        self._moved(advance)
        self._has_parked = self._has_parked or state is ParkedState.PARKED

    def _stop(self, error: Exception) -> Steps[None]:
        _log.error("%s stops: %s", self, described(error), exc_info=traceable(error))
        yield from self._stored_call(self._node.storage.stop, self.lease, described(error))
        raise _LeaseLost

    def _pause(self, seconds: float) -> Steps[None]:
        until = time.monotonic() + seconds
        while not self._ending and (left_s := until - time.monotonic()) > 0:
            yield partial(self.signal.wait, left_s)

    def _stored_call(self, work: Callable[..., Any], *arguments: Any) -> Steps[Any]:
        """Call the storage on a connection of the budget."""
        return self._on_budget(work, *arguments)

    def _on_budget(self, work: Callable[..., Any], *arguments: Any) -> Generator[Step, Any, Any]:
        yield from self._enter_budget()
        try:
            return (yield partial(self._node.face.run, work, *arguments))
        finally:
            self._leave_budget()

    def _enter_budget(self) -> Steps[None]:
        yield self._node.budget.acquire
        self._in_use.append(None)

    def _leave_budget(self) -> None:
        try:
            self._in_use.pop()
        except IndexError:
            # The node has given it back, from another thread perhaps.
            return
        self._node.budget.release()

    def __str__(self) -> str:
        lease = self.lease
        return f"partition {lease.partition} of {lease.partitions} of subscription {lease.name!r}"


def _taken(step: Step) -> Steps[Any]:
    return (yield step)


class as_failure:  # noqa: N801 - used like a function
    """Counts an error of a flush or a commit as the handler's, whose statements these are, unless there is no connection."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, EventStoreError | SQLAlchemyError) and not is_outage(error):
            raise HandlerFailed(error, None) from error
