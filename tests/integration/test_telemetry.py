"""Spans and metrics of what stores, projectors and subscriptions do, as OpenTelemetry's SDK receives them."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from eventstore_sa import EventStore, NewEvent, StoredEvent, StreamIdentifier, SyncEventStore, configure_sqlite
from eventstore_sa.conditions import stream_is_empty
from eventstore_sa.errors import DuplicateEventError, UnmetWriteConditionError
from eventstore_sa.persistence.events.document import publish_document
from eventstore_sa.projection import RebuildProgress
from eventstore_sa.publishing import publications
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.publish_queue import PublishQueue, WaitingPublish
from eventstore_sa.subscriptions import (
    FailurePolicy,
    Subscription,
    SyncSubscription,
    catch_up,
    catch_up_sync,
)
from eventstore_sa.telemetry import EventStoreInstrumentor, rebuild_gauge, watch, watch_sync
from tests.hosts import Host, each_driver, new_event
from tests.patience import wait_until
from tests.project import ROOT, run_python
from tests.projectors import OrderProjector


class Telemetry:
    """What has been received."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans() if span.name == name]
        return found

    def points(self, metric: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def names(self) -> tuple[set[str], set[str]]:
        """Return the names of metrics, and of their attributes."""
        data = self.reader.get_metrics_data()
        found = [
            (each.name, point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            for point in each.data.data_points
        ]
        return {name for name, _ in found}, {key for _, point in found for key in point.attributes or {}}

    def total(self, metric: str) -> float:
        return sum(point.value for point in self.points(metric))


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    received = Telemetry()
    instrumentor = EventStoreInstrumentor()
    instrumentor.instrument(tracer_provider=received.tracers, meter_provider=received.meters)
    yield received
    instrumentor.uninstrument()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield EventStore(InMemoryEventStorageAdapter())
        return
    async with EventStore(f"sqlite+aiosqlite:///{tmp_path}/events.db") as store:
        await store.create_schema()
        yield store


def placed() -> NewEvent:
    return NewEvent(name="order-placed", payload={"secret": "s3cret"})


def coalesced() -> WaitingPublish:
    """Make a publish as the queue of a store that coalesces holds it."""
    parts = publications(target=StreamIdentifier("orders", "1"), events=[placed()])
    return WaitingPublish(parts, publish_document(parts))


async def test_publish_and_reads_have_spans_with_names_and_counts(telemetry: Telemetry, store: EventStore) -> None:
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=[placed(), placed()])
    await store.category(category="orders").read()
    await stream.latest()
    async with aclosing(store.log().iterate()) as events:
        await anext(events)

    spans = {span.name: span for span in telemetry.spans()}
    assert set(spans) == {"publish orders", "read orders", "latest orders", "read log"}
    published = spans["publish orders"]
    assert (published.kind, published.status.status_code) == (SpanKind.PRODUCER, StatusCode.UNSET)
    assert published.attributes == {
        "messaging.system": "eventstore_sa",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "messaging.batch.message_count": 2,
    }
    assert spans["read orders"].attributes is not None
    assert spans["read orders"].attributes["db.response.returned_rows"] == 2
    assert "s3cret" not in "".join(span.to_json() for span in telemetry.spans())
    assert telemetry.total("eventstore_sa.events.published") == 2
    assert telemetry.total("eventstore_sa.events.read") == 2 + 1 + 1


async def test_unmet_condition_is_a_conflict_and_no_fault(telemetry: Telemetry, store: EventStore) -> None:
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=[placed()])
    with pytest.raises(UnmetWriteConditionError):
        await stream.publish(events=[placed()], condition=stream_is_empty())

    refused = telemetry.spans()[-1]
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "eventstore_sa.errors.UnmetWriteConditionError"
    assert refused.status.status_code is StatusCode.UNSET
    assert telemetry.total("eventstore_sa.conflicts") == 1


async def test_any_other_error_is_a_fault_without_its_message(telemetry: Telemetry, store: EventStore) -> None:
    event = placed()
    await store.stream(category="orders", stream="1").publish(events=[event])
    with pytest.raises(DuplicateEventError):
        await store.stream(category="orders", stream="2").publish(events=[event])

    refused = telemetry.spans()[-1]
    assert refused.status.status_code is StatusCode.ERROR
    assert refused.status.description == "eventstore_sa.errors.DuplicateEventError"
    assert refused.events == ()


async def test_current_span_is_the_parent_and_travels_in_the_metadata(telemetry: Telemetry, store: EventStore) -> None:
    tracer = telemetry.tracers.get_tracer("application")
    with tracer.start_as_current_span("request") as request:
        (stored,) = await store.stream(category="orders", stream="1").publish(
            events=[NewEvent(name="order-placed", payload=None, metadata={"by": "ada"})]
        )

    published = telemetry.span("publish orders")
    assert published.parent is not None
    assert published.parent.span_id == request.get_span_context().span_id
    context = published.get_span_context()
    assert stored.metadata["by"] == "ada"
    assert f"-{context.trace_id:032x}-{context.span_id:016x}-" in stored.metadata["traceparent"]


