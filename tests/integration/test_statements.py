"""How many statements, and how many round trips, a call costs: a publish is one.

Statements are counted where SQLAlchemy hands them to the driver, round trips by a proxy between the driver and the server.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from select import select
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import AsyncAdaptedQueuePool, QueuePool, event, exists

from eventstore_sa import (
    EventQuery,
    EventStoreSchema,
    Projection,
    ProjectionStore,
    Projector,
    QueryItem,
    StreamIdentifier,
    SyncProjectionStore,
)
from eventstore_sa.conditions import (
    ConditionScope,
    WriteCondition,
    no_event_matches,
    position_is,
    stream_exists,
    stream_is_empty,
)
from eventstore_sa.errors import UnmetWriteConditionError
from eventstore_sa.persistence.events.conditions import ConditionContext
from eventstore_sa.query import (
    FilterClause,
    KeySetPagingClause,
    OffsetPagingClause,
    Operator,
    Path,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.testing.cases.tables import in_turn
from tests.awaiting import collected, entered, settled
from tests.hosts import POSTGRES_DRIVERS, Ground, Host, each_driver, each_kind_of_driver, new_event
from tests.projectors import CustomerProjector, OrderProjector

BEGINNING = ("BEGIN", "SAVEPOINT", "RELEASE SAVEPOINT")


class CategoryIsSmall(WriteCondition, frozen=True):
    """A condition of the application's own."""

    scope = ConditionScope.CATEGORY

    def to_expression(self, context: ConditionContext) -> Any:
        return ~exists().where(context.events.c.position > 1000)


class OtherOrderProjector(OrderProjector):
    """Another projection of the same streams."""

    name = "other-order"


class LargeOrderProjector(OrderProjector):
    """States that are not saved together."""

    name = "large-order"

    def initial_state_factory(self) -> dict[str, Any]:
        return {**super().initial_state_factory(), "large": "x" * 600_000}


class OtherLargeOrderProjector(LargeOrderProjector):
    name = "other-large-order"


