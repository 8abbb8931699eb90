"""Inline projections: updated by publishes of every kind, in the publishing transaction, or not at all."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import (
    EventStore,
    EventStoreSchema,
    ProjectionStore,
    RecordsEvents,
    StreamIdentifier,
    SyncEventStore,
    SyncProjectionStore,
)
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import (
    ConcurrencyError,
    ConfigurationError,
    DuplicateEventError,
    MissingProjectionHandlerError,
    SerialisationError,
    UnmetWriteConditionError,
)
from eventstore_sa.projection import MissingHandlerBehaviour, rebuild
from eventstore_sa.store.adapters import EventStorageAdapter, InMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import AnyStoredEvent
from tests.awaiting import entered, settled
from tests.hosts import KINDS_OF_DRIVERS, Host, Note, each_driver, each_kind_of_driver, new_event, statements_of
from tests.projectors import CustomerProjector, OrderProjector

pytestmark = pytest.mark.keeps_connections


class Tally(msgspec.Struct):
    """A state with a type."""

    payloads: list[int]


class LatestProjector(OrderProjector):
    """The payload and metadata of the latest event of each order."""

    name = "latest"

    def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
        return {"payload": event.payload, "metadata": event.metadata}


class Place:
    """A store that updates projections, and what is committed of them."""

    def __init__(self, store: Any) -> None:
        self.bare = store
        self.store = store.with_projections(OrderProjector(), CustomerProjector())
        self.projections: Any = ProjectionStore(store) if isinstance(store, EventStore) else SyncProjectionStore(store)

    async def publish(self, *payloads: Any, stream: str = "1", category: str = "orders", **arguments: Any) -> Any:
        """Publish events to a stream."""
        target = self.store.stream(category=category, stream=stream)
        return await settled(target.publish(events=[new_event(payload=each) for each in payloads], **arguments))

    async def sums(self) -> dict[tuple[str, str], Any]:
        """Return what the projections have summed up."""
        return {(each.name, each.id): each.state["sum"] for each in await settled(self.projections.search())}

    async def state(self, name: str = "order", key: str = "1") -> Any:
        """Return the state of a projection."""
        found = await settled(self.projections.load(name=name, id=key))
        return None if found is None else found.state


@pytest_asyncio.fixture(loop_scope="function", params=["memory", "memory, sync", *KINDS_OF_DRIVERS])
async def place(request: pytest.FixtureRequest, make_host: Callable[[str], Host]) -> AsyncIterator[Place]:
    """Provide an empty store of each kind."""
    driver: str = request.param
    if driver.startswith("memory"):
        adapter = InMemoryEventStorageAdapter()
        yield Place(SyncEventStore(adapter) if driver.endswith("sync") else EventStore(adapter))
        return
    host = make_host(driver)
    yield Place(host.store)
    await host.aclose()


async def test_every_way_to_publish_updates_projections(place: Place) -> None:
    await place.publish(1)
    await settled(
        place.store.category(category="orders").publish(
            streams={"1": {"events": [new_event(payload=2)]}, "2": {"events": [new_event(payload=3)]}}
        )
    )
    await settled(
        place.store.publish(
            streams={
                StreamIdentifier("orders", "2"): {"events": [new_event(payload=4), new_event(payload=5)]},
                StreamIdentifier("payments", "2-a"): {"events": [new_event(payload=-10)]},
                StreamIdentifier("invoices", "2"): {"events": [new_event(payload=1000)]},
            }
        )
    )
    await settled(
        place.store.stream(category="orders", stream="3").update(
            OrderProjector(), lambda state: [new_event(payload=6 + len(state["names"]))]
        )
    )

    assert await place.sums() == {
        ("order", "1"): 3,
        ("order", "2"): 12,
        ("order", "3"): 6,
        ("customer", "1"): 3,
        ("customer", "2"): 2,
        ("customer", "3"): 6,
    }


async def test_what_is_projected_inline_is_what_a_replay_gives(place: Place) -> None:
    for number in range(5):
        await place.publish(number, number)
    projector, stream = OrderProjector(), place.store.stream(category="orders", stream="1")
    replayed = (
        await projector.project(source=stream)
        if isinstance(place.store, EventStore)
        else projector.project_sync(source=stream)
    )

    assert await settled(place.projections.load(name="order", id="1")) == replayed


async def test_a_store_without_projections_updates_none(place: Place) -> None:
    await settled(place.bare.stream(category="orders", stream="1").publish(events=[new_event(payload=1)]))

    assert await place.sums() == {}


async def test_a_publish_that_stores_nothing_changes_nothing(place: Place) -> None:
    await place.publish(1)

    await place.publish(condition=position_is(0))
    with pytest.raises(UnmetWriteConditionError):
        await place.publish(2, condition=stream_is_empty())

    assert await place.sums() == {("order", "1"): 1, ("customer", "1"): 1}


async def test_a_repeated_publish_is_not_applied_twice(place: Place) -> None:
    events = [new_event(payload=1), new_event(payload=2)]
    stream = place.store.stream(category="orders", stream="1")

    first = await settled(stream.publish(events=events, condition=stream_is_empty()))
    again = await settled(stream.publish(events=events, condition=stream_is_empty()))

    assert [event.id for event in first] == [event.id for event in again]
    with pytest.raises(DuplicateEventError):
        await settled(stream.publish(events=[events[1], new_event(payload=4)]))
    assert await place.sums() == {("order", "1"): 3, ("customer", "1"): 3}


async def test_an_error_of_a_handler_undoes_the_publish_and_tells_the_event(place: Place) -> None:
    await place.publish(1)
    events = [new_event(payload=2), new_event("forbidden")]

    with pytest.raises(ValueError, match="not to be") as caught:
        await settled(place.store.stream(category="orders", stream="1").publish(events=events))

    assert caught.value.__notes__ == [
        f"projector 'customer' was at event 'forbidden' (id {events[1].id}) of stream 'orders/1', position 2"
    ]
    assert (await settled(place.store.stream(category="orders", stream="1").latest())).position == 0
    assert await place.sums() == {("order", "1"): 1, ("customer", "1"): 1}
    await place.publish(4)
    assert await place.sums() == {("order", "1"): 5, ("customer", "1"): 5}


async def test_handlers_get_what_a_read_returns_and_cannot_change_what_is_stored(place: Place) -> None:
    class Hungry(OrderProjector):
        def something_happened(self, state: dict[str, Any], event: AnyStoredEvent) -> dict[str, Any]:
            assert event.payload == {"items": [1, 2]}
            event.payload["items"].clear()
            return state

    payload = {"items": (1, 2)}
    store = place.bare.with_projections(Hungry())
    (stored,) = await settled(store.stream(category="orders", stream="1").publish(events=[new_event(payload=payload)]))

    assert payload == {"items": (1, 2)}
    assert stored.payload is payload
    latest = await settled(store.stream(category="orders", stream="1").latest())
    assert latest.payload == {"items": [1, 2]}


async def test_what_one_projection_makes_of_a_payload_is_unseen_by_the_others(place: Place) -> None:
    class First(OrderProjector):
        name = "a"

        def something_happened(self, state: Any, event: AnyStoredEvent) -> Any:
            if "names" not in event.payload:
                return event.payload
            state["lines"].append("more")
            return state

    class Second(First):
        name = "b"

        def something_happened(self, state: Any, event: AnyStoredEvent) -> Any:
            return {"lines": [*state.get("lines", []), *event.payload["lines"]]}

    store = place.bare.with_projections(First(), Second())
    events = [new_event(payload={"lines": [1]}), new_event(payload={"lines": [2], "names": []})]
    await settled(store.stream(category="orders", stream="1").publish(events=events))

    assert await place.state("a") == {"lines": [1, "more"]}
    assert await place.state("b") == {"lines": [1, 2]}


@in_turn("id", ["\0", "\ud800", 1])
async def test_ids_that_cannot_be_stored_are_refused(place: Place, id: Any) -> None:
    class Odd(OrderProjector):
        def ids(self, event: AnyStoredEvent) -> Any:
            return [id]

    store = place.bare.with_projections(Odd())
    with pytest.raises(SerialisationError, match="projection id's name"):
        await settled(store.stream(category="orders", stream="1").publish(events=[new_event(payload=1)]))

    assert await place.sums() == {}


async def test_without_categories_events_without_a_handler_are_passed_over(place: Place) -> None:
    class OfAnyCategory(OrderProjector):
        categories = None
        missing_handler_behaviour = MissingHandlerBehaviour.RAISE

    store = place.bare.with_projections(OfAnyCategory())
    await settled(store.stream(category="anything", stream="7").publish(events=[new_event("unknown"), new_event()]))

    assert (await place.state(key="7"))["names"] == ["something-happened"]


async def test_with_categories_their_events_need_handlers(place: Place) -> None:
    class Strict(OrderProjector):
        missing_handler_behaviour = MissingHandlerBehaviour.RAISE

    store = place.bare.with_projections(Strict())
    await settled(store.stream(category="invoices", stream="1").publish(events=[new_event("unknown")]))
    with pytest.raises(MissingProjectionHandlerError):
        await settled(store.stream(category="orders", stream="1").publish(events=[new_event("unknown")]))

    assert await settled(store.stream(category="orders", stream="1").latest()) is None


async def test_two_streams_cannot_share_a_projection_by_accident(place: Place) -> None:
    class Careless(OrderProjector):
        categories = None

    store = place.bare.with_projections(Careless())
    await settled(store.stream(category="orders", stream="1").publish(events=[new_event()]))

    with pytest.raises(ConfigurationError, match="gives the id '1' to two streams"):
        await settled(store.stream(category="invoices", stream="1").publish(events=[new_event()]))
    with pytest.raises(ConfigurationError, match="gives the id '2' to two streams"):
        await settled(
            store.publish(
                streams={
                    StreamIdentifier("orders", "2"): {"events": [new_event()]},
                    StreamIdentifier("invoices", "2"): {"events": [new_event()]},
                }
            )
        )


async def test_an_id_that_depends_on_the_state_is_refused(place: Place) -> None:
    class Changing(OrderProjector):
        def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
            return f"{source.stream} {len(state['names'])}"

    class Failing(OrderProjector):
        def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
            return str(state["names"][0])

    for projector, message in ((Changing(), "depend on the state"), (Failing(), "fails for the initial state")):
        store = place.bare.with_projections(projector)
        with pytest.raises(ConfigurationError, match=message):
            await settled(store.stream(category="orders", stream="1").publish(events=[new_event()]))
    assert await settled(place.bare.log().latest()) is None


async def test_projections_that_cannot_be_inline_are_refused(place: Place) -> None:
    class Waiting(OrderProjector):
        async def something_happened(  # type: ignore[override]
            self, state: dict[str, Any], event: AnyStoredEvent
        ) -> dict[str, Any]:
            return state

    with pytest.raises(ConfigurationError, match=r"Waiting\.something_happened is a coroutine function"):
        place.bare.with_projections(Waiting())
    with pytest.raises(ConfigurationError, match="two projections of this store are called 'order'"):
        place.store.with_projections(OrderProjector())
    unfit: list[Any] = [OrderProjector, object()]
    for given, message in zip(unfit, ("OrderProjector is a class: pass an instance", "not 'object'"), strict=True):
        with pytest.raises(ConfigurationError, match=message):
            place.bare.with_projections(given)


async def test_states_that_would_come_back_as_something_else_are_refused(place: Place) -> None:
    class Untyped(OrderProjector):
        def initial_state_factory(self) -> Any:
            return Tally([])

    with pytest.raises(ConfigurationError, match=r"starts with Tally, .* set state_type in Untyped"):
        place.bare.with_projections(Untyped())


async def test_projections_add_up(place: Place) -> None:
    store = place.bare.with_projections(OrderProjector()).with_projections(CustomerProjector())
    await settled(store.stream(category="orders", stream="1").publish(events=[new_event(payload=1)]))

    assert await place.sums() == {("order", "1"): 1, ("customer", "1"): 1}
    assert type(store) is type(place.bare)


async def test_states_are_made_into_the_type_that_handlers_want(place: Place) -> None:
    class Typed(OrderProjector):
        state_type = Tally
        metadata_type = tuple[int, ...]

        def initial_state_factory(self) -> Any:
            return Tally([])

        def initial_metadata_factory(self) -> Any:
            return ()

        def something_happened(self, state: Any, event: AnyStoredEvent) -> Any:
            assert isinstance(state, Tally)
            return Tally([*state.payloads, event.payload])

        def update_metadata(self, state: Any, metadata: Any, event: AnyStoredEvent) -> Any:
            assert isinstance(metadata, tuple)
            return (*metadata, event.position)

    store = place.bare.with_projections(Typed())
    for payload in (1, 2, 1):
        await settled(store.stream(category="orders", stream="1").publish(events=[new_event(payload=payload)]))

    loaded = await settled(place.projections.load(name="order", id="1", state_type=Tally))
    assert (loaded.state, loaded.metadata) == (Tally([1, 2, 1]), [0, 1, 2])


@each_kind_of_driver()
async def test_a_publish_loads_and_saves_each_projection_once(host: Host) -> None:
    place = Place(host.store)
    await place.publish(1)
    streams = {str(number): {"events": [new_event(payload=1)]} for number in range(500)}
    with statements_of(host.engine) as seen:
        await settled(place.store.category(category="orders").publish(streams=streams))

    work = [each for each in seen if not each.startswith(("BEGIN", "COMMIT"))]
    assert len(work) == 5
    assert len(await place.sums()) == 1000


@each_kind_of_driver()
async def test_staged_publishes_load_and_save_each_projection_once(host: Host) -> None:
    place = Place(host.store)
    await place.publish(1)
    async with entered(host.session()) as session:
        store = place.store.within(session)
        for number in range(20):
            store.stream(category="orders", stream=str(number % 7)).stage(events=[new_event(payload=1)])
        host.store.within(session).stream(category="orders", stream="1").stage(events=[new_event(payload=1000)])
        with statements_of(host.engine) as seen:
            await settled(session.commit())

    work = [each for each in seen if not each.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE"))]
    # On PostgreSQL also whether the transaction holds projections already.
    assert len(work) == (6 if host.postgres else 5)
    assert (await place.sums())["order", "1"] == 4
    assert len(host.ground.names()) == 22


@pytest.mark.parametrize("staged", [False, True], ids=["at once", "staged"])
@each_kind_of_driver()
async def test_projections_are_committed_and_rolled_back_with_the_session(host: Host, staged: bool) -> None:
    place = Place(host.store)
    async with entered(host.session()) as session:
        for end in ("rollback", "commit"):
            store = place.store.within(session)
            stream = store.stream(category="orders", stream="1")
            if staged:
                stream.stage(events=[new_event(payload=1)])
            else:
                await settled(stream.publish(events=[new_event(payload=1)]))
            await host.write(session, end)
            assert await place.sums() == {}
            await settled(getattr(session, end)())

    assert await place.sums() == {("order", "1"): 1, ("customer", "1"): 1}
    assert host.ground.notes() == ["commit"]


@each_kind_of_driver()
async def test_a_failing_handler_leaves_the_hosts_transaction_usable(host: Host) -> None:
    place = Place(host.store)
    async with entered(host.session()) as session:
        store = place.store.within(session)
        stream = store.stream(category="orders", stream="1")
        await host.write(session, "before")
        await settled(stream.publish(events=[new_event(payload=1)]))
        locks = await host.locks(session)
        with pytest.raises(ValueError, match="not to be"):
            await settled(stream.publish(events=[new_event(payload=2), new_event("forbidden")]))
        with pytest.raises(ValueError, match="not to be"):
            await settled(
                store.stream(category="orders", stream="2").publish(
                    events=[new_event(payload=2), new_event("forbidden")]
                )
            )
        assert await host.locks(session) == locks
        await host.write(session, "after")
        await settled(stream.publish(events=[new_event(payload=4)]))
        await settled(session.commit())

    assert host.ground.names() == ["something-happened"] * 2
    assert host.ground.notes() == ["after", "before"]
    assert await place.sums() == {("order", "1"): 5, ("customer", "1"): 5}


@each_kind_of_driver()
async def test_a_failing_handler_of_what_is_staged_fails_the_commit(host: Host) -> None:
    place = Place(host.store)
    async with entered(host.session()) as session:
        store = place.store.within(session)
        await host.write(session, "before")
        store.stream(category="orders", stream="1").stage(events=[new_event("forbidden")])
        with pytest.raises(ValueError, match="not to be"):
            await settled(session.commit())
        await settled(session.rollback())
        await host.write(session, "after")
        await settled(session.commit())

    assert host.ground.names() == []
    assert host.ground.notes() == ["after"]
    assert await place.sums() == {}


@each_kind_of_driver()
async def test_a_staged_repetition_is_not_applied_twice(host: Host) -> None:
    place = Place(host.store)
    event = new_event(payload=1)
    await settled(place.store.stream(category="orders", stream="1").publish(events=[event]))
    async with entered(host.session()) as session:
        store = place.store.within(session)
        store.stream(category="orders", stream="1").stage(events=[event])
        store.stream(category="orders", stream="1").stage(events=[new_event(payload=2)])
        store.stream(category="orders", stream="2").stage(events=[new_event(payload=4)])
        await settled(session.commit())

    assert await place.sums() == {("order", "1"): 3, ("order", "2"): 4, ("customer", "1"): 3, ("customer", "2"): 4}


@each_kind_of_driver()
async def test_what_was_staged_is_stored_and_projected_whatever_becomes_of_the_payload(host: Host) -> None:
    payload, metadata = {"items": [1]}, {"tags": ["new"]}
    async with entered(host.session()) as session:
        store = host.store.with_projections(LatestProjector()).within(session)
        staged = store.stream(category="orders", stream="1").stage(
            events=[new_event(payload=payload, metadata=metadata)]
        )
        payload["items"].append(2)
        payload["why"] = [float("nan")]
        metadata.clear()
        await settled(session.commit())

    stored = await settled(host.store.stream(category="orders", stream="1").latest())
    assert (stored.payload, stored.metadata) == ({"items": [1]}, {"tags": ["new"]})
    assert await Place(host.store).state("latest") == {"payload": {"items": [1]}, "metadata": {"tags": ["new"]}}
    assert staged.events[0].payload is payload


@each_kind_of_driver()
async def test_a_savepoint_takes_projections_with_it(host: Host) -> None:
    place = Place(host.store)
    async with entered(host.session()) as session:
        store = place.store.within(session)
        stream = store.stream(category="orders", stream="1")
        await settled(stream.publish(events=[new_event(payload=1)]))
        savepoint = await settled(session.begin_nested())
        await settled(stream.publish(events=[new_event(payload=2)]))
        await settled(savepoint.rollback())
        await settled(stream.publish(events=[new_event(payload=4)]))
        await settled(session.commit())

    assert await place.sums() == {("order", "1"): 5, ("customer", "1"): 5}


@each_kind_of_driver()
async def test_projections_beside_events_can_be_read_within_the_session(host: Host) -> None:
    place = Place(host.store)
    async with entered(host.session()) as session:
        store = place.store.within(session)
        await settled(store.stream(category="orders", stream="1").publish(events=[new_event(payload=1)]))
        kind: Any = ProjectionStore if host.asynchronous else SyncProjectionStore
        found = await settled(kind(store).load(name="order", id="1"))

        assert found.state["sum"] == 1
        assert await place.sums() == {}


async def test_recorded_events_update_the_projections_of_their_class(sqlite_ground: Any) -> None:
    class Base(DeclarativeBase):
        pass

    schema = EventStoreSchema(Base.metadata)

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        __event_projections__ = (OrderProjector(),)
        id: Mapped[int] = mapped_column(primary_key=True)

    host = Host(sqlite_ground, "sqlite")
    Base.metadata.create_all(host.engine)
    with host.session() as session:
        for payload in (1, 2):
            order = Order()
            session.add(order)
            order.record(new_event(payload=payload))
        session.commit()

    found = SyncProjectionStore(host.engine, schema=schema).search()
    assert [(each.id, each.state["sum"]) for each in found] == [("1", 1), ("2", 2)]


class SessionProjection:
    """Writes a note for each event through the session that it is given."""

    name = "notes"
    needs_session = True

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.sessions: list[Any] = []

    def check_inline(self) -> None:
        pass

    def inline_id(self, stream: Any, names: Any) -> None:
        return None

    def apply_inline(self, place: Any, events: Any) -> None:
        session = place.session()
        self.sessions.append(session)
        session.add_all(Note(note=f"{event.name} {event.sequence_number}") for event in events)
        if self.failures:
            session.flush()
            raise self.failures.pop()


@each_kind_of_driver()
async def test_a_projection_may_work_on_a_session(host: Host) -> None:
    projection = SessionProjection()
    store = host.store.with_projections(projection)
    await settled(store.stream(category="orders", stream="1").publish(events=[new_event(), new_event()]))
    assert len(host.ground.notes()) == 2

    async with entered(host.session()) as session:
        within = store.within(session)
        await settled(within.stream(category="orders", stream="1").publish(events=[new_event()]))
        within.stream(category="orders", stream="1").stage(events=[new_event()])
        await settled(session.commit())
        assert [each is getattr(session, "sync_session", session) for each in projection.sessions] == [
            False,
            True,
            True,
        ]
        assert len(list((await settled(session.scalars(select(Note)))).all())) == 4


@pytest.mark.parametrize("failure", [ValueError("no"), ConcurrencyError("a lost race")], ids=["error", "lost race"])
@each_kind_of_driver()
async def test_a_projection_on_a_session_is_undone_with_its_publish(host: Host, failure: Exception) -> None:
    projection = SessionProjection()
    store = host.store.with_projections(projection)
    projection.failures = [failure]
    lost_race = isinstance(failure, ConcurrencyError)

    async def publish(store: Any) -> None:
        with nullcontext() if lost_race else pytest.raises(ValueError, match="no"):
            await settled(store.stream(category="orders", stream="1").publish(events=[new_event()]))

    await publish(store)
    assert len(host.ground.notes()) == len(host.ground.names()) == lost_race

    projection.failures = [failure]
    async with entered(host.session()) as session:
        session.add(Note(note="mine"))
        await publish(store.within(session))
        assert {each.note[:4] for each in (await settled(session.scalars(select(Note)))).all()} >= {"mine"}
        await settled(session.commit())
    assert len(host.ground.notes()) == 1 + 2 * lost_race
    assert len(host.ground.names()) == 2 * lost_race


def test_a_projection_that_needs_a_session_is_refused_in_memory() -> None:
    for store in (EventStore(InMemoryEventStorageAdapter()), SyncEventStore(InMemoryEventStorageAdapter())):
        with pytest.raises(ConfigurationError, match="'notes' works on a database session"):
            store.with_projections(SessionProjection())


@pytest.mark.parametrize("options", [{"isolation_level": "AUTOCOMMIT"}, {"configured": False}], ids=str)
@each_driver("sqlite", "sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg")
async def test_a_publish_is_a_transaction_on_engines_of_all_kinds(host: Host, options: dict[str, Any]) -> None:
    engine = host.make_engine(**options)
    place = Place(host.store_on(engine))
    await place.publish(1)
    with pytest.raises(ValueError, match="not to be"):
        await settled(
            place.store.stream(category="orders", stream="1").publish(
                events=[new_event(payload=2), new_event("forbidden")]
            )
        )

    assert host.ground.names() == ["something-happened"]
    assert await place.sums() == {("order", "1"): 1, ("customer", "1"): 1}
    await settled(engine.dispose())


class ForeignAdapter(EventStorageAdapter):
    """Somebody else's storage, which knows no projections."""

    async def save(self, **arguments: Any) -> Any:
        raise NotImplementedError

    async def latest(self, **arguments: Any) -> Any:
        raise NotImplementedError

    def scan(self, **arguments: Any) -> Any:
        raise NotImplementedError


async def test_storage_without_projections_says_so() -> None:
    store = EventStore(ForeignAdapter())

    with pytest.raises(ConfigurationError, match="ForeignAdapter keeps no projections beside its events"):
        store.with_projections(OrderProjector())
    with pytest.raises(ConfigurationError, match="ForeignAdapter keeps no projections beside its events"):
        await rebuild(OrderProjector(), store=store)
    with pytest.raises(ConfigurationError, match="no projections are kept beside the events of ForeignAdapter"):
        ProjectionStore(store)


def test_tables_that_nobody_uses_any_more_are_forgotten() -> None:
    schema = EventStoreSchema(prefix="short_lived_")
    with SyncEventStore("sqlite://", schema=schema) as store:
        store.create_schema()
        inline = store.with_projections(OrderProjector())
        inline.stream(category="orders", stream="1").publish(events=[new_event(payload=1)])
    forgotten = weakref.ref(schema)

    del schema, store, inline
    gc.collect()

    assert forgotten() is None