async def test_handlers_of_subscriptions_have_spans_with_links(telemetry: Telemetry, store: EventStore) -> None:
    current: list[int] = []

    async def handle(event: StoredEvent) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)

    await store.stream(category="orders", stream="1").publish(events=[placed()])
    await catch_up(Subscription("mails", store.category(category="orders"), handle))

    published, processed = telemetry.span("publish orders"), telemetry.span("process mails")
    assert processed.kind is SpanKind.CONSUMER
    assert [link.context.span_id for link in processed.links] == [published.get_span_context().span_id]
    assert current == [processed.get_span_context().span_id]
    assert processed.attributes is not None
    assert processed.attributes["messaging.destination.subscription.name"] == "mails"


async def test_failures_of_handlers_are_counted(telemetry: Telemetry, store: EventStore) -> None:
    async def handle(event: StoredEvent) -> None:
        raise ValueError("s3cret")

    await store.stream(category="orders", stream="1").publish(events=[placed()])
    policy = FailurePolicy(retries=0, then="skip")
    await catch_up(Subscription("mails", store.category(category="orders"), handle, on_failure=policy))

    assert telemetry.span("process mails").status.description == "ValueError"
    (point,) = telemetry.points("eventstore_sa.handler.failures")
    assert (point.value, dict(point.attributes)) == (
        1,
        {"messaging.destination.subscription.name": "mails", "error.type": "ValueError"},
    )


async def test_projecting_has_a_span_around_its_read(telemetry: Telemetry, store: EventStore) -> None:
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=[placed()])
    await OrderProjector().project(source=stream)

    projected, read = telemetry.span(f"project {OrderProjector().name}"), telemetry.span("read orders")
    assert read.parent is not None
    assert read.parent.span_id == projected.get_span_context().span_id


