"""Running subscriptions: for ever beside other processes, or up to the end of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar

from eventstore_sa.contracts.subscriptions import PartitionRecord, PartitionState, SubscriptionStorage, Survey
from eventstore_sa.errors import ConfigurationError, SubscriptionError
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.subscriptions.faces import Face, Signal
from eventstore_sa.subscriptions.node import Node
from eventstore_sa.subscriptions.status import SubscriptionProgress
from eventstore_sa.subscriptions.subscription import Subscription, SyncSubscription
from eventstore_sa.types.numbers import checked_count, checked_seconds

__all__ = ["SubscriptionRunner", "SyncSubscriptionRunner", "catch_up", "catch_up_sync", "run"]

S = TypeVar("S", Subscription, SyncSubscription)

_LEASE_S: Final = 30.0
_CONNECTIONS: Final = 4
_END_WITHIN_S: Final = 30.0
_SAVE_EVERY_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.25


async def run(
    subscriptions: Sequence[Subscription],
    *,
    lease_s: float = _LEASE_S,
    connections: int = _CONNECTIONS,
    end_within_s: float = _END_WITHIN_S,
    notifications: bool = False,
) -> None:
    """Process subscriptions until the task is cancelled, beside all other processes that run them.

    Any number of processes may run the same subscriptions: they share the partitions. When the task is cancelled, current
    events are handled to their end, and the partitions are given back at once.

    Nothing is held while there is nothing to do: no transaction and no connection.

    Args:
        subscriptions: Of one store.
        lease_s: How long the partitions of a process stay with it when it is not heard of. Handlers must not keep the event
            loop from running for that long.
        connections: How many connections are used at a time; the pool needs one more, with which the process says that it is
            alive. Handlers that use other connections than their session's need more.
        end_within_s: How long current events may take after the cancellation; then they are cancelled too.
        notifications: Whether to listen for the notifications of other processes, on a connection besides those of the pool,
            and to notify them of what this process publishes; see `Notifier`. Events are found sooner, and otherwise by
            polling. It does nothing on SQLite and in memory, and nothing is heard through a pooler in transaction mode.

    Raises:
        ConfigurationError: If the subscriptions are of several stores or have the same name, the pool is too small, a
            deadline is not below the lease, or the driver cannot receive notifications.
    """
    async with SubscriptionRunner(
        subscriptions,
        lease_s=lease_s,
        connections=connections,
        end_within_s=end_within_s,
        notifications=notifications,
    ) as runner:
        await runner.wait()


class SubscriptionRunner:
    """Runs subscriptions on the side, as an asynchronous context manager: `run`, for the lifespan of an application.

    Args:
        subscriptions: As for `run`.
        lease_s: As for `run`.
        connections: As for `run`.
        end_within_s: As for `run`.
        notifications: As for `run`.

    Raises:
        ConfigurationError: As for `run`.
    """

    def __init__(
        self,
        subscriptions: Sequence[Subscription],
        *,
        lease_s: float = _LEASE_S,
        connections: int = _CONNECTIONS,
        end_within_s: float = _END_WITHIN_S,
        notifications: bool = False,
    ) -> None:
        self._subscriptions = _several(subscriptions)
        _check(self._subscriptions, Subscription, lease_s=lease_s, connections=connections, end_within_s=end_within_s)
        self._options: dict[str, Any] = {
            "lease_s": lease_s,
            "connections": connections,
            "end_within_s": end_within_s,
            "notifications": notifications,
        }
        self.save_every_s: float = _SAVE_EVERY_S
        self.rested: Signal | None = None
        self._node: Node | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        for subscription in self._subscriptions:
            await subscription.register()
        if self._subscriptions:
            self._node = _node(self._subscriptions, self.save_every_s, self.rested, **self._options)
            self._task = asyncio.create_task(drive_async(self._node.steps()), name="eventstore_sa subscriptions")
        return self

    async def wait(self) -> None:
        """Wait until it ends, which it does only when this is cancelled or `stop` is called."""
        if self._task is not None:
            await asyncio.shield(self._task)

    def wake(self) -> None:
        """Look for new events now, for example because another process has said that there are some; from any thread."""
        if self._node is not None:
            self._node.wake()

    def stop(self) -> None:
        """End after the current events; from any thread."""
        if self._node is not None:
            self._node.end()

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        task = self._task
        if task is not None:
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                # Cancelled once more: do not wait for current events.
                task.cancel()
                await asyncio.wait({task})
                raise


class SyncSubscriptionRunner:
    """Runs subscriptions in threads, as a context manager: the twin of `SubscriptionRunner` without asyncio.

    Args:
        subscriptions: As for `run`.
        lease_s: As for `run`.
        connections: As for `run`.
        end_within_s: As for `run`. A thread cannot be cancelled: it is abandoned, and its session is rolled back.
        notifications: As for `run`.

    Raises:
        ConfigurationError: As for `run`.
    """

    def __init__(
        self,
        subscriptions: Sequence[SyncSubscription],
        *,
        lease_s: float = _LEASE_S,
        connections: int = _CONNECTIONS,
        end_within_s: float = _END_WITHIN_S,
        notifications: bool = False,
    ) -> None:
        self._subscriptions = _several(subscriptions)
        _check(
            self._subscriptions, SyncSubscription, lease_s=lease_s, connections=connections, end_within_s=end_within_s
        )
        self._options: dict[str, Any] = {
            "lease_s": lease_s,
            "connections": connections,
            "end_within_s": end_within_s,
            "notifications": notifications,
        }
        self.save_every_s: float = _SAVE_EVERY_S
        self.rested: Signal | None = None
        self._node: Node | None = None
        self._task: Any = None

    def __enter__(self) -> Self:
        for subscription in self._subscriptions:
            subscription.register()
        if self._subscriptions:
            face = self._subscriptions[0].face
            self._node = _node(self._subscriptions, self.save_every_s, self.rested, **self._options)
            self._task = face.spawn(self._node.steps(), "eventstore_sa subscriptions")
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it ends, which it does only when `stop` is called; return whether it has."""
        if self._task is not None:
            self._task.join(timeout_s)
        return self._task is None or self._task.done

    def wake(self) -> None:
        """Look for new events now; see `SubscriptionRunner.wake`."""
        if self._node is not None:
            self._node.wake()

    def stop(self) -> None:
        """End after the current events; from any thread, or a signal handler."""
        if self._node is not None:
            self._node.end()

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._task is not None:
            self._task.join(None)


