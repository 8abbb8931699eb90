"""The benchmarks run: each once, over next to nothing and without peers. What they measure is told by `make bench` alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import main
from benchmarks.contenders.raw import append_document
from benchmarks.samples import new_events, order_placed
from benchmarks.workloads import SUITES
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.publishing import publications
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.testing.postgres.temporary import URL_VARIABLE
from eventstore_sa.types import StreamIdentifier

WORKLOADS = [workload for suite in SUITES for workload in suite.workloads]


def test_every_workload_is_measured_printed_and_written(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(URL_VARIABLE, postgres_server.url.render_as_string(hide_password=False))

    status = main(["--tiny", "--no-peers", "--results", str(tmp_path), "--note", "Not to be trusted."])

    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "**Not to be trusted.**" in page
    for workload in WORKLOADS:
        assert any(line.split()[:1] == [workload.name] for line in lines), workload.name
        assert f"### {workload.name}: {workload.title}\n" in page
    for plot in ("rates.svg", "growth.svg"):
        assert f"]({plot})" in page
        assert ET.parse(tmp_path / plot).getroot().get("viewBox")


def test_an_unknown_workload_is_refused_with_the_names_of_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-workload"]) == 2

    said = capsys.readouterr().err
    assert "'no-such-workload'" in said
    assert all(workload.name in said for workload in WORKLOADS)


def test_the_raw_driver_sends_the_same_document_as_the_store() -> None:
    publish = publications(
        target=StreamIdentifier("orders", "orders-1"), events=new_events(3), condition=stream_is_empty()
    )

    ours = publish_document(publish).text
    theirs = append_document([("orders", 1, [order_placed(number) for number in range(3)], -1)])

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
