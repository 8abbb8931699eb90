"""Wraps what is worth a span: publishes, reads, projecting, and the handlers of subscriptions.

Spans follow OpenTelemetry's conventions for messaging (publishing and processing) and for databases (reading):
https://opentelemetry.io/docs/specs/semconv/. They carry names and counts, never payloads. The spans of SQL statements are
those of SQLAlchemy's own instrumentation, below these.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import contextmanager
from functools import partial, wraps
from inspect import isawaitable
from time import perf_counter
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias, cast

from msgspec.structs import replace
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from eventstore_sa import publishing
from eventstore_sa.attempts import Attempts
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.projection import Projector
from eventstore_sa.session import recording
from eventstore_sa.session.business_transaction import BusinessTransaction
from eventstore_sa.store import (
    EventCategory,
    EventLog,
    EventPartition,
    EventSelection,
    EventStore,
    EventStream,
    SyncEventCategory,
    SyncEventLog,
    SyncEventPartition,
    SyncEventSelection,
    SyncEventStore,
    SyncEventStream,
)
from eventstore_sa.store.adapters.publish_queue import PublishQueue, Travel
from eventstore_sa.subscriptions.partition import PartitionWorker
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, NewEvent

__all__ = ["EventStoreInstrumentor"]

_Wrapper: TypeAlias = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]

_SYSTEM: Final = "eventstore_sa"
_MOST_LINKS: Final = 128  # the default limit of a span
_SIZES: Final = tuple(2**power for power in range(11))  # of batches: they have 1000 events at most

_PUBLISHERS: Final = (EventStream, EventCategory, EventStore, SyncEventStream, SyncEventCategory, SyncEventStore)
_OF_MANY: Final = (EventCategory, EventStore, SyncEventCategory, SyncEventStore)  # these return events by stream
_SOURCES: Final = (EventStream, EventCategory, EventLog, EventPartition, EventSelection)
_SYNC_SOURCES: Final = (SyncEventStream, SyncEventCategory, SyncEventLog, SyncEventPartition, SyncEventSelection)


class EventStoreInstrumentor:
    """Makes every store of the process tell OpenTelemetry what it does.

    It has the methods of OpenTelemetry's instrumentors, and an entry point by which `opentelemetry-instrument` finds it.

    Examples:
        >>> EventStoreInstrumentor().instrument()
        >>> EventStoreInstrumentor().uninstrument()
    """

    _originals: ClassVar[list[tuple[Any, str, Any]]] = []

    def instrument(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        propagate_context: bool = True,
        **_: object,
    ) -> None:
        """Begin. If that was done already, nothing is changed.

        Args:
            tracer_provider: Where spans go; by default, to the global one.
            meter_provider: Where metrics go; by default, to the global one.
            propagate_context: Whether the context of the current trace is added to the metadata of events, as `traceparent`
                and `tracestate`, so that spans of handlers have links to the spans of publishers.
        """
        if self._originals:
            return
        recorder = _Recorder(tracer_provider, meter_provider)
        for kind in _PUBLISHERS:
            self._wrap(kind, "publish", recorder.around_publish)
        self._wrap(BusinessTransaction, "_stored", recorder.around_commit)
        self._wrap(PublishQueue, "_begun", recorder.around_coalesced)
        for kind in {_owner_of(kind, "latest") for kind in (*_SOURCES, *_SYNC_SOURCES)}:
            self._wrap(kind, "latest", recorder.around_latest)
        for kind in {_owner_of(kind, "iterate") for kind in _SOURCES}:
            self._wrap(kind, "iterate", recorder.around_iterate)
        for kind in {_owner_of(kind, "iterate") for kind in _SYNC_SOURCES}:
            self._wrap(kind, "iterate", recorder.around_iterate_sync)
        for method in ("project", "project_sync"):
            self._wrap(Projector, method, recorder.around_project)
        self._wrap(PartitionWorker, "__init__", recorder.around_worker)
        self._wrap(PartitionWorker, "_failed", recorder.around_failure)
        self._wrap(Attempts, "another_follows", recorder.around_attempt)
        if propagate_context:
            for module in (publishing, recording):
                self._wrap(module, "with_ambient_metadata", _add_context)

    def uninstrument(self, **_: object) -> None:
        """End: what was wrapped is as it was before."""
        for owner, name, original in self._originals:
            setattr(owner, name, original)
        self._originals.clear()

    def _wrap(self, owner: Any, name: str, wrapper: _Wrapper) -> None:
        original = cast("Callable[..., Any]", vars(owner)[name])

        @wraps(original)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if not isinstance(owner, type):
                return wrapper(original, None, arguments, options)
            subject, *others = arguments
            return wrapper(partial(original, subject), subject, tuple(others), options)

        setattr(owner, name, wrapped)
        self._originals.append((owner, name, original))


def _owner_of(kind: type[Any], name: str) -> type[Any]:
    """Return the class that defines a method of a class."""
    return next(each for each in kind.__mro__ if name in vars(each))


class _Operation(NamedTuple):
    """What a span is about."""

    name: str
    target: str
    kind: SpanKind
    attributes: Mapping[str, Any]
    duration: metrics.Histogram


class _Recorder:
    """The wrappers, with the instruments that they write to."""

    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
    ) -> None:
        self._tracer = trace.get_tracer("eventstore_sa", tracer_provider=tracer_provider)
        meter = metrics.get_meter("eventstore_sa", meter_provider=meter_provider)
        self._published = meter.create_counter("eventstore_sa.events.published", unit="{event}")
        self._read = meter.create_counter("eventstore_sa.events.read", unit="{event}")
        self._conflicts = meter.create_counter("eventstore_sa.conflicts", unit="{conflict}")
        self._retries = meter.create_counter("eventstore_sa.retries", unit="{retry}")
        self._failures = meter.create_counter("eventstore_sa.handler.failures", unit="{failure}")
        self._batch_publishes = meter.create_histogram(
            "eventstore_sa.coalesced.publishes", unit="{publish}", explicit_bucket_boundaries_advisory=_SIZES
        )
        self._batch_events = meter.create_histogram(
            "eventstore_sa.coalesced.events", unit="{event}", explicit_bucket_boundaries_advisory=_SIZES
        )
        self._publish_s = meter.create_histogram("messaging.client.operation.duration", unit="s")
        self._read_s = meter.create_histogram("db.client.operation.duration", unit="s")
        self._project_s = meter.create_histogram("eventstore_sa.projection.duration", unit="s")
        self._process_s = meter.create_histogram("messaging.process.duration", unit="s")

    # Publishing

    def around_publish(
        self, publish: Callable[..., Any], target: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        operation = self._publishing(_category_of(target))

        def count(result: Any) -> int:
            groups: Iterable[Sized] = result.values() if isinstance(target, _OF_MANY) else (result,)
            number = sum(map(len, groups))
            self._published.add(number, {"messaging.destination.name": operation.target})
            return number

        return self._around(operation, publish, arguments, options, count)

    def around_commit(
        self, store: Callable[..., Any], _: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        categories = {part.stream.category for publish in arguments[0] for part in publish.parts()}
        operation = self._publishing(categories.pop() if len(categories) == 1 else "log")

        def count(results: Sequence[Sequence[Sequence[AnyStoredEvent]]]) -> int:
            number = 0
            for events in (events for result in results for events in result if events):
                self._published.add(len(events), {"messaging.destination.name": events[0].category})
                number += len(events)
            return number

        return self._around(operation, store, arguments, options, count)

    def around_coalesced(
        self, begun: Callable[..., Travel], _: Any, arguments: tuple[Travel], options: dict[str, Any]
    ) -> Travel:
        travel = begun(*arguments, **options)
        self._batch_publishes.record(len(travel.publishes))
        self._batch_events.record(sum(publish.count for publish in travel.publishes))
        return travel

    def _publishing(self, destination: str) -> _Operation:
        attributes = {
            "messaging.system": _SYSTEM,
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": destination,
        }
        return _Operation("publish", destination, SpanKind.PRODUCER, attributes, self._publish_s)

    # Reading

    def around_latest(
        self, latest: Callable[..., Any], source: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        operation = self._reading("latest", source)

        def count(event: AnyStoredEvent | None) -> int:
            number = int(event is not None)
            self._read.add(number, {"db.collection.name": operation.target})
            return number

        return self._around(operation, latest, arguments, options, count)

    def around_iterate(
        self, iterate: Callable[..., Any], source: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> AsyncIterator[Any]:
        return self._followed(self._reading("read", source), iterate(*arguments, **options))

    def around_iterate_sync(
        self, iterate: Callable[..., Any], source: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Iterator[Any]:
        return self._followed_sync(self._reading("read", source), iterate(*arguments, **options))

    def _reading(self, name: str, source: Any) -> _Operation:
        category = _category_of(source)
        attributes = {"db.system.name": _SYSTEM, "db.operation.name": name, "db.collection.name": category}
        return _Operation(name, category, SpanKind.CLIENT, attributes, self._read_s)

    async def _followed(self, operation: _Operation, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
        with self._counted(operation) as counted:
            try:
                async for event in events:
                    counted.number += 1
                    yield event
            finally:
                close: Any = getattr(events, "aclose", None)
                if close is not None:
                    await close()

    def _followed_sync(self, operation: _Operation, events: Iterator[Any]) -> Iterator[Any]:
        with self._counted(operation) as counted:
            try:
                for event in events:
                    counted.number += 1
                    yield event
            finally:
                close: Any = getattr(events, "close", None)
                if close is not None:
                    close()

    @contextmanager
    def _counted(self, operation: _Operation) -> Generator[_Count]:
        # Not the current span: the caller's code runs between the events.
        counted = _Count()
        span = self._tracer.start_span(
            f"{operation.name} {operation.target}", kind=operation.kind, attributes=dict(operation.attributes)
        )
        began = perf_counter()
        failure: BaseException | None = None
        try:
            yield counted
        except BaseException as error:
            failure = error
            raise
        finally:
            if not isinstance(failure, Exception):  # leaving an iteration early is no failure
                failure = None
            self._end(operation, span, began, counted.number, failure)
            self._read.add(counted.number, {"db.collection.name": operation.target})

    # Projecting

    def around_project(
        self,
        project: Callable[..., Any],
        projector: Projector[Any, Any, Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        attributes = {"eventstore_sa.projection.name": projector.name}
        operation = _Operation("project", projector.name, SpanKind.INTERNAL, attributes, self._project_s)
        return self._around(operation, project, arguments, options, None)

    # Subscriptions

    def around_worker(
        self, make: Callable[..., None], _: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        node, work, *others = arguments
        handling = replace(work.handling, call=self._handler(work.name, work.handling.call))
        make(node, replace(work, handling=handling), *others, **options)

    def _handler(self, subscription: str, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        attributes = {
            "messaging.system": _SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": subscription,
        }
        operation = _Operation("process", subscription, SpanKind.CONSUMER, attributes, self._process_s)

        def handle(given: AnyStoredEvent | list[AnyStoredEvent], session: Any) -> Any:
            events = given if isinstance(given, list) else [given]
            return self._around(
                operation, call, (given, session), {}, lambda _: len(events), links=_links_to_publishers(events)
            )

        return handle

    def around_failure(
        self, failed: Callable[..., Any], worker: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        error = arguments[1].error
        name = worker._work.name  # noqa: SLF001 - both are the library's
        self._failures.add(1, {"messaging.destination.subscription.name": name, "error.type": _type_of(error)})
        return failed(*arguments, **options)

    def around_attempt(
        self, another_follows: Callable[..., bool], _: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> bool:
        follows = another_follows(*arguments, **options)
        if follows:
            self._retries.add(1, {"error.type": _type_of(arguments[0])})
        return follows

    # Spans

    def _around(
        self,
        operation: _Operation,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
        count: Callable[[Any], int] | None,
        *,
        links: Sequence[Link] = (),
    ) -> Any:
        """Call a function in a span; if it returns an awaitable, the span lasts until that is done."""
        span = self._tracer.start_span(
            f"{operation.name} {operation.target}",
            kind=operation.kind,
            attributes=dict(operation.attributes),
            links=links,
        )
        began = perf_counter()
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                result = call(*arguments, **options)
            if isawaitable(result):
                return self._awaited(operation, span, began, result, count)
            number = 0 if count is None else count(result)
        except BaseException as error:
            self._end(operation, span, began, 0, error)
            raise
        self._end(operation, span, began, number, None)
        return result

    async def _awaited(
        self,
        operation: _Operation,
        span: trace.Span,
        began: float,
        result: Awaitable[Any],
        count: Callable[[Any], int] | None,
    ) -> Any:
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                returned = await result
            number = 0 if count is None else count(returned)
        except BaseException as error:
            self._end(operation, span, began, 0, error)
            raise
        self._end(operation, span, began, number, None)
        return returned

    def _end(
        self, operation: _Operation, span: trace.Span, began: float, number: int, error: BaseException | None
    ) -> None:
        attributes = dict(operation.attributes)
        if number and operation.kind is not SpanKind.CLIENT:
            span.set_attribute("messaging.batch.message_count", number)
        elif number:
            span.set_attribute("db.response.returned_rows", number)
        if error is not None:
            attributes["error.type"] = _type_of(error)
            span.set_attribute("error.type", attributes["error.type"])
            if isinstance(error, UnmetWriteConditionError):  # an answer, not a fault
                self._conflicts.add(1, {"messaging.destination.name": operation.target})
            else:
                # The type alone: messages of the application's errors may contain anything.
                span.set_status(Status(StatusCode.ERROR, attributes["error.type"]))
        operation.duration.record(perf_counter() - began, attributes)
        span.end()


class _Count:
    """How many events were read."""

    def __init__(self) -> None:
        self.number: int = 0


def _category_of(target: Any) -> str:
    identifier = getattr(target, "identifier", None)
    return getattr(identifier, "category", None) or "log"


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _links_to_publishers(events: Sequence[AnyStoredEvent]) -> list[Link]:
    links: dict[tuple[int, int], Link] = {}
    for event in events:
        metadata: Any = event.metadata
        if isinstance(metadata, Mapping) and "traceparent" in metadata:
            carrier = cast("Mapping[str, str]", metadata)
            context = trace.get_current_span(propagate.extract(carrier)).get_span_context()
            if context.is_valid:
                links[context.trace_id, context.span_id] = Link(context)
        if len(links) == _MOST_LINKS:
            break
    return list(links.values())


def _add_context(
    with_ambient_metadata: Callable[[AnyNewEvent], AnyNewEvent],
    _: Any,
    arguments: tuple[AnyNewEvent],
    options: dict[str, Any],
) -> AnyNewEvent:
    event = with_ambient_metadata(*arguments, **options)
    carrier: dict[str, Any] = {}
    propagate.inject(carrier)
    own: Any = event.metadata
    if not carrier or not (own is None or isinstance(own, Mapping)):
        return event
    metadata: dict[str, Any] = {**carrier, **cast("Mapping[str, Any]", own or {})}
    return NewEvent(
        id=event.id,
        name=event.name,
        payload=event.payload,
        metadata=metadata,
        observed_at=event.observed_at,
        occurred_at=event.occurred_at,
        tags=event.tags,
        version=event.version,
    )