@contextmanager
def statements(engine: Any) -> Iterator[list[str]]:
    """Collect the statements that are executed on an engine, but for the marks of transactions."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith(BEGINNING):
            seen.append(statement)

    sync_engine = getattr(engine, "sync_engine", engine)
    event.listen(sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(sync_engine, "before_cursor_execute", note)


def stream(store: Any, name: str = "1") -> Any:
    return store.stream(category="orders", stream=name)


def many(*names: str, **definition: Any) -> dict[str, Any]:
    return {name: {"events": [new_event()], **definition} for name in names}


PUBLISHES: dict[str, Callable[[Any], Any]] = {
    "one event": lambda store: stream(store).publish(events=[new_event()]),
    "one event with a condition": lambda store: stream(store).publish(events=[new_event()], condition=position_is(0)),
    "one event with many conditions": lambda store: stream(store).publish(
        events=[new_event()], condition=(position_is(0) | stream_is_empty()) & stream_exists()
    ),
    "one event with a condition on a query": lambda store: stream(store).publish(
        events=[new_event(tags=["course:c1"])],
        condition=no_event_matches(EventQuery([QueryItem(tags=["course:c1", "student:s1"]), QueryItem(names=["no"])])),
    ),
    "5,000 events": lambda store: stream(store).publish(
        events=[new_event() for _ in range(5000)], condition=position_is(0)
    ),
    "to streams of a category": lambda store: store.category(category="orders").publish(
        streams=many("2", "3", "4", condition=stream_is_empty()) | many("1", condition=position_is(0))
    ),
    "to 500 streams of a category": lambda store: store.category(category="orders").publish(
        streams=many(*map(str, range(10, 510)), condition=stream_is_empty())
    ),
    "across categories": lambda store: store.publish(
        streams={
            StreamIdentifier("orders", "1"): {"events": [new_event()], "condition": position_is(0)},
            StreamIdentifier("invoices", "1"): {"events": [new_event()], "condition": stream_is_empty()},
        }
    ),
    "events with tags": lambda store: stream(store).publish(
        events=[new_event(tags={"course:c1", f"student:{number}"}) for number in range(100)], condition=position_is(0)
    ),
    "no event": lambda store: stream(store).publish(events=[]),
    "a condition alone": lambda store: stream(store).publish(events=[], condition=position_is(0)),
}


@in_turn("publish", PUBLISHES)
@each_driver()
async def test_a_publish_is_one_statement(host: Host, publish: Callable[[Any], Any]) -> None:
    host.ground.empty()
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    host.ground.publish()
    with statements(host.engine) as seen:
        await settled(publish(host.store))

    assert len(seen) == 1


@in_turn("publish", PUBLISHES)
@each_kind_of_driver()
async def test_a_publish_within_a_session_is_one_statement(host: Host, publish: Callable[[Any], Any]) -> None:
    host.ground.empty()
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    host.ground.publish()
    async with host.caller() as (session, store):
        with statements(host.engine) as seen:
            await settled(publish(store))
            assert len(seen) == 1
            await settled(session.commit())

    assert len(seen) == 1


@each_driver()
async def test_a_publish_to_no_stream_is_no_statement(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    with statements(host.engine) as seen:
        await settled(host.store.publish(streams={}))
        await settled(host.store.category(category="orders").publish(streams={}))

    assert seen == []


@each_driver()
async def test_an_unmet_condition_is_one_statement_on_postgresql(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    host.ground.publish()
    with statements(host.engine) as seen, pytest.raises(UnmetWriteConditionError):
        await settled(stream(host.store).publish(events=[new_event()], condition=stream_is_empty()))

    # SQLite's INSERT stores nothing and cannot say why: a second statement does, and a third looks for a repetition.
    assert len(seen) == (1 if host.postgres else 3)


@each_driver()
async def test_an_unmet_condition_without_events_is_one_statement(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    with statements(host.engine) as seen, pytest.raises(UnmetWriteConditionError):
        await settled(stream(host.store).publish(events=[], condition=stream_exists()))

    assert len(seen) == 1


@each_driver()
async def test_a_repetition_costs_one_look_more(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    known = host.ground.publish()
    repeated = new_event("of-another", id=known.id)
    with statements(host.engine) as seen:
        await settled(stream(host.store).publish(events=[repeated]))

    assert len(seen) == 2


@each_driver()
async def test_a_custom_condition_costs_two_statements_more_at_most(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    host.ground.publish()
    with statements(host.engine) as seen:
        await settled(stream(host.store).publish(events=[new_event()], condition=CategoryIsSmall() & position_is(0)))
        await settled(
            host.store.category(category="orders").publish(streams=many("2", "3", condition=CategoryIsSmall()))
        )

    # SQLite's lock is its BEGIN IMMEDIATE.
    assert len(seen) == 2 * (3 if host.postgres else 2)


@each_kind_of_driver()
async def test_a_stream_is_read_with_one_statement_a_page(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    await settled(stream(host.store).publish(events=[new_event() for _ in range(2500)]))
    with statements(host.engine) as seen:
        assert await settled(stream(host.store).latest())
        assert len(seen) == 1
        assert len(await collected(stream(host.store).iterate(limit=999))) == 999
        assert len(seen) == 2
        assert len(await collected(stream(host.store).iterate(backwards=True))) == 2500
        assert len(seen) == 5
        # A first page that is full is followed by a look at where the scan has to end.
        assert len(await collected(stream(host.store).iterate())) == 2500
        assert len(seen) == 9


@each_kind_of_driver()
async def test_log_and_categories_are_read_with_one_watermark_and_one_statement_a_page(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    await settled(stream(host.store).publish(events=[new_event() for _ in range(2500)]))
    for source in (host.store.log(), host.store.category(category="orders"), host.store.log().partitions(1)[0]):
        with statements(host.engine) as seen:
            assert await settled(source.latest())
            assert len(seen) == 2
            assert len(await collected(source.iterate(limit=10))) == 10
            assert len(seen) == 4
            assert len(await collected(source.iterate())) == 2500
            assert len(seen) == 8


@each_kind_of_driver()
async def test_reads_within_a_session_need_no_watermark(host: Host) -> None:
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    host.ground.publish()
    async with host.caller() as (_, store):
        for source in (store.log(), store.category(category="orders"), stream(store)):
            with statements(host.engine) as seen:
                assert await settled(source.latest())
                assert len(seen) == 1
                assert len(await collected(source.iterate())) == 1
                assert len(seen) == 2


def projections(host: Host) -> Any:
    kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
    return kind(host.engine)


def projection(number: int) -> Projection[Any, Any]:
    return Projection(
        id=str(number), name="orders", source=StreamIdentifier("orders", str(number)), state=number, metadata=None
    )


NAMED = FilterClause(Operator.EQUAL, Path("name"), "orders")
BY_STATE = SortClause([SortField(Path("state"), SortOrder.DESC)])
PROJECTION_CALLS: dict[str, Callable[[Any], Any]] = {
    "save": lambda store: store.save(projection=projection(1)),
    "save a new one": lambda store: store.save(projection=projection(7), expected_version=0),
    "save over a version": lambda store: store.save(projection=projection(7), expected_version=1),
    "save_all": lambda store: store.save_all(projections=[projection(number) for number in range(5)]),
    "load": lambda store: store.load(name="orders", id="1"),
    "locate": lambda store: store.locate(name="orders", source=StreamIdentifier("orders", "1")),
    "search": lambda store: store.search(filters=[NAMED], sort=BY_STATE),
    "search for a page": lambda store: store.search(
        filters=[NAMED], sort=BY_STATE, paging=OffsetPagingClause(item_count=2)
    ),
    "search for the page after": lambda store: store.search(
        filters=[NAMED], sort=BY_STATE, paging=KeySetPagingClause(last_id="2", item_count=2)
    ),
    "count": lambda store: store.count(filters=[NAMED]),
    "delete": lambda store: store.delete(name="orders", id="7"),
}


@each_driver()
async def test_what_is_done_to_projections_is_one_statement_each(host: Host) -> None:
    store = projections(host)
    for name, call in PROJECTION_CALLS.items():
        with statements(host.engine) as seen:
            await settled(call(store))
        assert len(seen) == 1, name


INLINE: dict[str, tuple[Sequence[Projector[Any, Any, Any]], int, int]] = {
    "of the stream": ([OrderProjector()], 2, 3),
    "two of the stream": ([OrderProjector(), OtherOrderProjector()], 2, 5),
    "two of the stream with large states": ([LargeOrderProjector(), OtherLargeOrderProjector()], 3, 5),
    "of several streams": ([CustomerProjector()], 3, 3),
}


@in_turn("inline", INLINE)
@each_kind_of_driver()
async def test_a_publish_with_projections(
    host: Host, inline: tuple[Sequence[Projector[Any, Any, Any]], int, int]
) -> None:
    host.ground.empty()
    projectors, on_postgres, on_sqlite = inline
    store = host.store.with_projections(*projectors)
    await settled(stream(host.store).latest())  # the first use of a store compares its mode of locking
    for _ in range(2):
        with statements(host.engine) as seen:
            await settled(stream(store).publish(events=[new_event(payload=1)]))
        assert len(seen) == (on_postgres if host.postgres else on_sqlite)

    found = await settled(projections(host).search())
    assert [each.state["sum"] for each in found] == [2] * len(projectors)


class Proxy:
    """Passes bytes between a client and a server; counts them, and how often the client began to speak anew."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.flights = self.sent = self.received = 0
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client_speaks = False
            while True:
                for ready in select([client, server], [], [])[0]:
                    try:
                        said = ready.recv(1 << 20)
                    except OSError:
                        said = b""
                    if not said:
                        return
                    if ready is client and not client_speaks:
                        self.flights += 1
                    client_speaks = ready is client
                    if client_speaks:
                        self.sent += len(said)
                    else:
                        self.received += len(said)
                    (server if ready is client else client).sendall(said)

    def close(self) -> None:
        # Closing alone does not wake up whoever waits in accept().
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10)