async def catch_up(
    *subscriptions: Subscription,
    progress: Callable[[SubscriptionProgress], object] | None = None,
    connections: int = _CONNECTIONS,
    lease_s: float = _LEASE_S,
) -> None:
    """Process subscriptions up to where the log is complete now, and return: for tests, scripts, and cron.

    Other processes may run them at the same time: then this waits for their share.

    Args:
        subscriptions: Of one store.
        progress: Called now and then.
        connections: As for `run`.
        lease_s: As for `run`.

    Raises:
        SubscriptionError: If one of them is stopped at an error or paused.
        ConfigurationError: As for `run`.
    """
    runner = SubscriptionRunner(subscriptions, lease_s=lease_s, connections=connections)
    runner.save_every_s = 0.0
    if subscriptions:
        waiting = _CatchingUp(subscriptions[0].face, subscriptions[0].storage, subscriptions, progress)
        runner.rested = waiting.rested
        await drive_async(waiting.begin())
        async with runner:
            await drive_async(waiting.steps())


def catch_up_sync(
    *subscriptions: SyncSubscription,
    progress: Callable[[SubscriptionProgress], object] | None = None,
    connections: int = _CONNECTIONS,
    lease_s: float = _LEASE_S,
) -> None:
    """Process subscriptions up to where the log is complete now, without asyncio; see `catch_up`."""
    runner = SyncSubscriptionRunner(subscriptions, lease_s=lease_s, connections=connections)
    runner.save_every_s = 0.0
    if subscriptions:
        waiting = _CatchingUp(subscriptions[0].face, subscriptions[0].storage, subscriptions, progress)
        runner.rested = waiting.rested
        drive(waiting.begin())
        with runner:
            drive(waiting.steps())