async def test_staged_events_have_a_span_at_the_commit(telemetry: Telemetry, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/events.db")
    configure_sqlite(engine)
    store = EventStore(engine)
    await store.create_schema()
    tracer = telemetry.tracers.get_tracer("application")
    async with async_sessionmaker(engine)() as session:
        with tracer.start_as_current_span("request") as request:
            staged = store.within(session).stream(category="orders", stream="1").stage(events=[placed()])
        assert telemetry.spans()[-1].name == "request"
        await session.commit()
    await engine.dispose()

    assert telemetry.span("publish orders").kind is SpanKind.PRODUCER
    assert telemetry.total("eventstore_sa.events.published") == 1
    assert f"{request.get_span_context().span_id:016x}" in staged.events[0].metadata["traceparent"]


@each_driver("postgresql+asyncpg")
async def test_sizes_of_coalesced_statements_are_histograms(telemetry: Telemetry, host: Host) -> None:
    engine = host.make_engine(poolclass=None, pool_size=3)
    store = EventStore(engine, coalesce=True)
    plain = EventStore(engine)
    await plain.stream(category="orders", stream="plain").publish(events=[placed()])
    assert telemetry.points("eventstore_sa.coalesced.publishes") == []

    await asyncio.gather(
        *(
            store.stream(category="orders", stream=str(number)).publish(events=[new_event("a"), new_event("b")])
            for number in range(5)
        )
    )
    await engine.dispose()

    # The first goes straight; what comes while it is under way travels together.
    (publishes,) = telemetry.points("eventstore_sa.coalesced.publishes")
    (events,) = telemetry.points("eventstore_sa.coalesced.events")
    assert (publishes.count, publishes.sum, publishes.max) == (2, 5, 4)
    assert (events.count, events.sum, events.max) == (2, 10, 8)
    assert publishes.explicit_bounds[:4] == (1, 2, 4, 8)


def test_the_same_without_asyncio(telemetry: Telemetry) -> None:
    store = SyncEventStore(SyncInMemoryEventStorageAdapter())
    stream = store.stream(category="orders", stream="1")
    stream.publish(events=[placed()])
    stream.latest()
    stream.read()
    OrderProjector().project_sync(source=stream)
    catch_up_sync(SyncSubscription("mails", store.category(category="orders"), lambda event: None))

    names = [span.name for span in telemetry.spans()]
    assert names[:3] == ["publish orders", "latest orders", "read orders"]
    assert {f"project {OrderProjector().name}", "process mails"} <= set(names)


async def test_context_is_not_added_if_that_is_not_wanted(store: EventStore) -> None:
    received = Telemetry()
    EventStoreInstrumentor().instrument(tracer_provider=received.tracers, propagate_context=False)
    try:
        (stored,) = await store.stream(category="orders", stream="1").publish(events=[placed()])
    finally:
        EventStoreInstrumentor().uninstrument()

    assert stored.metadata is None
    assert received.spans()


def test_after_uninstrumenting_a_publish_makes_the_calls_that_it_made_before() -> None:
    def calls() -> list[str]:
        stream = SyncEventStore(SyncInMemoryEventStorageAdapter()).stream(category="orders", stream="1")
        made: list[str] = []

        def note(frame: Any, kind: str, _: object) -> None:
            if kind == "call":
                made.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

        events = [NewEvent(name="order-placed", payload=None)]
        publish, queue = coalesced(), PublishQueue()
        sys.setprofile(note)
        try:
            stream.publish(events=events)
            queue.enter(publish)
        finally:
            sys.setprofile(None)
        return made

    calls()
    before = calls()
    received = Telemetry()
    EventStoreInstrumentor().instrument(tracer_provider=received.tracers, meter_provider=received.meters)
    during = calls()
    EventStoreInstrumentor().uninstrument()

    assert any("instrumentor.py" in call for call in during)
    assert calls() == before
    assert not any("instrumentor.py" in call for call in before)


def test_nothing_else_imports_telemetry() -> None:
    program = (
        "import sys, eventstore_sa, eventstore_sa.subscriptions, eventstore_sa.testing\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'eventstore_sa.telemetry'))])"
    )
    outcome = run_python("-c", program)
    assert outcome.stdout.strip() == "[]", outcome.stderr


async def test_gauges_show_the_watermark_and_subscriptions(store: EventStore) -> None:
    async def handle(event: StoredEvent) -> None:
        raise ValueError

    received = Telemetry()
    await store.stream(category="orders", stream="1").publish(events=[placed(), placed()])
    parking = Subscription(
        "mails", store.category(category="orders"), handle, on_failure=FailurePolicy(retries=0, then="park")
    )
    await catch_up(parking)
    await store.stream(category="orders", stream="1").publish(events=[placed()])

    async with watch(store, subscriptions=[parking], every_s=0.05, meter_provider=received.meters):
        while not received.points("eventstore_sa.watermark.lag"):  # noqa: ASYNC110 - the reader has no event
            await asyncio.sleep(0.01)
        assert [point.value for point in received.points("eventstore_sa.watermark.lag")] == [0]
        assert [point.value for point in received.points("eventstore_sa.subscription.parked")] == [2]
        (lag,) = received.points("eventstore_sa.subscription.lag")
        assert (lag.value, lag.attributes["messaging.destination.subscription.name"]) == (1, "mails")
    assert received.points("eventstore_sa.watermark.lag") == []


def test_gauges_are_read_by_a_thread_without_asyncio(tmp_path: Path) -> None:
    received = Telemetry()
    engine = create_engine(f"sqlite:///{tmp_path}/events.db")
    configure_sqlite(engine)
    store = SyncEventStore(engine)
    store.create_schema()
    counting = SyncSubscription("counting", store.log(), lambda event: None, sessions=None)
    counting.register()

    with watch_sync(store, subscriptions=[counting], every_s=0.05, meter_provider=received.meters):
        wait_until(lambda: received.points("eventstore_sa.subscription.lag_time"), "gauges")
    engine.dispose()


def test_progress_of_a_rebuild_is_a_gauge() -> None:
    received = Telemetry()
    show = rebuild_gauge("orders", meter_provider=received.meters)
    show(RebuildProgress(events=10, sequence_number=25, last_sequence_number=100))

    (point,) = received.points("eventstore_sa.rebuild.progress")
    assert (point.value, dict(point.attributes)) == (0.25, {"eventstore_sa.projection.name": "orders"})


async def test_dashboard_alerts_and_page_name_the_metrics_that_there_are(telemetry: Telemetry) -> None:
    async def handle(event: StoredEvent) -> None:
        raise ValueError

    store = EventStore(InMemoryEventStorageAdapter())
    stream = store.stream(category="orders", stream="1")
    await stream.publish(events=[placed()])
    with pytest.raises(UnmetWriteConditionError):
        await stream.publish(events=[placed()], condition=stream_is_empty())
    PublishQueue().enter(coalesced())
    await OrderProjector().project(source=store.stream(category="orders", stream="2"))
    mails = Subscription("mails", store.log(), handle, on_failure=FailurePolicy(retries=1, then="park"))
    await catch_up(mails)
    rebuild_gauge("orders", meter_provider=telemetry.meters)(
        RebuildProgress(events=1, sequence_number=1, last_sequence_number=1)
    )
    async with watch(store, subscriptions=[mails], every_s=0.05, meter_provider=telemetry.meters):
        while not telemetry.points("eventstore_sa.watermark.lag"):  # noqa: ASYNC110 - the reader has no event
            await asyncio.sleep(0.01)
        metrics, attributes = telemetry.names()

    folder = ROOT / "docs" / "observability"
    expressions = [
        target["expr"]
        for panel in json.loads((folder / "dashboard.json").read_text(encoding="utf-8"))["panels"]
        for target in panel["targets"]
    ]
    used = {
        re.sub(r"(_seconds)?(_total|_bucket|_count|_sum)?$", "", name)
        for text in (*expressions, (folder / "alerts.yaml").read_text(encoding="utf-8"))
        for name in re.findall(r"\b(?:eventstore_sa|messaging|db)_\w+", text)
    }
    assert used - {name.replace(".", "_") for name in metrics | attributes} == set()
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert {name for name in metrics if name not in page and f"`.{name.split('.')[-1]}`" not in page} == set()
