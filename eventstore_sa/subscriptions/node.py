"""A node: a process, or a part of one, that runs subscriptions beside others.

It says that it is alive, takes and gives up partitions, finds out how far the log is complete, and has a worker for each
partition that it holds. Steps, taken with asyncio or in a thread.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

from eventstore_sa.attempts import Backoff
from eventstore_sa.contracts.subscriptions import Ear, PartitionRecord, SubscriptionStorage, Survey
from eventstore_sa.contracts.subscriptions import Node as NodeRecord
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.steps import Steps
from eventstore_sa.subscriptions.balance import balanced
from eventstore_sa.subscriptions.faces import Face, Signal, Task
from eventstore_sa.subscriptions.failures import described, traceable
from eventstore_sa.subscriptions.notifying import Sending
from eventstore_sa.subscriptions.partition import PartitionWorker, Work

__all__ = ["Node"]

_SURVEY_EVERY_S: Final = 1.0
_SOON_S: Final = 0.05
_FIRST_POLL_S: Final = 0.002
_LONGEST_POLL_S: Final = 0.25
_OUTAGE: Final = Backoff(first_s=0.2, longest_s=5.0)
_OUTAGE_OF_EARS: Final = Backoff(first_s=0.2, longest_s=60.0)

_log = logging.getLogger("eventstore_sa.subscriptions")

Key = tuple[str, int]


class Node:
    """Runs subscriptions of one store.

    Args:
        face: Asyncio, or threads.
        storage: Where checkpoints are.
        works: What is done with the events of each subscription.
        wakeups: Says when this process has published.
        lease_s: How long a partition stays with a node that is not heard of.
        connections: How many connections are used at once, besides the one that says that the node is alive.
        end_within_s: How long the current events may take when the node ends.
        save_every_s: How often a checkpoint is stored that moves without an event to handle.
        notifications: Whether to listen for what other processes commit, and to tell them of what this one does.
        rested: To be set when a partition has nothing more to do, or is no longer processed here.

    Attributes:
        face: As given.
        storage: As given.
        budget: Limits the connections that are in use.
        save_every_s: As given.
        rested: As given.
        watermark: Up to where the log is complete, as far as is known.
    """

    def __init__(
        self,
        face: Face,
        storage: SubscriptionStorage,
        works: Sequence[Work],
        wakeups: Wakeups,
        *,
        lease_s: float,
        connections: int,
        end_within_s: float,
        save_every_s: float,
        notifications: bool,
        rested: Signal | None,
    ) -> None:
        self.face: Face = face
        self.storage: SubscriptionStorage = storage
        self.budget: Any = face.budget(connections)
        self.save_every_s: float = save_every_s
        self.rested: Signal | None = rested
        self.watermark: int = 0
        self._works: Mapping[str, Work] = {work.name: work for work in works}
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._record = NodeRecord(uuid4(), name, frozenset(self._works))
        self._ear: Ear | None = storage.ear() if notifications else None
        self._hear_again = face.signal()
        self._wakeups = wakeups
        self._lease_s = lease_s
        self._end_within_s = end_within_s
        self._alive_until = 0.0
        self._beat_at = 0.0
        self._last_number = -1
        self._ending = False
        self._signal = face.signal()
        self._poll = face.signal()
        self._workers: dict[Key, tuple[PartitionWorker, Task]] = {}
        self._abandoned: list[Task] = []
        # On SQLite even the heartbeat has to wait for its turn.
        self._shares_budget = storage.most_connections == 1

    def may_work(self) -> bool:
        """Tell whether the others still take this node to be alive, for certain."""
        return time.monotonic() < self._alive_until

    def end(self) -> None:
        """End after the current events, and give all partitions back; from any thread."""
        self._ending = True
        self._signal.set()
        self._poll.set()

    def wake(self) -> None:
        """Look for new events now; from any thread."""
        self._poll.set()

    def steps(self) -> Steps[None]:
        """Run until `end` is called."""
        # Before the first look, which may miss what is published right after it.
        self._wakeups.listen(self._poll.set)
        poller = self.face.spawn(self._polling(), "eventstore_sa poller")
        sending, helpers = self._notifying()
        failures = 0
        try:
            while not self._ending:
                try:
                    pause_s = yield from self._turn()
                    failures = 0
                except Exception as error:  # noqa: BLE001 - a node goes on, whatever happens
                    failures += 1
                    _log.warning(
                        "the node could not look after its partitions: %s", described(error), exc_info=traceable(error)
                    )
                    pause_s = _OUTAGE.pause_s(failures)
                if not self._ending:
                    yield partial(self._signal.wait, pause_s)
        finally:
            self._wakeups.ignore(self._poll.set)
            if sending is not None:
                sending.end()
            yield from self._end(poller, helpers)

    def _notifying(self) -> tuple[Sending | None, list[Task]]:
        """Begin to listen for notifications and to send them, if that is wanted."""
        if self._ear is None:
            return None, []
        sending = Sending(self.face, self.storage, self._wakeups, self._record.id.hex)
        return sending, [
            self.face.spawn(sending.steps(), "eventstore_sa notifier"),
            self.face.spawn(self._hearing(self._ear), "eventstore_sa listener"),
        ]

    def _hearing(self, ear: Ear) -> Steps[None]:
        """Be woken by what other processes commit; polling goes on, so what is not heard is found later."""
        failures = 0
        while not self._ending:
            began = time.monotonic()
            try:
                yield partial(self.face.run, ear.listen, self._record.id.hex, self._poll.set)
            except Exception as error:  # noqa: BLE001 - a node goes on, whatever happens
                if time.monotonic() - began > _OUTAGE_OF_EARS.longest_s:
                    failures = 0
                failures += 1
                _log.warning(
                    "the node cannot listen for notifications now, and polls: %s",
                    described(error),
                    exc_info=traceable(error),
                )
                yield partial(self._hear_again.wait, _OUTAGE_OF_EARS.pause_s(failures))

    def _end(self, poller: Task, helpers: Sequence[Task]) -> Steps[None]:
        self.end()
        self._hear_again.set()
        if self._ear is not None:
            self._ear.stop()
        for worker, _ in self._workers.values():
            worker.end()
        until = time.monotonic() + self._end_within_s
        tasks = [task for _, task in self._workers.values()] + [poller]
        try:
            for task in tasks:
                # Leases go on while the last events are handled.
                while not task.done and (left_s := until - time.monotonic()) > 0:
                    yield partial(task.join, min(left_s, self._lease_s / 3))
                    with suppress(Exception):
                        yield from self._beat()
            for task in helpers:
                yield partial(task.join, 1.0)
        finally:
            # Also when cancelled meanwhile: then without waiting for the last events.
            for task in (*tasks, *helpers):
                if not task.done:
                    task.cancel()
                    yield partial(task.join, 1.0)
            yield from self._leave()

    def _leave(self) -> Steps[None]:
        try:
            yield from self._call(self.storage.leave, self._record.id)
        except Exception as error:  # noqa: BLE001 - the node is ending anyway
            _log.warning(
                "the node could not give its partitions back, which wait for its lease to end: %s", described(error)
            )

    def _turn(self) -> Steps[float]:
        """Say that the node is alive, and see what it holds and what it should hold; return when to do it again."""
        yield from self._beat()
        survey: Survey = yield from self._call(self.storage.survey)
        yield from self._look_after(survey)
        changed = yield from self._resplit(survey)
        take, give_up = balanced(self._record, survey)
        for record in take:
            # Of many it takes longer than a lease to take them all.
            yield from self._beat()
            lease = yield from self._call(self.storage.take, self._record.id, record)
            changed = True
            if lease is not None:
                worker = PartitionWorker(self, self._works[record.name], lease)
                task = self.face.spawn(worker.steps(), f"{record.name}/{record.partition}")
                self._workers[record.name, record.partition] = (worker, task)
                # The watermark may have moved before the poller knew of it.
                worker.signal.set()
        for record in give_up:
            held = self._workers.get((record.name, record.partition))
            if held is not None:
                held[0].end()
                changed = True
        return _SOON_S if changed else min(_SURVEY_EVERY_S, self._lease_s / 3)

    def _beat(self) -> Steps[None]:
        if time.monotonic() < self._beat_at:
            return
        before = time.monotonic()
        yield from self._call(self.storage.heartbeat, self._record, self._lease_s)
        self._alive_until = before + self._lease_s
        self._beat_at = before + self._lease_s / 3
        for worker, _ in self._workers.values():
            worker.signal.set()

    def _look_after(self, survey: Survey) -> Steps[None]:
        """Forget workers that have ended, and end those that have lost their lease or hang."""
        records: dict[Key, PartitionRecord] = {(each.name, each.partition): each for each in survey.partitions}
        for key, (worker, task) in list(self._workers.items()):
            record = records.get(key)
            if task.done:
                del self._workers[key]
                # Usually it has given the partition back; if something unheard of has ended it, nobody else would.
                if record is not None and record.epoch == worker.lease.epoch:
                    yield from self._call(self.storage.release, worker.lease)
            elif record is None or record.owner != self._record.id or record.epoch != worker.lease.epoch:
                worker.lose()
                del self._workers[key]
                self._abandoned.append(task)
            elif worker.is_overdue:
                _log.error("%s: the handler hangs, and the partition is taken from it", worker)
                worker.abandon()
                task.cancel()
                yield from self._call(self.storage.evict, worker.lease)
                del self._workers[key]
                self._abandoned.append(task)
        self._abandoned = [task for task in self._abandoned if not task.done]

    def _resplit(self, survey: Survey) -> Steps[bool]:
        changed = False
        for name in {record.name for record in survey.partitions if record.is_drained and record.name in self._works}:
            if all(record.is_drained for record in survey.partitions if record.name == name):
                changed = (yield from self._call(self.storage.resplit, name)) or changed
        return changed

    def _polling(self) -> Steps[None]:
        """Find out how far the log is complete: often after something has happened, else less and less often."""
        pause_s, failures, woken = _FIRST_POLL_S, 0, True
        while not self._ending:
            try:
                moved = yield from self._look(woken=woken)
                failures = 0
            except Exception as error:  # noqa: BLE001 - a node goes on, whatever happens
                failures += 1
                moved = False
                _log.warning("the node could not look at the log: %s", described(error), exc_info=traceable(error))
                yield partial(self._poll.wait, _OUTAGE.pause_s(failures))
            before = time.monotonic()
            pause_s = _FIRST_POLL_S if moved else min(pause_s * 2, _LONGEST_POLL_S)
            yield partial(self._poll.wait, pause_s)
            woken = time.monotonic() - before < pause_s * 0.9
            if woken:
                # By a commit: others may follow, and older transactions may still hold the watermark back.
                pause_s = _FIRST_POLL_S

    def _look(self, *, woken: bool) -> Steps[bool]:
        """Look for a new watermark; return whether there is one.

        The table of locks is looked at when the last number has moved, and as long as the watermark is below it: a
        transaction that was open then commits without drawing another number.
        """
        if not woken:
            last: int = yield from self._call(self.storage.last_number)
            if last == self._last_number and self.watermark >= last:
                return False
        before = self.watermark
        self._last_number, self.watermark = yield from self._call(self.storage.complete_up_to)
        if self.watermark == before:
            return False
        for worker, _ in list(self._workers.values()):
            if self.watermark < before:
                worker.renew()
            worker.signal.set()
        return True

    def _call(self, work: Callable[..., Any], *arguments: Any) -> Steps[Any]:
        """Call the storage on a connection besides those of the budget, so that no handler can make the node seem dead."""
        if not self._shares_budget:
            return (yield partial(self.face.run, work, *arguments))
        yield self.budget.acquire
        try:
            return (yield partial(self.face.run, work, *arguments))
        finally:
            self.budget.release()
