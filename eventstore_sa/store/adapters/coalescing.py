"""Publishes of a process that travel together: with asyncio in tasks of their own, without it in threads of their own.

What travels when is decided in `publish_queue.py`, and what a batch is made of in `persistence/events/storage.py`. No caller
carries the publishes of others: a caller can be cancelled or interrupted at any time, and leaves nobody behind.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from threading import Condition, Lock, Thread, get_ident
from typing import Any, Final, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.pool import StaticPool

from eventstore_sa.errors import ConnectionLostError, StorageError, TransactionError
from eventstore_sa.persistence.events.dialects import NotTried
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.persistence.events.storage import EachResult, EventStorage
from eventstore_sa.persistence.sqlalchemy_internals import most_connections
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.store.adapters.publish_queue import PublishQueue, Travel, WaitingPublish
from eventstore_sa.store.adapters.runners import GreenletRunner, settled
from eventstore_sa.types import AnyStoredEvent

__all__ = ["Coalescing", "SyncCoalescing"]

Parts: TypeAlias = Sequence[StreamPublication]
Stored: TypeAlias = list[list[AnyStoredEvent]]

_IDLE_S: Final = 5.0
_MOST_IDLE: Final = 32


def _lost() -> ConnectionLostError:
    """Say what is known of a publish when whatever carried it has come to an end."""
    return ConnectionLostError(
        "whatever carried the publish to the database was ended from outside, so it is not known whether the events were "
        "stored: publish the same events again, with the same ids"
    )


def _not_sent(error: RuntimeError) -> StorageError:
    return StorageError(f"no thread could be started to publish with ({error}): nothing was stored")


def _work(storage: EventStorage, travel: Travel) -> Callable[[], Any]:
    """Return what a travel does."""
    if travel.is_batch:
        together = [(publish.parts, publish.document) for publish in travel.publishes]
        return lambda: storage.publish_each(together)
    (publish,) = travel.publishes
    if publish.is_repeated:
        return lambda: storage.repeated(publish.parts)
    return lambda: storage.publish(publish.parts, document=publish.document)


def _answer(travel: Travel, results: Iterable[EachResult]) -> list[WaitingPublish]:
    """Answer the publishes of a batch; return those that have no answer yet."""
    left: list[WaitingPublish] = []
    for publish, result in zip(travel.publishes, results, strict=True):
        match result:
            case NotTried():
                publish.is_repeated = result is NotTried.TAKEN
                publish.travels_alone |= publish.is_repeated
                left.append(publish)
            case Exception():
                _fail(publish, result)
            case _:
                _succeed(publish, result)
    return left


def _succeed(publish: WaitingPublish, stored: Stored) -> None:
    if not publish.answer.done():
        publish.answer.set_result(stored)


def _fail(publish: WaitingPublish, error: Exception) -> None:
    if not publish.answer.done():
        publish.answer.set_exception(error)


class _Carrier:
    """Carries the publishes of one storage, whose connections come from one engine."""

    def __init__(self, storage: EventStorage, engine: Engine) -> None:
        self._storage = storage
        in_turn = storage.mode.serialise is not None
        self._queue = PublishQueue(most_connections(engine.pool), in_turn=in_turn)

    def _arrived(self, travel: Travel, result: Any) -> list[WaitingPublish]:
        """Give what came of a travel to those who wait for it; return those that have no answer yet."""
        if travel.is_batch:
            results, most_locks = result
            if most_locks is not None:
                self._queue.most_locks = most_locks
            return _answer(travel, results)
        _succeed(travel.publishes[0], result)
        return []

    @staticmethod
    def _failed(travel: Travel, error: Exception) -> Sequence[WaitingPublish]:
        """Have each publish of a batch that has failed as a whole made by itself; return those that have no answer yet."""
        if not travel.is_batch:
            (publish,) = travel.publishes
            if publish.lost is not None and isinstance(error, StorageError | TransactionError):
                publish.lost.__cause__ = error
                error = publish.lost
            _fail(publish, error)
            return ()
        for publish in travel.publishes:
            publish.travels_alone = True
            if isinstance(error, ConnectionLostError):
                publish.lost = ConnectionLostError(error.message)
        return travel.publishes

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._queue.is_idle


Carrier = TypeVar("Carrier", bound=_Carrier)


def _carrier_on(engine: Engine, carriers: dict[Engine, Carrier], make: Callable[[], Carrier]) -> Carrier:
    """Return the carrier of an engine, which is made if there is none.

    If there are many, those that have nothing to do are forgotten: a session factory may make an engine for each call.
    """
    carrier = carriers.get(engine)
    if carrier is None:
        if len(carriers) >= _MOST_IDLE:
            for known, other in list(carriers.items()):
                if other.is_idle:
                    carriers.pop(known, None)
        carrier = carriers.setdefault(engine, make())
    return carrier


class _LoopCarrier(_Carrier):
    """Carries the publishes of one event loop, in tasks."""

    def __init__(self, storage: EventStorage, engine: Engine, runner: GreenletRunner) -> None:
        super().__init__(storage, engine)
        self._runner = runner
        self._is_sending = False
        # An event loop alone does not keep tasks.
        self._tasks: dict[Travel, asyncio.Task[Sequence[WaitingPublish]]] = {}

    async def publish(self, parts: Parts, document: PublishDocument) -> Stored:
        loop = asyncio.get_running_loop()
        publish = WaitingPublish(parts, document, asyncio.current_task())
        travel = self._queue.enter(publish)
        if travel is not None:
            try:
                return await self._runner.run(self._storage.publish, parts, document=document)
            finally:
                self._queue.finish(travel)
                self._send_soon(loop)
        publish.answer = loop.create_future()
        self._queue.add(publish)
        self._send_soon(loop)
        try:
            stored: Stored = await publish.answer
        except asyncio.CancelledError:
            self._queue.withdraw(publish)
            for travel, task in self._tasks.items():
                if not travel.is_batch and publish in travel.publishes:
                    task.cancel()
            self._send_soon(loop)
            raise
        return stored

    async def end(self) -> None:
        """Wait for what is under way and nobody waits for any more."""
        for travel, task in list(self._tasks.items()):
            if all(publish.is_withdrawn for publish in travel.publishes):
                await settled(task)

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send when the tasks that are ready have run: what they publish travels together."""
        if not self._is_sending:
            self._is_sending = True
            loop.call_soon(self._send, loop)

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_sending = False
        while (travel := self._queue.take()) is not None:
            # A batch belongs to nobody, and so it sees nobody's context variables.
            context = Context() if travel.is_batch else travel.publishes[0].context
            # Not as an argument: task factories of the application's may not know of contexts.
            task = context.run(loop.create_task, self._carry(travel))
            self._tasks[travel] = task
            task.add_done_callback(partial(self._ended, travel, loop))

    async def _carry(self, travel: Travel) -> Sequence[WaitingPublish]:
        """Send it; return those of its publishes that have no answer yet."""
        try:
            return self._arrived(travel, await self._runner.run_unattended(_work(self._storage, travel)))
        except Exception as error:  # noqa: BLE001 - whoever has published gets it
            return self._failed(travel, error)

    def _ended(
        self, travel: Travel, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Sequence[WaitingPublish]]
    ) -> None:
        # Not by the task itself: one that is cancelled before it has begun does nothing at all.
        del self._tasks[travel]
        left: Sequence[WaitingPublish] = ()
        if task.cancelled() or task.exception() is not None:
            for publish in travel.publishes:
                _fail(publish, _lost())
        else:
            left = task.result()
        self._queue.finish(travel, left)
        # Those who have got their answers have gone on by now, and what they publish waits.
        self._send(loop)


