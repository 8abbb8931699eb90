"""Telling other processes of commits in this one, in the background: see `Notifier`. Hearing of theirs is in `node.py`."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, Final, Self
from uuid import uuid4

from eventstore_sa.attempts import Backoff
from eventstore_sa.contracts.subscriptions import SubscriptionStorage
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.steps import Pause, Steps
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions.faces import AsyncFace, Face, Signal, SyncFace, Task
from eventstore_sa.subscriptions.failures import described, traceable

__all__ = ["Notifier", "Sending", "SyncNotifier"]

_LEAST_PAUSE_S: Final = 0.02
_OUTAGE: Final = Backoff(first_s=0.5, longest_s=30.0)
_END_WITHIN_S: Final = 2.0

_log = logging.getLogger("eventstore_sa.subscriptions")


class Sending:
    """Sends a notification after commits in this process: one at once, and then no more often than every 20 ms.

    Args:
        face: Asyncio, or threads.
        storage: Where to.
        wakeups: Say when something was committed.
        sender: Tells what was sent here from what others have sent.
    """

    def __init__(self, face: Face, storage: SubscriptionStorage, wakeups: Wakeups, sender: str) -> None:
        self._face = face
        self._storage = storage
        self._wakeups = wakeups
        self._sender = sender
        self._ending = False
        self._signal: Signal = face.signal()
        wakeups.listen(self._signal.set)

    def end(self) -> None:
        """Send no more."""
        self._ending = True
        self._wakeups.ignore(self._signal.set)
        self._signal.set()

    def steps(self) -> Steps[None]:
        """Send until `end` is called."""
        failures = 0
        while True:
            yield partial(self._signal.wait, None)
            if self._ending:
                return
            try:
                yield partial(self._face.run, self._storage.notify, self._sender)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a hint that is not sent is found by polling
                failures += 1
                _log.warning(
                    "could not notify other processes of events: %s", described(error), exc_info=traceable(error)
                )
            yield Pause(_OUTAGE.pause_s(failures) if failures else _LEAST_PAUSE_S)


class Notifier:
    """Tells subscriptions in other processes of what this process publishes, as an asynchronous context manager.

    For a process that publishes and runs no subscriptions, such as a web application; a `SubscriptionRunner` with
    `notifications=True` does it itself. Notifications are sent in the background, after the commit, one for all commits of
    20 ms. A publish neither waits for them nor fails with them: if one is lost, events are found by polling. On SQLite and
    in memory, nothing is sent.

    Args:
        store: The store, on an engine; it also tells of what is published within sessions and by other stores with the same
            `EventStoreSchema`.

    Raises:
        ConfigurationError: If the store is bound to a session or connection, or is not an `EventStore`.
    """

    def __init__(self, store: EventStore) -> None:
        self._adapter: Any = _adapter(store, EventStore)
        self._storage: SubscriptionStorage = self._adapter.subscription_storage()
        self._sending: Sending | None = None
        self._task: asyncio.Task[None] | Task | None = None

    async def __aenter__(self) -> Self:
        face = AsyncFace(self._adapter)
        self._sending = Sending(face, self._storage, self._adapter.wakeups, uuid4().hex)
        self._task = face.spawn(self._sending.steps(), "eventstore_sa notifier")
        return self

    async def __aexit__(self, *_: object) -> None:
        task: Any = self._task
        if self._sending is not None:
            self._sending.end()
            await task.join(_END_WITHIN_S)
            if not task.done:
                task.cancel()
                await task.join(_END_WITHIN_S)


class SyncNotifier:
    """Tells subscriptions in other processes of what this process publishes, from a thread; see `Notifier`.

    Args:
        store: As for `Notifier`, a `SyncEventStore`.

    Raises:
        ConfigurationError: As for `Notifier`.
    """

    def __init__(self, store: SyncEventStore) -> None:
        self._adapter: Any = _adapter(store, SyncEventStore)
        self._storage: SubscriptionStorage = self._adapter.subscription_storage()
        self._sending: Sending | None = None
        self._task: Task | None = None

    def __enter__(self) -> Self:
        face = SyncFace()
        self._sending = Sending(face, self._storage, self._adapter.wakeups, uuid4().hex)
        self._task = face.spawn(self._sending.steps(), "eventstore_sa notifier")
        return self

    def __exit__(self, *_: object) -> None:
        if self._sending is not None and self._task is not None:
            self._sending.end()
            self._task.join(_END_WITHIN_S)


def _adapter(store: object, wanted: type[EventStore | SyncEventStore]) -> Any:
    if not isinstance(store, wanted):
        raise ConfigurationError(f"expected {wanted.__name__}; got {type(store).__name__}")
    adapter: Any = store.adapter
    return adapter.untyped
