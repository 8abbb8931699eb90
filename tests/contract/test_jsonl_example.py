"""The storage adapter of `examples/jsonl_events.py`: the cases that third parties run, and what only a file has."""

from __future__ import annotations

import itertools
from multiprocessing import get_context
from pathlib import Path

import pytest

from eventstore_sa import NewEvent, StreamIdentifier
from eventstore_sa.testing import SyncEventStorageAdapterCases
from eventstore_sa.types import EventQuery, QueryPartitionIdentifier
from examples.jsonl_events import JsonLinesEventStorageAdapter

STREAM = StreamIdentifier("orders", "42")


class TestJsonLinesEventStorageAdapter(SyncEventStorageAdapterCases):
    scans_are_snapshots = True
    adds_tags = False
    thorough = False

    @pytest.fixture
    def storage_adapter(self, tmp_path: Path) -> JsonLinesEventStorageAdapter:
        return JsonLinesEventStorageAdapter(tmp_path / "events.jsonl", durable=False)


def publish(path: Path, amount: int) -> None:
    adapter = JsonLinesEventStorageAdapter(path, durable=False)
    for number in range(amount):
        adapter.save(target=STREAM, events=[NewEvent(name="counted", payload=number)])


def test_processes_take_turns(tmp_path: Path) -> None:
    path, context = tmp_path / "events.jsonl", get_context("fork")
    workers = [context.Process(target=publish, args=(path, 50)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    events = list(JsonLinesEventStorageAdapter(path).scan())

    assert [event.position for event in events] == list(range(100))
    assert [event.sequence_number for event in events] == list(range(1, 101))


def test_a_line_that_was_not_finished_is_no_publish(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    publish(path, 1)
    whole = path.read_bytes()
    for length in itertools.chain([1], range(2, len(whole), 50)):
        path.write_bytes(whole + whole[:length])

        publish(path, 1)

        assert [event.position for event in JsonLinesEventStorageAdapter(path).scan()] == [0, 1]


def test_queries_find_events_by_their_tags(tmp_path: Path) -> None:
    adapter = JsonLinesEventStorageAdapter(tmp_path / "events.jsonl")
    tags = [{"course:a"}, {"course:a", "student:1"}, set[str]()]
    adapter.save(target=STREAM, events=[NewEvent(name="told", payload=None, tags=each) for each in tags])
    of_course = EventQuery.tagged("course:a")

    parts = [QueryPartitionIdentifier(of_course, part, 2) for part in range(2)]

    assert [event.position for event in adapter.scan(target=of_course)] == [0, 1]
    assert [event.position for part in parts for event in adapter.scan(target=part)] == [0, 1]