@asynccontextmanager
async def behind_proxy(
    ground: Ground, driver: str, *, pooled: bool = True, **options: Any
) -> AsyncIterator[tuple[Host, Proxy]]:
    """Open a host whose connections go through a proxy; they are kept in a pool, or not."""
    url = ground.outside.url
    proxy = Proxy((url.host or "127.0.0.1", url.port or 5432))
    host = Host(ground, driver)
    await host.aclose()
    pool = AsyncAdaptedQueuePool if host.asynchronous else QueuePool
    host.ground = Ground(ground.outside)
    host.ground.url = lambda driver: url.set(drivername=driver, host="127.0.0.1", port=proxy.port)  # type: ignore[method-assign]
    kept = {"poolclass": pool, "pool_size": 1, "max_overflow": 0} if pooled else {}
    host.engine = host.make_engine(**kept, **options)
    host.store = host.store_on(host.engine, schema=EventStoreSchema())
    try:
        yield host, proxy
    finally:
        await host.aclose()
        proxy.close()


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_publish_of_its_own_is_one_round_trip(postgres_ground: Ground, driver: str) -> None:
    async with behind_proxy(postgres_ground, driver) as (host, proxy):
        for number in range(10):
            await settled(stream(host.store, str(number)).publish(events=[new_event()], condition=stream_is_empty()))
        before = proxy.flights
        for number in range(10, 20):
            await settled(stream(host.store, str(number)).publish(events=[new_event()], condition=stream_is_empty()))

        assert proxy.flights - before == 10


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_publish_sends_its_events_once_and_gets_their_numbers(postgres_ground: Ground, driver: str) -> None:
    # psycopg2 prepares nothing, and sends the text of the statement each time; asyncpg does not ask what will be returned.
    sent_besides = 320 if driver == "postgresql+psycopg2" else 110
    received_besides = 80 if driver == "postgresql+asyncpg" else 260
    async with behind_proxy(postgres_ground, driver) as (host, proxy):
        for _ in range(8):  # psycopg prepares statements that are repeated
            await settled(stream(host.store).publish(events=[new_event()]))
        for count in (1, 100):
            sent, received = proxy.sent, proxy.received
            await settled(stream(host.store).publish(events=[new_event(payload="x" * 1000) for _ in range(count)]))

            # 176 bytes are the names of the fields, the id, the name and the times of an event.
            assert 1000 * count < proxy.sent - sent <= 1176 * count + sent_besides
            assert proxy.received - received <= 8 * count + received_besides


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_publish_within_an_open_transaction_is_one_round_trip(postgres_ground: Ground, driver: str) -> None:
    async with behind_proxy(postgres_ground, driver) as (host, proxy), host.caller() as (session, store):
        for number in range(10):
            await settled(stream(store, str(number)).publish(events=[new_event()], condition=stream_is_empty()))
        before = proxy.flights
        for number in range(10, 20):
            await settled(stream(store, str(number)).publish(events=[new_event()], condition=stream_is_empty()))

        assert (proxy.flights - before) == 10
        await settled(session.rollback())


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_what_is_done_to_projections_is_one_round_trip_each(postgres_ground: Ground, driver: str) -> None:
    async with behind_proxy(postgres_ground, driver) as (host, proxy):
        store = projections(host)
        for _ in range(8):  # psycopg prepares statements that are repeated
            for call in PROJECTION_CALLS.values():
                await settled(call(store))
        for name, call in PROJECTION_CALLS.items():
            before = proxy.flights
            await settled(call(store))
            assert proxy.flights - before == 1, name


