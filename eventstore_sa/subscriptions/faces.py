"""What running subscriptions needs of asyncio, or of threads: tasks, signals, a budget of connections, sessions.

The two faces have the same methods. Methods that wait return an awaitable on one, and wait on the other: so they are steps.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias

from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.subscriptions.handling import handle, handle_sync

__all__ = ["AsyncFace", "Face", "Signal", "SyncFace", "Task"]


class Signal(Protocol):
    """Wakes one who waits; what is signalled before that is not lost."""

    def set(self) -> None:
        """Wake; from any thread."""
        ...

    def wait(self, timeout_s: float | None) -> Any:
        """Wait until woken, or as long as that; a step."""
        ...


class Task(Protocol):
    """Steps that are taken on the side."""

    @property
    def done(self) -> bool:
        """Whether they have ended."""
        ...

    def cancel(self) -> None:
        """End them at the next step, if that is possible."""
        ...

    def join(self, timeout_s: float | None) -> Any:
        """Wait until they have ended, or as long as that; a step."""
        ...


class _AsyncSignal:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:
            # The loop is closed, so nobody waits.
            return

    async def wait(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            pass
        self._event.clear()


class _AsyncTask:
    def __init__(self, steps: Steps[None], name: str) -> None:
        self._task = asyncio.create_task(drive_async(steps), name=name)

    @property
    def done(self) -> bool:
        return self._task.done()

    def cancel(self) -> None:
        self._task.cancel()

    async def join(self, timeout_s: float | None) -> None:
        await asyncio.wait({self._task}, timeout=timeout_s)
        if self._task.done() and not self._task.cancelled():
            # What steps raise is logged where they are taken; this is for what should not happen.
            self._task.result()


class AsyncFace:
    """Tasks on an event loop."""

    handle: ClassVar[Callable[..., Any]] = staticmethod(handle)

    def __init__(self, adapter: EventStorageAdapter) -> None:
        self._run: Any = adapter.runner.run if isinstance(adapter, AwaitableStorageAdapter) else _at_once

    def run(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of a storage."""
        return self._run(work, *arguments, **options)

    def in_session(self, session: Any, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of a storage that takes a session first."""
        return session.run_sync(work, *arguments, **options)

    def signal(self) -> Signal:
        """Make a signal."""
        return _AsyncSignal()

    def budget(self, connections: int) -> Any:
        """Make a semaphore."""
        return asyncio.Semaphore(connections)

    def spawn(self, steps: Steps[None], name: str) -> Task:
        """Take steps on the side."""
        return _AsyncTask(steps, name)


class _ThreadSignal:
    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout_s: float | None) -> None:
        self._event.wait(timeout_s)
        self._event.clear()


class _ThreadTask:
    def __init__(self, steps: Steps[None], name: str) -> None:
        # A handler that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=drive, args=(steps,), name=name, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Do nothing: a thread cannot be cancelled."""

    def join(self, timeout_s: float | None) -> None:
        self._thread.join(timeout_s)


class SyncFace:
    """Threads."""

    handle: ClassVar[Callable[..., Any]] = staticmethod(handle_sync)

    def run(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of a storage."""
        return work(*arguments, **options)

    def in_session(self, session: Any, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a method of a storage that takes a session first."""
        return work(session, *arguments, **options)

    def signal(self) -> Signal:
        """Make a signal."""
        return _ThreadSignal()

    def budget(self, connections: int) -> Any:
        """Make a semaphore."""
        return threading.Semaphore(connections)

    def spawn(self, steps: Steps[None], name: str) -> Task:
        """Take steps on the side."""
        return _ThreadTask(steps, name)


def _at_once(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return work(*arguments, **options)


Face: TypeAlias = AsyncFace | SyncFace
