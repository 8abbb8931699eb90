"""Which publishes of a process travel when, and which of them together, if a store coalesces publishes.

While something is under way, publishes gather, and travel in the next batch: there is no timer. A batch waits for no lock,
so what it finds busy travels alone afterwards. Of one stream, tag or caller, nothing overtakes anything. Neither I/O nor
tasks nor threads are here: `coalescing.py` has these. Not safe to use in several threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from contextvars import Context, copy_context
from typing import Any, Final

from eventstore_sa.errors import ConnectionLostError
from eventstore_sa.persistence.events.document import PublishDocument
from eventstore_sa.publishing import StreamPublication

__all__ = ["PublishQueue", "Travel", "WaitingPublish"]

_MOST_BATCHES: Final = 2
_MOST_ALONE: Final = 8
_MOST_EVENTS: Final = 1000
_MOST_CHARACTERS: Final = 2**20
# What a transaction may take on a server with its default settings before categories are locked instead of streams.
_MOST_LOCKS: Final = 32


class WaitingPublish:
    """A publish that waits, or is under way.

    Args:
        parts: The publish.
        document: Its document.
        caller: Whoever waits for it, whose publishes keep their order; None if that is not known.

    Attributes:
        answer: Where its result is put: a future of the kind that its caller waits for.
        context: The context of the caller.
        keys: What nothing may overtake: its streams and tags, and its caller.
        ids: The ids of its events.
        locks: The locks that it needs.
        count: How many events it has.
        travels_alone: Whether it cannot travel with others.
        is_repeated: Whether one of its ids is stored already.
        is_withdrawn: Whether nobody waits for it any more.
        lost: What its caller gets if the connection was lost, and nothing that follows tells whether it is stored.
    """

    answer: Any

    def __init__(self, parts: Sequence[StreamPublication], document: PublishDocument, caller: Hashable = None) -> None:
        self.parts: Final = parts
        self.document: Final = document
        self.context: Final[Context] = copy_context()
        locks: set[Hashable] = set()
        categories: set[str] = set()
        self.travels_alone: bool = False
        for part, item in zip(parts, document.streams, strict=True):
            locks.add(part.stream)
            categories.add(item.category)
            locks.update(item.written_tags or ())
            locks.update(item.read_tags or ())
            if item.scope is not None:
                self.travels_alone = True
        self.keys: Final[frozenset[Hashable]] = frozenset(locks if caller is None else (*locks, caller))
        self.locks: Final = frozenset([*locks, *(("category", category) for category in categories)])
        self.ids: Final = frozenset([event.id for part in parts for event in part.events])
        self.count: Final = len(self.ids)
        self.is_repeated: bool = False
        self.is_withdrawn: bool = False
        self.lost: ConnectionLostError | None = None


class Travel:
    """Publishes that are under way with one statement.

    Attributes:
        publishes: One or more, in order.
        is_batch: Whether they are made together, and none waits for a lock.
        takes_turn: Whether it counts as one of the batches.
    """

    def __init__(self, publishes: Sequence[WaitingPublish], *, is_batch: bool, takes_turn: bool) -> None:
        self.publishes: Final = publishes
        self.is_batch: Final = is_batch
        self.takes_turn: Final = takes_turn


class PublishQueue:
    """The publishes of one store on one engine.

    Args:
        connections: How many connections there are; None: any number. One is left to batches, or two, so that the way to
            the disk of one batch overlaps the next; the others are for what travels alone.
        in_turn: Whether batches exclude each other in the database, so that a second one would find everything busy.

    Attributes:
        most_locks: How many locks the publishes of a batch may need.
    """

    def __init__(self, connections: int | None = None, *, in_turn: bool = False) -> None:
        few = connections is not None and connections <= _MOST_BATCHES
        self._most_batches: Final = 1 if few or in_turn else _MOST_BATCHES
        self._most_alone: Final = (
            _MOST_ALONE if connections is None else max(1, min(_MOST_ALONE, connections - self._most_batches))
        )
        self.most_locks: int = _MOST_LOCKS
        self._waiting: deque[WaitingPublish] = deque()
        self._waiting_alone: deque[WaitingPublish] = deque()
        # The keys and ids of what is under way, or is to travel alone next.
        self._held: set[Hashable] = set()
        self._batches = 0
        self._alone = 0

    @property
    def most_at_once(self) -> int:
        """How much is under way at the same time, at most."""
        return self._most_batches + self._most_alone

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._batches or self._alone or self._waiting or self._waiting_alone)

    @property
    def may_send(self) -> bool:
        """Whether it is worth asking what can be sent."""
        return bool(
            (self._waiting and self._batches < self._most_batches)
            or (self._waiting_alone and self._alone < self._most_alone)
        )

    def enter(self, publish: WaitingPublish) -> Travel | None:
        """Return the travel of a publish that finds nothing waiting and nothing under way: it goes straight, as it is."""
        if not self.is_idle:
            return None
        return self._begun(Travel([publish], is_batch=False, takes_turn=True))

    def add(self, publish: WaitingPublish) -> None:
        """Let a publish wait for its turn."""
        self._waiting.append(publish)

    def withdraw(self, publish: WaitingPublish) -> None:
        """Leave out a publish that nobody waits for any more, unless it is under way."""
        publish.is_withdrawn = True
        if publish in self._waiting_alone:
            self._waiting_alone.remove(publish)
            self._held.difference_update(publish.keys, publish.ids)

    def emptied(self) -> list[WaitingPublish]:
        """Return everything that waits, which is then forgotten."""
        forgotten = [*self._waiting_alone, *self._waiting]
        for publish in self._waiting_alone:
            self._held.difference_update(publish.keys, publish.ids)
        self._waiting_alone.clear()
        self._waiting.clear()
        return forgotten

    def take(self) -> Travel | None:
        """Return what is to be sent now, if there is anything."""
        if self._batches < self._most_batches and self._waiting:
            batch = self._gathered()
            if batch:
                return self._begun(Travel(batch, is_batch=True, takes_turn=True))
        if self._waiting_alone and self._alone < self._most_alone:
            return self._begun(Travel([self._waiting_alone.popleft()], is_batch=False, takes_turn=False))
        return None

    def finish(self, travel: Travel, left: Iterable[WaitingPublish] = ()) -> None:
        """Note that a travel has ended.

        Args:
            travel: The travel.
            left: Those of its publishes that have no answer yet, in order: the first of each stream travels alone, and what
                follows it waits again, before all others.
        """
        if travel.takes_turn:
            self._batches -= 1
        else:
            self._alone -= 1
        for publish in travel.publishes:
            self._held.difference_update(publish.keys, publish.ids)
        keys: set[Hashable] = set()
        again: list[WaitingPublish] = []
        for publish in left:
            if publish.is_withdrawn:
                continue
            if keys.isdisjoint(publish.keys):
                self._wait_alone(publish)
            else:
                again.append(publish)
            keys |= publish.keys
        self._waiting.extendleft(reversed(again))

    def _begun(self, travel: Travel) -> Travel:
        if travel.takes_turn:
            self._batches += 1
        else:
            self._alone += 1
        for publish in travel.publishes:
            self._held.update(publish.keys, publish.ids)
        return travel

    def _wait_alone(self, publish: WaitingPublish) -> None:
        self._held.update(publish.keys, publish.ids)
        self._waiting_alone.append(publish)

    def _is_too_large(self, publish: WaitingPublish) -> bool:
        """Return whether it is too large for a batch, as far as is known now: a batch tells how many locks there may be."""
        return (
            publish.count > _MOST_EVENTS
            or len(publish.document.text) > _MOST_CHARACTERS
            or len(publish.locks) > self.most_locks
        )

    def _gathered(self) -> list[WaitingPublish]:
        """Take the publishes of the next batch out of those that wait, in their order; what cannot travel now stays."""
        batch: list[WaitingPublish] = []
        staying: list[WaitingPublish] = []
        keys: set[Hashable] = set()
        ids: set[Hashable] = set()
        locks: set[Hashable] = set()
        # Whatever these belong to is not to be overtaken.
        before: set[Hashable] = set()
        events = characters = 0
        while self._waiting and events < _MOST_EVENTS and len(locks) < self.most_locks:
            publish = self._waiting.popleft()
            if publish.is_withdrawn:
                continue
            free = (
                before.isdisjoint(publish.keys)
                and self._held.isdisjoint(publish.keys)
                and self._held.isdisjoint(publish.ids)
                and ids.isdisjoint(publish.ids)
            )
            alone = publish.travels_alone or self._is_too_large(publish)
            if free and alone and keys.isdisjoint(publish.keys):
                self._wait_alone(publish)
            elif (
                free
                and not alone
                and events + publish.count <= _MOST_EVENTS
                and characters + len(publish.document.text) <= _MOST_CHARACTERS
                and len(locks | publish.locks) <= self.most_locks
            ):
                batch.append(publish)
                keys |= publish.keys
                ids |= publish.ids
                locks |= publish.locks
                events += publish.count
                characters += len(publish.document.text)
            else:
                staying.append(publish)
                before |= publish.keys
        self._waiting.extendleft(reversed(staying))
        return batch