class Coalescing:
    """The publishes of one adapter with asyncio; each event loop, and each engine, has its own.

    Args:
        runner: How the adapter runs its work.
    """

    def __init__(self, runner: GreenletRunner) -> None:
        self._runner = runner
        self._carriers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Engine, _LoopCarrier]] = WeakKeyDictionary()

    async def publish(self, storage: EventStorage, bind: Bind, parts: Parts) -> Stored:
        """Store a publish, with others if there are any; see `EventStorage.publish`."""
        document = storage.document_of_single_statement(parts)
        own = bind.engine_bind
        if document is None or own is None or isinstance(own.engine.pool, StaticPool):
            return await self._runner.run(storage.publish, parts)
        carriers = self._carriers.setdefault(asyncio.get_running_loop(), {})

        def make() -> _LoopCarrier:
            runner = self._runner if own is bind else GreenletRunner(own)
            return _LoopCarrier(storage.on(own), own.engine, runner)

        return await _carrier_on(own.engine, carriers, make).publish(parts, document)

    async def end(self) -> None:
        """Wait for what is under way in this event loop and nobody waits for any more, before the engine is disposed of."""
        for carrier in list(self._carriers.get(asyncio.get_running_loop(), {}).values()):
            await carrier.end()


class _ThreadCarrier(_Carrier):
    """Carries the publishes of all threads, in threads that end when they have had nothing to do for a while."""

    def __init__(self, storage: EventStorage, engine: Engine) -> None:
        super().__init__(storage, engine)
        self._ready = Condition(Lock())
        self._threads = 0
        self._idle = 0

    def publish(self, parts: Parts, document: PublishDocument) -> Stored:
        publish = WaitingPublish(parts, document, ("thread", get_ident()))
        with self._ready:
            travel = self._queue.enter(publish)
            if travel is None:
                publish.answer = Future[Stored]()
                self._queue.add(publish)
                self._call_thread()
        if travel is not None:
            try:
                return self._storage.publish(parts, document=document)
            finally:
                self._finish(travel)
        try:
            stored: Stored = publish.answer.result()
        finally:
            if not publish.answer.done():
                with self._ready:
                    self._queue.withdraw(publish)
        return stored

    def _finish(self, travel: Travel, left: Iterable[WaitingPublish] = ()) -> None:
        with self._ready:
            self._queue.finish(travel, left)
            self._call_thread()

    def _call_thread(self) -> None:
        """Have somebody look at the queue, if anything there can be sent."""
        if not self._queue.may_send:
            return
        if self._idle:
            self._ready.notify()
        elif self._threads < self._queue.most_at_once:
            try:
                Thread(target=self._run, name="eventstore-sa-publishes", daemon=True).start()
            except RuntimeError as error:
                # At the end of the process, or when there are too many threads; those that there are go on.
                if not self._threads:
                    for publish in self._queue.emptied():
                        _fail(publish, _not_sent(error))
            else:
                self._threads += 1

    def _run(self) -> None:
        try:
            while (travel := self._next()) is not None:
                self._carry(travel)
        finally:
            with self._ready:
                self._threads -= 1
                self._call_thread()

    def _next(self) -> Travel | None:
        """Wait for something to carry; None if there is nothing for long."""
        with self._ready:
            while (travel := self._queue.take()) is None:
                self._idle += 1
                try:
                    called = self._ready.wait(_IDLE_S)
                finally:
                    self._idle -= 1
                if not called:
                    return self._queue.take()
            # There may be something for another one too.
            self._call_thread()
            return travel

    def _carry(self, travel: Travel) -> None:
        left: Sequence[WaitingPublish] = ()
        context = Context() if travel.is_batch else travel.publishes[0].context
        try:
            left = self._arrived(travel, context.run(_work(self._storage, travel)))
        except Exception as error:  # noqa: BLE001 - whoever has published gets it
            left = self._failed(travel, error)
        except BaseException:
            for publish in travel.publishes:
                _fail(publish, _lost())
            raise
        finally:
            self._finish(travel, left)


class SyncCoalescing:
    """The publishes of all threads through one adapter without asyncio; those to each engine by themselves."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._carriers: dict[Engine, _ThreadCarrier] = {}

    def publish(self, storage: EventStorage, bind: Bind, parts: Parts) -> Stored:
        """Store a publish, with others if there are any; see `EventStorage.publish`."""
        document = storage.document_of_single_statement(parts)
        own = bind.engine_bind
        if document is None or own is None or isinstance(own.engine.pool, StaticPool):
            return storage.publish(parts)
        if self._pid != os.getpid():
            # Forked: the threads are those of another process, and whatever they were about.
            self.__init__()  # type: ignore[misc]

        def make() -> _ThreadCarrier:
            return _ThreadCarrier(storage.on(own), own.engine)

        return _carrier_on(own.engine, self._carriers, make).publish(parts, document)
