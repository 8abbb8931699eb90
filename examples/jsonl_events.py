"""Events in a file of JSON lines: a storage adapter of your own, complete, and small enough to be read in one go.

One line holds one publish, so a publish is stored as a whole or, if the process dies while it writes the line, not at all.
Writers exclude each other by a lock on the file, threads and processes alike; readers need no lock. It passes the
`SyncEventStorageAdapterCases` of `eventstore_sa.testing`: see `tests/contract/test_jsonl_example.py`.

    python jsonl_events.py
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from uuid import UUID

import msgspec

from eventstore_sa import CategoryIdentifier, LogIdentifier, NewEvent, StoredEvent, StreamIdentifier, SyncEventStore
from eventstore_sa.conditions import NoEventMatchesCondition, WriteCondition, position_is
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters import (
    StreamPublication,
    SyncEventStorageAdapter,
    belongs_to,
    check_conditions,
    checked_constraints,
    checked_limit,
    checked_target,
    keyed_results,
    publications,
    replayed,
    stored_events,
)
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, decode_json


class Record(msgspec.Struct, frozen=True):
    """A stored event; payload and metadata stay text, so that each reader decodes objects of its own."""

    id: UUID
    name: str
    category: str
    stream: str
    position: int
    sequence_number: int
    payload: msgspec.Raw
    metadata: msgspec.Raw
    observed_at: str
    occurred_at: str
    tags: tuple[str, ...]
    version: int

    def event(self) -> AnyStoredEvent:
        return StoredEvent(
            self.id,
            self.name,
            self.stream,
            self.category,
            self.position,
            self.sequence_number,
            decode_json(bytes(self.payload)),
            decode_json(bytes(self.metadata)),
            datetime.fromisoformat(self.observed_at),
            datetime.fromisoformat(self.occurred_at),
            frozenset(self.tags),
            self.version,
        )


class JsonLinesEventStorageAdapter(SyncEventStorageAdapter):
    """Keeps events in a file.

    Args:
        path: The file; it is created by the first publish.
        durable: Whether a publish returns only when the disk has it.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        self._turn = Lock()
        # What has been read of the file so far. Only ever appended to, so that a length is a snapshot.
        self._size = 0
        self._records: list[Record] = []
        self._by_id: dict[UUID, Record] = {}
        self._lengths: dict[StreamIdentifier, int] = {}

    def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, Any] | None = None,
    ) -> Any:
        # Checks the arguments, and makes the same of all of them: streams, each with its events and its condition.
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        # What cannot be stored is refused before anything is locked.
        prepared = [part.prepared for part in parts]
        with self._turn, self._locked() as file:
            self._read_on()
            taken = {each.id: self._by_id[each.id] for batch in prepared for each in batch if each.id in self._by_id}
            if taken:
                # The same publish again returns what is stored, whatever its conditions say; anything else is an error.
                return keyed_results(streams, replayed(parts, {each: record.event() for each, record in taken.items()}))
            check_conditions(parts, self._last_position, self._is_absent)
            results = self._placed(parts)
            records = [
                Record(
                    each.id,
                    each.name,
                    stored.category,
                    stored.stream,
                    stored.position,
                    stored.sequence_number,
                    each.payload,
                    msgspec.Raw(b"null") if each.metadata is None else each.metadata,
                    each.observed_at.isoformat(),
                    each.occurred_at.isoformat(),
                    each.tags,
                    each.version,
                )
                for batch, result in zip(prepared, results, strict=True)
                for each, stored in zip(batch, result, strict=True)
            ]
            if records:
                # Behind the last whole line: whoever died while writing another has published nothing.
                file.truncate(self._size)
                file.write(msgspec.json.encode(records) + b"\n")
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            return keyed_results(streams, results)

    def latest(self, *, target: Any) -> AnyStoredEvent | None:
        return next(self.scan(target=target, limit=1, backwards=True), None)

    def scan(
        self,
        *,
        target: Any = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        checked, most, wanted = checked_target(target), checked_limit(limit), checked_constraints(constraints)
        with self._turn:
            self._read_on()
            records, end = self._records, len(self._records)

        def events() -> Iterator[AnyStoredEvent]:
            for index in reversed(range(end)) if backwards else range(end):
                event = records[index].event()
                if belongs_to(event, checked) and all(constraint.met_by(event=event) for constraint in wanted):
                    yield event

        return islice(events(), end if most is None else min(most, end))

    def drop_schema(self) -> None:
        with self._turn:
            self._path.unlink(missing_ok=True)
            self._size, self._records, self._by_id, self._lengths = 0, [], {}, {}

    @contextmanager
    def _locked(self) -> Generator[BinaryIO]:
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed
            yield file

    def _read_on(self) -> None:
        """Take in the lines that are new in the file; the last one counts only once it is whole."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._size)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._size += len(line)
                for record in msgspec.json.decode(line, type=list[Record]):
                    self._records.append(record)
                    self._by_id[record.id] = record
                    stream = StreamIdentifier(record.category, record.stream)
                    self._lengths[stream] = record.position + 1

    def _last_position(self, stream: StreamIdentifier) -> int | None:
        length = self._lengths.get(stream, 0)
        return length - 1 if length else None

    def _is_absent(self, condition: NoEventMatchesCondition) -> bool:
        # Numbers have no gaps: the event with number n is the nth.
        after = min(condition.after, len(self._records))
        if condition.last_id is not None and (
            after < condition.after or self._records[after - 1].id != condition.last_id
        ):
            return False
        return not any(condition.item.met_by(event=record.event()) for record in islice(self._records, after, None))

    def _placed(self, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        """Return the events of each part with the next positions and sequence numbers."""
        number, lengths, results = len(self._records) + 1, dict[StreamIdentifier, int](), list[list[AnyStoredEvent]]()
        for part in parts:
            first, count = lengths.get(part.stream, self._lengths.get(part.stream, 0)), len(part.events)
            results.append(stored_events(part, first_position=first, sequence_numbers=range(number, number + count)))
            lengths[part.stream] = first + count
            number += count
        return results


def main() -> None:
    path = Path("events.jsonl")
    path.unlink(missing_ok=True)
    store = SyncEventStore(JsonLinesEventStorageAdapter(path))
    order = store.stream(category="orders", stream="42")
    order.publish(events=[NewEvent(name="order-placed", payload={"total": 12})])
    order.publish(events=[NewEvent(name="order-paid", payload={"by": "card"})], condition=position_is(0))
    try:
        order.publish(events=[NewEvent(name="order-paid", payload={"by": "cash"})], condition=position_is(0))
    except UnmetWriteConditionError as error:
        print(error)
    # Another store on the same file, as in another process.
    for event in SyncEventStore(JsonLinesEventStorageAdapter(path)).log():
        print(event.position, event.name, event.payload)


if __name__ == "__main__":
    main()
