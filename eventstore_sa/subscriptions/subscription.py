"""`Subscription` and its twin without asyncio: what is read, who handles it, and what can be done to it.

How it is processed is in `node.py` and `partition.py`; `running.py` runs several of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import sessionmaker

from eventstore_sa.contracts.subscriptions import (
    Definition,
    ParkedEvent,
    PartitionState,
    SubscriptionStorage,
    Survey,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions.faces import AsyncFace, Face, SyncFace
from eventstore_sa.subscriptions.failures import FailurePolicy
from eventstore_sa.subscriptions.handling import handling
from eventstore_sa.subscriptions.operations import replay, unknown, wait_for
from eventstore_sa.subscriptions.partition import CANNOT_PARK, Work
from eventstore_sa.subscriptions.sources import SubscribableSource, SyncSubscribableSource, sourced
from eventstore_sa.subscriptions.status import PartitionStatus, statuses
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier
from eventstore_sa.types.identifiers import check_name
from eventstore_sa.types.numbers import checked_count, checked_seconds

__all__ = ["Start", "Subscription", "SyncSubscription"]

Start: TypeAlias = Literal["beginning", "now"] | int | datetime
"""Where a new subscription begins: with the first event; with what is published from now on; after a sequence number; or
with the first event that was observed at a time or later."""

F = TypeVar("F", AsyncFace, SyncFace)

_MOST_NAME_BYTES: Final = 200
_NO_FAILURE_POLICY: Final = FailurePolicy()
_MOST_PARTITIONS: Final = 1024


class _AnySubscription(Generic[F]):
    """What takes no I/O, and steps for both faces."""

    face: F

    def __init__(
        self,
        name: str,
        source: object,
        handler: object,
        *,
        asynchronous: bool,
        sessions: Any,
        per_batch: bool,
        partitions: int,
        start: Start,
        on_failure: FailurePolicy,
        batch_size: int,
        deadline_s: float,
        commit_every_s: float,
    ) -> None:
        self.name: str = _checked_name(name)
        found = sourced(source, asynchronous=asynchronous)
        self._storage: SubscriptionStorage = found.adapter.subscription_storage()
        self.adapter: Any = found.adapter
        checked_count("partitions", partitions)
        if partitions > _MOST_PARTITIONS:
            raise ConfigurationError(f"a subscription has at most {_MOST_PARTITIONS} partitions; got {partitions}")
        if partitions > 1 and isinstance(found.target, StreamIdentifier):
            raise ConfigurationError(
                f"subscription {name!r} reads a single stream, which is in one partition as a whole: leave partitions out"
            )
        wanted: Any = async_sessionmaker if asynchronous else sessionmaker
        if sessions is not None and not isinstance(sessions, wanted):
            raise ConfigurationError(
                f"sessions is {'an async_sessionmaker' if asynchronous else 'a sessionmaker'} of SQLAlchemy; got "
                f"{type(sessions).__name__}"
            )
        self._storage.check_use(sessions=sessions is not None, threads=not asynchronous)
        store: Any = EventStore if asynchronous else SyncEventStore
        how = handling(handler, store(found.adapter, types=found.types), per_batch=per_batch, asynchronous=asynchronous)
        policy: object = on_failure
        if not isinstance(policy, FailurePolicy):
            raise ConfigurationError(
                f"on_failure is a FailurePolicy, such as FailurePolicy(then='park'); got {policy!r}"
            )
        if how.needs_session and sessions is None:
            raise ConfigurationError(
                f"the handler of subscription {name!r} needs a session: pass sessions=, your session factory"
            )
        if how.spans_streams and partitions > 1:
            raise ConfigurationError(
                f"subscription {name!r} updates projections of several streams, which need their events in one order: leave "
                "partitions out"
            )
        if how.spans_streams and on_failure.then == "park":
            raise ConfigurationError(CANNOT_PARK.format(name=name))
        self.partitions: int = partitions
        self.start: Start = _checked_start(start)
        self.work: Work = Work(
            name=self.name,
            source=found,
            handling=how,
            sessions=sessions,
            on_failure=on_failure,
            batch_size=checked_count("batch_size", batch_size),
            deadline_s=checked_seconds("deadline_s", deadline_s),
            commit_every_s=checked_seconds("commit_every_s", commit_every_s),
        )

    @property
    def storage(self) -> SubscriptionStorage:
        """Where its checkpoints are."""
        return self._storage

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.work.source.target!r})"

    def registering(self, face: Face) -> Steps[None]:
        """Store the subscription if it is new, or begin to change the number of its partitions."""
        storage = self._storage
        survey: Survey = yield partial(face.run, storage.survey, [self.name])
        number: int = 0
        if not survey.partitions:
            _, end = yield partial(face.run, storage.complete_up_to)
            number = yield from self._number_of(face, self.start, end)
            if number > end:
                raise ConfigurationError(
                    f"subscription {self.name!r} cannot begin after {number}: the log is complete up to {end} only"
                )
        projection = self.work.handling.projection
        definition = Definition(self.name, self.work.source.text, self.partitions, number, projection)
        yield partial(face.run, storage.register, definition)

    def _setting(self, face: Face, state: PartitionState) -> Steps[None]:
        if not (yield partial(face.run, self._storage.set_state, self.name, state)):
            raise unknown(self.name)

    def _moving(self, face: Face, to: Start, *, forwards: bool) -> Steps[None]:
        storage = self._storage
        _, end = yield partial(face.run, storage.complete_up_to)
        number = yield from self._number_of(face, _checked_start(to), end)
        if number > end:
            raise ConfigurationError(
                f"subscription {self.name!r} cannot be moved to {number}: the log is complete up to {end} only"
            )
        survey = yield partial(face.run, storage.survey, [self.name])
        for record in survey.partitions:
            if (record.sequence_number < number) is not forwards and record.sequence_number != number:
                direction = "skip_to" if not forwards else "rewind"
                raise ConfigurationError(
                    f"subscription {self.name!r} is at {record.sequence_number} in partition {record.partition}, and "
                    f"{number} is on the other side: use {direction}"
                )
        if not (yield partial(face.run, storage.move, self.name, number)):
            raise unknown(self.name)

    def _number_of(self, face: Face, place: Start, end: int) -> Steps[int]:
        """Return the sequence number of the last event before a place, in a log that is complete up to `end`."""
        if isinstance(place, datetime):
            number: int = yield partial(face.run, self._storage.number_at, place)
            return number
        if isinstance(place, int):
            return place
        return 0 if place == "beginning" else end

    def _discarding(self, face: Face, sequence_number: int) -> Steps[bool]:
        found: ParkedEvent | None = yield partial(face.run, self._storage.find_parked, self.name, sequence_number)
        if found is None:
            return False
        discarded: bool = yield partial(face.run, self._storage.discard, None, found)
        return discarded


class Subscription(_AnySubscription[AsyncFace]):
    """Hands the events of a source to a handler, in order, to the end of the log and on; used with asyncio.

    Each stream is handled in order, in one place at a time, however many processes run the subscription. With `sessions`,
    the checkpoint moves in the transaction of the session that the handler gets: what it does there happens exactly once.
    What it does elsewhere happens at least once; the id of the event tells repetitions apart.

    Args:
        name: Identifies it in the database; at most 200 bytes.
        source: The log, a category, a list of categories, a stream, or the events of a query or a tag of an `EventStore`; or
            a `ConstrainedEventSource` over one of these, for events of some names. If the store has event types, the
            handler gets typed events.
        handler: A function that takes an event, and a session if it has a second parameter; a `Projector`, whose stored
            projections are updated; or a table projection. Functions may be coroutine functions; others must not block.
        sessions: The session factory of the application, on the database of the store. Its sessions are committed here.
        per_batch: Whether the function takes a list of events instead of one.
        partitions: In how many parts the streams are handled side by side. With one, all events are handled in one order.
        start: Where it begins when it is new.
        on_failure: What to do when the handler raises, or an event cannot be read as its type.
        batch_size: How many events are read, and handled in a transaction, at most.
        deadline_s: How long the handler may take for an event, or for a batch if it takes batches.
        commit_every_s: After how many seconds a transaction is committed, even if events of the batch are left.

    Raises:
        ConfigurationError: If something of this cannot work.
    """

    def __init__(
        self,
        name: str,
        source: SubscribableSource,
        handler: object,
        *,
        sessions: async_sessionmaker[Any] | None = None,
        per_batch: bool = False,
        partitions: int = 1,
        start: Start = "beginning",
        on_failure: FailurePolicy = _NO_FAILURE_POLICY,
        batch_size: int = 1000,
        deadline_s: float = 20.0,
        commit_every_s: float = 1.0,
    ) -> None:
        super().__init__(
            name,
            source,
            handler,
            asynchronous=True,
            sessions=sessions,
            per_batch=per_batch,
            partitions=partitions,
            start=start,
            on_failure=on_failure,
            batch_size=batch_size,
            deadline_s=deadline_s,
            commit_every_s=commit_every_s,
        )
        self.face: AsyncFace = AsyncFace(self.adapter)

    async def register(self) -> None:
        """Store the subscription if it is new; running it does so too.

        Raises:
            ConfigurationError: If it is stored with another source, or one of its partitions is stopped and their number has
                to change.
        """
        await drive_async(self.registering(self.face))

    async def status(self) -> Sequence[PartitionStatus]:
        """Return how each partition is getting on; nothing if it is not stored yet."""
        found: list[PartitionStatus] = await self.face.run(statuses, self._storage, [self.name])
        return found

    async def pause(self) -> None:
        """Have nobody process it until it is resumed. A transaction that is under way is rolled back.

        Raises:
            SubscriptionError: If it does not exist.
        """
        await drive_async(self._setting(self.face, PartitionState.PAUSED))

    async def resume(self) -> None:
        """Have it processed again, after `pause`, or after it has stopped at an error.

        Raises:
            SubscriptionError: If it does not exist.
        """
        await drive_async(self._setting(self.face, PartitionState.RUNNING))

    async def rewind(self, to: Start = "beginning") -> None:
        """Set its checkpoint back: events beyond are handled again. What is parked beyond is forgotten, and read again.

        Args:
            to: Where to; a number: the last event that is not handled again.

        Raises:
            SubscriptionError: If it does not exist.
            ConfigurationError: If a partition has not come that far.
        """
        await drive_async(self._moving(self.face, to, forwards=False))

    async def skip_to(self, to: Start) -> None:
        """Set its checkpoint forward: events up to there are not handled.

        Args:
            to: Where to; a number: the last event that is not handled.

        Raises:
            SubscriptionError: If it does not exist.
            ConfigurationError: If a partition is beyond it, or the log does not reach that far.
        """
        await drive_async(self._moving(self.face, to, forwards=True))

    async def wait_for(self, event: AnyStoredEvent, timeout_s: float | None = None) -> None:
        """Wait until it has handled an event, to read what the handler has written.

        Args:
            event: As a publish has returned it.
            timeout_s: How long to wait, in seconds; None: for ever.

        Raises:
            WaitTimeoutError: If it has not come that far in time.
            SubscriptionError: If the event was parked or skipped, or the subscription is stopped or paused before it, or
                does not exist.
        """
        await drive_async(wait_for(self.face, self._storage, self.name, event, timeout_s))

    async def parked(self, *, after: int = 0, limit: int = 1000) -> Sequence[ParkedEvent]:
        """Return events that are parked, held back behind parked ones, or skipped, by sequence number.

        Args:
            after: Only those beyond this number.
            limit: At most so many.
        """
        found: Sequence[ParkedEvent] = await self.face.run(
            self._storage.parked_events, self.name, after=after, limit=checked_count("limit", limit)
        )
        return found

    async def replay(self, stream: StreamIdentifier | None = None) -> int:
        """Handle parked events again, here and now, while the subscription goes on elsewhere.

        Each stream is replayed in order, up to its end or to the first event that fails again.

        Args:
            stream: Only those of this stream; None: of all.

        Returns:
            How many events were handled.
        """
        return await drive_async(replay(self.face, self._storage, self.work, stream))

    async def discard(self, sequence_number: int) -> bool:
        """Forget a parked or skipped event: it is never handled. Return whether it was there.

        If it was the first of its stream, those that were held back behind it are the next to be replayed.
        """
        return await drive_async(self._discarding(self.face, sequence_number))

    async def forget(self) -> bool:
        """Delete all that is stored of it, checkpoints and parked events; return whether there was anything."""
        found: bool = await self.face.run(self._storage.forget, self.name)
        return found


class SyncSubscription(_AnySubscription[SyncFace]):
    """Hands the events of a source to a handler, in threads: the twin of `Subscription` without asyncio.

    Args:
        name: As for `Subscription`.
        source: As for `Subscription`, of a `SyncEventStore`.
        handler: As for `Subscription`; an ordinary function. It is called in threads, one for each partition.
        sessions: As for `Subscription`, a `sessionmaker`.
        per_batch: As for `Subscription`.
        partitions: As for `Subscription`.
        start: As for `Subscription`.
        on_failure: As for `Subscription`.
        batch_size: As for `Subscription`.
        deadline_s: As for `Subscription`. A thread cannot be ended: its partition is taken from it, and what it does in its
            session is rolled back.
        commit_every_s: As for `Subscription`.

    Raises:
        ConfigurationError: If something of this cannot work.
    """

    def __init__(
        self,
        name: str,
        source: SyncSubscribableSource,
        handler: object,
        *,
        sessions: sessionmaker[Any] | None = None,
        per_batch: bool = False,
        partitions: int = 1,
        start: Start = "beginning",
        on_failure: FailurePolicy = _NO_FAILURE_POLICY,
        batch_size: int = 1000,
        deadline_s: float = 20.0,
        commit_every_s: float = 1.0,
    ) -> None:
        super().__init__(
            name,
            source,
            handler,
            asynchronous=False,
            sessions=sessions,
            per_batch=per_batch,
            partitions=partitions,
            start=start,
            on_failure=on_failure,
            batch_size=batch_size,
            deadline_s=deadline_s,
            commit_every_s=commit_every_s,
        )
        self.face: SyncFace = SyncFace()

    def register(self) -> None:
        """Store the subscription if it is new; see `Subscription.register`."""
        drive(self.registering(self.face))

    def status(self) -> Sequence[PartitionStatus]:
        """Return how each partition is getting on; see `Subscription.status`."""
        return statuses(self._storage, [self.name])

    def pause(self) -> None:
        """Have nobody process it until it is resumed; see `Subscription.pause`."""
        drive(self._setting(self.face, PartitionState.PAUSED))

    def resume(self) -> None:
        """Have it processed again; see `Subscription.resume`."""
        drive(self._setting(self.face, PartitionState.RUNNING))

    def rewind(self, to: Start = "beginning") -> None:
        """Set its checkpoint back; see `Subscription.rewind`."""
        drive(self._moving(self.face, to, forwards=False))

    def skip_to(self, to: Start) -> None:
        """Set its checkpoint forward; see `Subscription.skip_to`."""
        drive(self._moving(self.face, to, forwards=True))

    def wait_for(self, event: AnyStoredEvent, timeout_s: float | None = None) -> None:
        """Wait until it has handled an event; see `Subscription.wait_for`."""
        drive(wait_for(self.face, self._storage, self.name, event, timeout_s))

    def parked(self, *, after: int = 0, limit: int = 1000) -> Sequence[ParkedEvent]:
        """Return events that are kept aside; see `Subscription.parked`."""
        return self._storage.parked_events(self.name, after=after, limit=checked_count("limit", limit))

    def replay(self, stream: StreamIdentifier | None = None) -> int:
        """Handle parked events again; see `Subscription.replay`."""
        return drive(replay(self.face, self._storage, self.work, stream))

    def discard(self, sequence_number: int) -> bool:
        """Forget a parked or skipped event; see `Subscription.discard`."""
        return drive(self._discarding(self.face, sequence_number))

    def forget(self) -> bool:
        """Delete all that is stored of it; see `Subscription.forget`."""
        return self._storage.forget(self.name)


def _checked_name(name: str) -> str:
    checked = check_name("subscription", name)
    if len(checked.encode()) > _MOST_NAME_BYTES:
        raise ConfigurationError(
            f"the name of a subscription has at most {_MOST_NAME_BYTES} bytes in UTF-8; {checked[:40]!a}... is longer"
        )
    return checked


def _checked_start(start: Start) -> Start:
    given: object = start
    if isinstance(given, datetime) and given.utcoffset() is not None:
        return start
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return start
    if isinstance(given, str) and given in ("beginning", "now"):
        return start
    raise ConfigurationError(
        f"a place in the log is 'beginning', 'now', a sequence number from 0, or a datetime with a time zone; got {given!r}"
    )
