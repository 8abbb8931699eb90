"""What listeners stage or record while the session commits: it is stored with that commit, or the commit raises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, RecordsEvents, SyncEventStore, configure_sqlite
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import TransactionError, UnmetWriteConditionError
from eventstore_sa.persistence.sqlalchemy_internals import connections_of, is_committing, is_flushing
from eventstore_sa.projection import TableProjection, project
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, new_event
from tests.preloaded import run_preloaded
from tests.tables import AnyEvent

pytestmark = pytest.mark.keeps_connections

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")
sqlite_and_postgresql = each_driver("sqlite", "postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class Order(RecordsEvents, Base):
    __tablename__ = "late_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="placed")


class Versioned(RecordsEvents, Base):
    __tablename__ = "late_versioned"
    __event_version__ = "version"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(default=0)


class Count(Base):
    __tablename__ = "late_counts"
    id: Mapped[str] = mapped_column(primary_key=True)
    events: Mapped[int] = mapped_column(default=0)


@project(Count)
class CountProjection(TableProjection):
    def recorded(self, row: Count, _: AnyEvent) -> None:
        row.events = (row.events or 0) + 1


class Counted(RecordsEvents, Base):
    __tablename__ = "late_counted"
    __event_projections__ = (CountProjection(),)
    id: Mapped[int] = mapped_column(primary_key=True)


SCHEMA = EventStoreSchema(Base.metadata)
TABLES = [kind.__table__ for kind in (Order, Versioned, Count, Counted)]

SESSION_HOOKS = ("before_commit", "before_flush", "after_flush", "after_flush_postexec")
MAPPER_HOOKS = ("before_insert", "after_insert", "before_update", "after_update", "before_delete", "after_delete")
PLACES = ("the session", "the class of sessions, last", "the class of sessions, first")


@asynccontextmanager
async def open_session(host: Host, bind: Any = None, **options: Any) -> AsyncIterator[tuple[Any, Session]]:
    Base.metadata.create_all(host.ground.outside, tables=TABLES)
    try:
        async with entered(host.session(bind, **options)) as session:
            yield session, getattr(session, "sync_session", session)
    finally:
        Base.metadata.drop_all(host.ground.outside, tables=TABLES)


@contextmanager
def listening(target: Any, name: str, listener: Any, **options: Any) -> Iterator[None]:
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@contextmanager
def once(
    hook: str, session: Session, act: Any, *, place: str = "the session", mapped: Any = Order
) -> Iterator[list[object]]:
    """Have something done in a hook, the first time that this session comes there."""
    results: list[object] = []

    def listener(*arguments: Any) -> None:
        given = arguments[0] if hook not in MAPPER_HOOKS else session
        if hook == "end of flush" and (arguments[1].parent is None or arguments[1].nested):
            return
        if given is session and not results:
            results.append(None)
            results[0] = act()

    name = {"end of flush": "after_transaction_end"}.get(hook, hook)
    if hook in MAPPER_HOOKS:
        with listening(mapped, name, listener):
            yield results
        return
    with listening(session if place == "the session" else Session, name, listener, insert=place.endswith("first")):
        yield results


def stored(host: Host) -> list[str]:
    return host.ground.names()


def stage(session: Session, name: str = "late", **arguments: Any) -> Any:
    store = SyncEventStore(session, schema=SCHEMA)
    return store.stream(category="orders", stream="1").stage(events=[new_event(name)], **arguments)


def orders(host: Host) -> list[int]:
    with host.ground.outside.connect() as connection:
        return list(connection.exec_driver_sql("SELECT id FROM late_orders ORDER BY id").scalars())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hook", SESSION_HOOKS)
@some_drivers
async def test_what_is_first_staged_in_a_hook_of_the_commit_is_stored(host: Host, hook: str, place: str) -> None:
    async with open_session(host) as (caller, session):
        session.add(Order(id=1))
        with once(hook, session, lambda: stage(session), place=place) as results:
            await settled(caller.commit())

        assert results[0].events[0].name == "late"  # type: ignore[attr-defined]
        assert orders(host) == [1]
    assert stored(host) == ["late"]


@pytest.mark.parametrize("hook", [*SESSION_HOOKS, *MAPPER_HOOKS])
@some_drivers
async def test_what_is_first_recorded_in_a_hook_of_the_commit_is_stored(host: Host, hook: str) -> None:
    async with open_session(host, expire_on_commit=False) as (caller, session):
        order = Order(id=1)
        if not hook.endswith("insert"):
            session.add(order)
            await settled(caller.commit())
            if hook.endswith("delete"):
                await settled(caller.delete(order))
            else:
                order.state = "paid"
        session.add(order) if hook.endswith("insert") else None
        with once(hook, session, lambda: order.record(new_event("late"))) as results:
            await settled(caller.commit())

        assert results
    assert stored(host) == ["late"]


@pytest.mark.parametrize("dirtied_by", ["nothing", "a listener behind ours"])
@pytest.mark.parametrize("hook", SESSION_HOOKS)
@sqlite_and_postgresql
async def test_flush_that_listeners_cause_behind_the_last_write_loses_nothing(
    host: Host, hook: str, dirtied_by: str
) -> None:
    """Everything is written already when another listener of `before_commit` makes the commit flush once more."""
    async with open_session(host) as (caller, session):
        session.add(Order(id=1))
        stage(session, "early")
        if dirtied_by != "nothing":
            event.listen(session, "before_commit", lambda _: session.add(Order(id=2)))
        seen: list[int] = []

        def act() -> None:
            seen.append(len(session.new))
            stage(session)

        with once(hook, session, act):
            await settled(caller.commit())

    assert sorted(stored(host)) == ["early", "late"]


@pytest.mark.parametrize("savepoints", [1, 2])
@pytest.mark.parametrize("hook", SESSION_HOOKS)
@sqlite_and_postgresql
async def test_savepoints_that_are_open_at_the_commit_lose_nothing(host: Host, hook: str, savepoints: int) -> None:
    async with open_session(host) as (caller, session):
        transaction = await settled(caller.begin())
        for _ in range(savepoints):
            await settled(caller.begin_nested())
        session.add(Order(id=1))
        with once(hook, session, lambda: stage(session)):
            await settled(transaction.commit())

        assert orders(host) == [1]
    assert stored(host) == ["late"]


@pytest.mark.parametrize("hook", ["before_commit", "after_flush_postexec"])
@sqlite_and_postgresql
async def test_release_of_a_savepoint_writes_nothing_yet(host: Host, hook: str) -> None:
    async with open_session(host) as (caller, session):
        savepoint = await settled(caller.begin_nested())
        session.add(Order(id=1))
        with once(hook, session, lambda: stage(session)):
            await settled(savepoint.commit())
        assert "staged" in repr(stage(session, "after"))
        store = SyncEventStore(session, schema=SCHEMA)
        assert await settled(caller.run_sync(lambda _: store.log().read())) == [] if host.asynchronous else True
        await settled(caller.commit())

    assert stored(host) == ["late", "after"]


@pytest.mark.parametrize("hook", ["before_flush", "after_insert", "after_flush", "after_flush_postexec"])
@some_drivers
async def test_unmet_condition_of_what_is_staged_late_fails_the_commit(host: Host, hook: str) -> None:
    async with open_session(host) as (caller, session):
        event.listen(session, "before_commit", lambda _: session.add(Order(id=1)))
        act = lambda: stage(session, condition=position_is(7))  # noqa: E731
        with once(hook, session, act), pytest.raises(UnmetWriteConditionError):
            await settled(caller.commit())
        await settled(caller.rollback())

        assert orders(host) == []
    assert stored(host) == []


@pytest.mark.parametrize("join_mode", ["own", "conditional_savepoint", "control_fully", "create_savepoint"])
@some_drivers
async def test_commit_raises_where_there_is_no_more_occasion_to_write(host: Host, join_mode: str) -> None:
    """A flush that has nothing to do any more has no events but `before_flush`."""
    async with open_session(host) as (_, _), entered(host.engine.connect()) as connection:
        outer = await settled(connection.begin())
        joined: dict[str, Any] = {} if join_mode == "own" else {"join_transaction_mode": join_mode}
        async with entered(host.session(None if join_mode == "own" else connection, **joined)) as caller:
            session = getattr(caller, "sync_session", caller)
            if join_mode == "own":
                await settled(outer.rollback())

            await settled(caller.execute(insert(Order).values(id=1, state="placed")))
            give_up_late(session)
            with pytest.raises(TransactionError, match="so late"):
                await settled(caller.commit())
        if outer.is_active:
            # What joins without a savepoint of its own has no end of its own either: whoever owns the outer one decides.
            await settled(outer.commit() if join_mode == "create_savepoint" else outer.rollback())
        assert orders(host) == []
    assert stored(host) == []


@pytest.mark.parametrize("swallowed_in", ["before_commit", "after_flush_postexec"])
@some_drivers
async def test_error_that_a_listener_hides_from_the_commit_fails_it(host: Host, swallowed_in: str) -> None:
    async with open_session(host) as (caller, session):
        session.add(Order(id=1))

        def stage_and_hide() -> None:
            with suppress(UnmetWriteConditionError):
                stage(session, condition=position_is(7))

        with once(swallowed_in, session, stage_and_hide), pytest.raises(UnmetWriteConditionError):
            await settled(caller.commit())
        await settled(caller.rollback())
        session.add(Order(id=2))
        await settled(caller.commit())

        assert orders(host) == [2]
    assert stored(host) == []


@pytest.mark.parametrize("caught", [True, False])
@some_drivers
async def test_stage_in_after_commit_is_refused_and_what_is_committed_stays(host: Host, caught: bool) -> None:
    async with open_session(host, expire_on_commit=False) as (caller, session):
        order = Versioned(id=1, version=0)
        session.add(order)

        def act() -> None:
            for late in (lambda: stage(session), lambda: order.record(new_event("late"))):
                with pytest.raises(TransactionError, match="accepts no more events") if caught else nullcontext():
                    late()

        with once("after_commit", session, act) as results:
            if caught:
                await settled(caller.commit())
            else:
                with pytest.raises(TransactionError, match="accepts no more events"):
                    await settled(caller.commit())
        await settled(caller.close())

        assert results
        assert order.version == 0
    assert stored(host) == []


def give_up_late(session: Session) -> None:
    """Stage in a flush that has nothing to do any more, which is too late."""

    def stage_and_give_up(*_: Any) -> None:
        stage(session)
        session.expunge_all()

    event.listen(session, "before_commit", lambda _: session.add(Order(id=2)))
    event.listen(session, "before_flush", stage_and_give_up, once=True)


@each_driver("postgresql+psycopg")
async def test_nothing_is_prepared_when_it_is_too_late_to_write(host: Host) -> None:
    async with open_session(host, twophase=True) as (caller, session):
        session.execute(insert(Order).values(id=1, state="placed"))
        give_up_late(session)
        # Early releases of SQLAlchemy 2.0 fail while they roll back what could not be prepared, and raise that instead.
        with pytest.raises((TransactionError, IllegalStateChangeError)) as raised:
            await settled(caller.commit())
        assert "so late" in f"{raised.value} {raised.value.__context__}"
        with host.ground.outside.connect() as connection:
            prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            assert connection.exec_driver_sql(prepared).all() == []
        await settled(caller.rollback())

        assert orders(host) == []
    assert stored(host) == []


def test_no_connection_is_committed_when_it_is_too_late_to_write(tmp_path: Path) -> None:
    """SQLAlchemy commits them in the order of a set, so only many rounds tell."""
    for number in range(30):
        engines = [create_engine(f"sqlite:///{tmp_path / f'{number}-{which}.db'}") for which in ("rows", "events")]
        for engine in engines:
            configure_sqlite(engine)
            Base.metadata.create_all(engine)
        with Session(binds={Base: engines[0], SCHEMA.EventRecord: engines[1]}) as session:
            session.execute(insert(Order).values(id=1, state="placed"))
            give_up_late(session)
            with pytest.raises(TransactionError, match="so late"):
                session.commit()
        with Session(engines[0]) as session:
            assert session.scalars(select(Order.id)).all() == []
        for engine in engines:
            engine.dispose()


@pytest.mark.parametrize("place", PLACES)
@some_drivers
async def test_what_is_staged_behind_all_hooks_of_a_flush_is_stored_or_fails_the_commit(host: Host, place: str) -> None:
    async with open_session(host) as (caller, session):
        session.add(Order(id=1))
        with once("end of flush", session, lambda: stage(session), place=place):
            if place.endswith("first"):
                await settled(caller.commit())
            else:
                with pytest.raises(TransactionError, match="so late"):
                    await settled(caller.commit())
                await settled(caller.rollback())
        rows = orders(host)

    assert len(rows) == len(stored(host)) == place.endswith("first")


@pytest.mark.parametrize(
    "hook", ["before_flush", "before_insert", "after_insert", "after_flush", "after_flush_postexec"]
)
@some_drivers
async def test_version_that_a_record_within_a_flush_counts_up_is_stored(host: Host, hook: str) -> None:
    """What a flush is told while it runs about an object that it has written, it forgets."""
    async with open_session(host) as (caller, session):
        entity = Versioned(id=1)
        session.add(entity)
        with once(hook, session, lambda: entity.record(new_event("late")), mapped=Versioned):
            await settled(caller.commit())
        same = await settled(caller.get(Versioned, 1))
        assert same.version == 1
        same.record(new_event("next"))
        await settled(caller.commit())

    assert stored(host) == ["late", "next"]


@pytest.mark.parametrize("hook", ["before_flush", "after_flush", "after_flush_postexec"])
@some_drivers
async def test_table_projections_take_part_in_what_is_recorded_within_a_flush(host: Host, hook: str) -> None:
    async with open_session(host) as (caller, session):
        counted = Counted(id=1)
        session.add(counted)
        await settled(caller.commit())
        counted = await settled(caller.get(Counted, 1))
        event.listen(session, "before_commit", lambda _: session.add(Order(id=1)))
        with once(hook, session, lambda: counted.record(new_event("recorded"))):
            await settled(caller.commit())
        assert (await settled(caller.get(Count, "1"))).events == 1

    assert stored(host) == ["recorded"]


@sqlite_and_postgresql
async def test_failed_commit_leaves_a_session_that_stages_without_writing(host: Host) -> None:
    failures = [RuntimeError("not yet")]

    def fail(_: Session) -> None:
        if failures:
            raise failures.pop()

    async with open_session(host) as (caller, session):
        event.listen(session, "before_commit", fail)
        with pytest.raises(RuntimeError):
            await settled(caller.commit())
        stage(session)
        assert SyncEventStore(session, schema=SCHEMA).log().read() == []
        await settled(caller.commit())

    assert stored(host) == ["late"]


def test_listeners_are_asked_by_what_sqlalchemy_knows() -> None:
    """Which transaction is committing comes from private names; this is red when they change."""
    engine = create_engine("sqlite://")
    seen: list[tuple[str, bool, bool]] = []

    def note(name: str) -> Any:
        return lambda session, *_: seen.append((name, is_committing(session), is_flushing(session)))

    with Session(engine) as session:
        for name in ("before_commit", "before_flush", "after_flush", "after_flush_postexec"):
            event.listen(session, name, note(name))
        root = session.begin()
        assert connections_of(root) == set()
        Base.metadata.create_all(session.connection(), tables=TABLES)
        assert connections_of(root) == {session.connection()}
        session.add(Order(id=1))
        session.begin_nested().commit()
        session.add(Order(id=2))
        root.commit()
        assert len(connections_of(root)) == 1
    engine.dispose()

    outside = [("before_flush", False, True), ("after_flush", False, True), ("after_flush_postexec", False, True)]
    inside = [("before_commit", True, False), *((name, True, True) for name, _, _ in outside)]
    assert seen == [*outside, ("before_commit", False, False), *inside]


FIRST_USE = """
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Session
from eventstore_sa import EventStoreSchema, NewEvent, SyncEventStore, configure_sqlite


class Base(DeclarativeBase):
    pass


schema = EventStoreSchema(Base.metadata)
engine = create_engine("sqlite://")
configure_sqlite(engine)
Base.metadata.create_all(engine)
store = SyncEventStore(engine, schema=schema)


def stage(session):
    store.within(session).stream(category="orders", stream="1").stage(events=[NewEvent(name="first", payload=None)])


with Session(engine) as session:
    session.execute(select(1))
    event.listen(Session, "before_commit", stage)
    session.commit()
print([stored.name for stored in store.log()])
"""


def test_first_use_in_a_process_may_be_a_listener_of_a_commit() -> None:
    """Whoever attaches listeners while those of the same event are called makes SQLAlchemy fail."""
    ran = run_preloaded("-c", FIRST_USE)

    assert (ran.stdout, ran.stderr) == ("['first']\n", "")