@pytest.mark.parametrize("driver", POSTGRES_DRIVERS)
async def test_a_publish_with_a_projection_of_its_stream_is_four_round_trips(
    postgres_ground: Ground, driver: str
) -> None:
    async with behind_proxy(postgres_ground, driver) as (host, proxy):
        store = host.store.with_projections(OrderProjector(), OtherOrderProjector())
        for _ in range(8):
            await settled(stream(store).publish(events=[new_event(payload=1)]))
        before = proxy.flights
        await settled(stream(store).publish(events=[new_event(payload=1)]))

        # BEGIN, the events and what is stored of the projections, their new states, COMMIT.
        assert proxy.flights - before == 4


SETTINGS_FOR_POOLERS: dict[str, tuple[dict[str, Any], int]] = {
    "no cache of asyncpg's": ({"statement_cache_size": 0}, 1),
    "no cache at all": ({"statement_cache_size": 0, "prepared_statement_cache_size": 0}, 2),
    # BEGIN, then the statement is prepared, then executed, COMMIT.
    "names": ({"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: f"name_{uuid4()}"}, 4),
}


@pytest.mark.parametrize("settings", SETTINGS_FOR_POOLERS)
async def test_a_publish_with_settings_for_poolers(postgres_ground: Ground, settings: str) -> None:
    connect_args, round_trips = SETTINGS_FOR_POOLERS[settings]
    async with behind_proxy(postgres_ground, "postgresql+asyncpg", connect_args=connect_args) as (host, proxy):
        for number in range(10):
            await settled(stream(host.store, str(number)).publish(events=[new_event()]))
        before = proxy.flights
        for number in range(10, 20):
            await settled(stream(host.store, str(number)).publish(events=[new_event()]))

        # With names, statements that are not used any more are closed in between.
        extra = proxy.flights - before - 10 * round_trips
        assert extra == (10 if settings == "names" else 0)


async def test_nothing_is_looked_up_on_a_new_connection(postgres_ground: Ground) -> None:
    """A type that asyncpg does not know would cost six round trips more, and its publish the server behind a pooler."""
    async with behind_proxy(postgres_ground, "postgresql+asyncpg", pooled=False) as (host, proxy):
        await settled(stream(host.store).publish(events=[new_event()]))
        before = proxy.flights
        async with entered(host.engine.connect()):
            pass
        connecting = proxy.flights - before
        before = proxy.flights
        await settled(stream(host.store).publish(events=[new_event()]))

        assert proxy.flights - before == connecting + 2
