"""The benchmarks run: each of them once, over next to nothing. What they measure is told by `make bench` alone."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.__main__ import BENCHMARKS
from benchmarks.samples import append_document, new_events
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.publishing import publications
from eventstore_sa.types import StreamIdentifier
from tests.project import run_python


def test_every_benchmark_runs() -> None:
    run = run_python("-m", "benchmarks", "--quick")

    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    for benchmark in BENCHMARKS.values():
        assert any(line.startswith(benchmark.title) for line in lines), benchmark.name


def test_an_unknown_benchmark_is_refused_with_the_names_of_those_there_are() -> None:
    run = run_python("-m", "benchmarks", "no-such-benchmark")

    assert run.returncode == 2
    assert "'no-such-benchmark'" in run.stderr
    assert all(name in run.stderr for name in BENCHMARKS)


def test_the_raw_driver_sends_the_same_document_as_the_store() -> None:
    publish = publications(
        target=StreamIdentifier("orders", "order-1"), events=new_events(3), condition=stream_is_empty()
    )

    ours, theirs = publish_document(publish).text, append_document("order-1", 3)

    assert _shape(ours) == _shape(theirs)


def _shape(document: str) -> Any:
    """Leave of ids and times only how they are written."""
    streams = json.loads(document)
    for stream in streams:
        for event in stream["events"]:
            event["id"] = len(event["id"])
            for time in ("observed_at", "occurred_at"):
                event[time] = (event[time][10], event[time][-1])
    return streams
