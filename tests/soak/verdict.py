"""Compares what writers know and what readers saw with what is stored: here it is decided whether anything was missed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from tests.soak.journal import Counted, Decided, Entry, Noted, Prepared, Refused, Stored, Tried, Wrong
from tests.soak.plan import tags_of
from tests.soak.reader import Seen

__all__ = ["Knowledge", "findings"]

_SHOWN = 3


class Knowledge(msgspec.Struct):
    """What the writers know between them, by event id.

    Attributes:
        tried: May be stored; whoever is in none of the other two.
        stored: Must be stored.
        refused: Must not be stored.
        prepared: Events by the name of their prepared transaction.
        decided: Whether a prepared transaction was committed, by its name.
        commits: How many commits are known.
        counts: How often what happened.
        wrong: What must not happen, and did.
    """

    tried: dict[str, Noted] = {}
    stored: dict[str, Noted] = {}
    refused: dict[str, Noted] = {}
    prepared: dict[str, list[Noted]] = {}
    decided: dict[str, bool] = {}
    commits: int = 0
    counts: Counter[str] = msgspec.field(default_factory=Counter)
    wrong: list[str] = []

    def learn(self, entries: Iterable[Entry]) -> None:
        """Take in more of the journals; of one transaction they come in order."""
        for entry in entries:
            match entry:
                case Tried(events):
                    self.tried |= _by_id(events)
                case Stored(events):
                    self.stored |= _by_id(events)
                    self.commits += 1
                case Refused(events):
                    self.refused |= _by_id(events)
                case Prepared(gid, events):
                    self.prepared[gid] = events
                case Decided(gid, committed):
                    self.decided[gid] = committed
                    self.commits += committed
                case Counted(what):
                    self.counts[what] += 1
                case Wrong(what):
                    self.wrong.append(what)

    def settle(self) -> None:
        """Join what was prepared with what was decided about it, which another process noted: once, at the end."""
        for gid, committed in self.decided.items():
            events = _by_id(self.prepared[gid])
            if committed:
                self.tried |= events
                self.stored |= events
            else:
                self.refused |= events
        self.counts["two-phase commit"] = sum(self.decided.values())
        self.counts["two-phase rollback"] = len(self.decided) - self.counts["two-phase commit"]


def findings(table: Sequence[Noted], knowledge: Knowledge, readers: Iterable[Seen]) -> list[str]:
    """Return everything that is wrong, in words; nothing when each promise was kept.

    Args:
        table: What is stored, in the order of sequence numbers.
        knowledge: What writers know.
        readers: What readers saw.
    """
    return [
        *_shortened("", knowledge.wrong),
        *_against_writers(table, knowledge),
        *_disorder(table),
        *(problem for seen in readers for problem in _against_reader(table, seen)),
    ]


def _against_writers(table: Sequence[Noted], knowledge: Knowledge) -> list[str]:
    stored = _by_id(table)
    lost = [event for key, event in knowledge.stored.items() if key not in stored]
    unwanted = [event for event in table if event.id in knowledge.refused]
    from_nowhere = [event for event in table if event.id not in knowledge.tried]
    different = [
        (known, stored[key])
        for key, known in (knowledge.tried | knowledge.stored).items()
        if key in stored and not _agree(known, stored[key])
    ]
    return [
        *_shortened("committed, but not stored: ", lost),
        *_shortened("refused or rolled back, but stored: ", unwanted),
        *_shortened("stored, but nobody committed it: ", from_nowhere),
        *_shortened("stored differently from what the publish returned: ", different),
    ]


def _disorder(table: Sequence[Noted]) -> list[str]:
    """Find positions that are not 0, 1, 2 and so on in the order of sequence numbers."""
    following: defaultdict[tuple[str, str], int] = defaultdict(int)
    wrong = []
    for event in table:
        stream = event.category, event.stream
        if event.position != following[stream]:
            wrong.append(event)
        following[stream] += 1
    return _shortened("position out of order in its stream: ", wrong)


def _against_reader(table: Sequence[Noted], seen: Seen) -> list[str]:
    wanted = [
        event
        for event in table
        if seen.category in {None, event.category}
        and seen.stream in {None, event.stream}
        and (not seen.tags or seen.tags & tags_of(event.category, event.stream))
    ]
    if seen.events == wanted:
        return []
    what = "/".join(filter(None, (seen.category, seen.stream, *sorted(seen.tags)))) or "the log"
    where = f"{seen.reader}, {what}: "
    times = Counter(event.id for event in seen.events)
    ordered = [event.sequence_number or 0 for event in seen.events]
    return [
        *_shortened(f"{where}missed: ", [event for event in wanted if event.id not in times]),
        *_shortened(f"{where}seen more than once: ", [event for event in wanted if times[event.id] > 1]),
        *([f"{where}seen out of order"] if ordered != sorted(ordered) else []),
        *_shortened(f"{where}seen otherwise: ", sorted(set(seen.events) - set(wanted), key=repr)),
    ]


def _agree(known: Noted, stored: Noted) -> bool:
    if known.position is None:
        return (known.category, known.stream) == (stored.category, stored.stream)
    return known == stored


def _by_id(events: Iterable[Noted]) -> dict[str, Noted]:
    return {event.id: event for event in events}


def _shortened(what: str, cases: Sequence[object]) -> list[str]:
    lines = [f"{what}{case}" for case in cases[:_SHOWN]]
    return [*lines, f"{what}... {len(cases)} in all"] if len(cases) > _SHOWN else lines