class _CatchingUp:
    """Waits until subscriptions have come to where the log was complete when it began."""

    def __init__(
        self,
        face: Face,
        storage: SubscriptionStorage,
        subscriptions: Sequence[Subscription | SyncSubscription],
        progress: Callable[[SubscriptionProgress], object] | None,
    ) -> None:
        self._face = face
        self._storage = storage
        self._names = [subscription.name for subscription in subscriptions]
        self._progress = progress
        self._end = self._handled = 0
        self.rested: Signal = face.signal()

    def begin(self) -> Steps[None]:
        """Note where the log ends now, and how many events are handled by now."""
        _, self._end = yield partial(self._face.run, self._storage.complete_up_to)
        self._handled = _handled((yield from self._records()))

    def steps(self) -> Steps[None]:
        """Wait.

        Raises:
            SubscriptionError: If one of them is stopped or paused.
        """
        while True:
            records = yield from self._records()
            if self._progress is not None:
                lowest = min(record.sequence_number for record in records)
                handled = max(0, _handled(records) - self._handled)
                yield partial(self._progress, SubscriptionProgress(min(lowest, self._end), self._end, handled))
            behind = yield from self._behind(records)
            if not behind:
                return
            for record in behind:
                if record.state is not PartitionState.RUNNING:
                    raise SubscriptionError(
                        f"partition {record.partition} of subscription {record.name!r} is {record.state} at "
                        f"{record.sequence_number}: {record.last_error or 'resume it'}",
                        subscription=record.name,
                    )
            # Other processes may have some of the partitions.
            yield partial(self.rested.wait, _LOOK_AGAIN_S)

    def _records(self) -> Steps[Sequence[PartitionRecord]]:
        survey: Survey = yield partial(self._face.run, self._storage.survey, self._names)
        return survey.partitions

    def _behind(self, records: Sequence[PartitionRecord]) -> Steps[list[PartitionRecord]]:
        known = self._end
        if any(record.sequence_number > known for record in records):
            # Events that were published since, or a log that was restored, which whoever takes the partition finds out.
            _, known = yield partial(self._face.run, self._storage.complete_up_to)
        return [
            record
            for record in records
            if not self._end <= record.sequence_number <= known
            or record.drain_to is not None
            or record.state is PartitionState.STOPPED
        ]


def _handled(records: Sequence[PartitionRecord]) -> int:
    return sum(record.handled for record in records)


def _node(
    subscriptions: Sequence[Subscription | SyncSubscription],
    save_every_s: float,
    rested: Signal | None,
    *,
    connections: int,
    **options: Any,
) -> Node:
    storage = subscriptions[0].storage
    works = [subscription.work for subscription in subscriptions]
    most = storage.most_connections
    limit = connections if most is None else max(1, min(connections, most - 1))
    wakeups = subscriptions[0].adapter.wakeups
    return Node(
        subscriptions[0].face,
        storage,
        works,
        wakeups,
        connections=limit,
        save_every_s=save_every_s,
        rested=rested,
        **options,
    )


def _several(subscriptions: Sequence[S]) -> tuple[S, ...]:
    given: object = subscriptions
    if isinstance(given, Subscription | SyncSubscription):
        raise ConfigurationError(
            f"subscriptions are passed as a list, even a single one: [subscription]; got {type(given).__name__}"
        )
    return tuple(subscriptions)


def _check(
    subscriptions: Sequence[Any],
    wanted: type[Any],
    *,
    lease_s: float,
    connections: int,
    end_within_s: float,
) -> None:
    for subscription in subscriptions:
        if not isinstance(subscription, wanted):
            raise ConfigurationError(f"expected {wanted.__name__}; got {type(subscription).__name__}")
    names = [subscription.name for subscription in subscriptions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(
            f"several subscriptions are called {', '.join(map(repr, twice))}: give each its own name"
        )
    if len({subscription.storage.key for subscription in subscriptions}) > 1:
        raise ConfigurationError(
            "the subscriptions are of several stores: run those of each store by a call of its own"
        )
    checked_count("connections", connections)
    checked_seconds("end_within_s", end_within_s)
    if checked_seconds("lease_s", lease_s) <= 0:
        raise ConfigurationError(f"lease_s must be above 0; got {lease_s}")
    for subscription in subscriptions:
        work = subscription.work
        if work.longest_s >= lease_s and not subscription.storage.in_memory:
            raise ConfigurationError(
                f"a transaction of subscription {subscription.name!r} may take {work.longest_s} s (commit_every_s + "
                f"deadline_s + 1), which must be below lease_s={lease_s}: a handler that hangs must not keep its "
                "partition for longer than a process that is gone"
            )
        most = subscription.storage.most_connections
        if most is not None and most != 1 and most < connections + 1:
            raise ConfigurationError(
                f"the pool of the store's engine has at most {most} connections, but connections={connections} and one more "
                "are needed: raise pool_size or max_overflow, or lower connections"
            )
