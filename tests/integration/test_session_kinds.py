"""Staging in the sessions that applications have: two-phase, with several binds, begun by blocks, expiring, autoflushing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, RecordsEvents, SyncEventStore, configure_sqlite
from eventstore_sa.errors import ConfigurationError, TransactionError
from tests.awaiting import entered, settled
from tests.hosts import Host, Note, each_driver, each_kind_of_driver, new_event, statements_of
from tests.project import PACKAGE

two_phase_drivers = each_driver("postgresql+psycopg", "postgresql+psycopg2")


def stage(store: Any, name: str = "staged", *, stream: str = "1") -> Any:
    return store.stream(category="orders", stream=stream).stage(events=[new_event(name)])


# Two-phase commit


def prepared_transactions(host: Host) -> int:
    with host.ground.outside.connect() as connection:
        count = text("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()")
        return connection.scalar(count) or 0


@two_phase_drivers
def test_two_phase_commit_stores_what_is_staged_when_it_prepares(host: Host) -> None:
    called: list[int] = []
    with host.session(twophase=True) as session:
        store = host.store.within(session)
        store.after_commit(lambda events: called.append(len(events)))
        session.add(Note(note="mine"))
        kept = stage(store, "outside")
        with session.begin_nested():
            stage(store, "inside")
        session.prepare()

        assert prepared_transactions(host) == 1
        assert (host.ground.names(), called) == ([], [])
        with pytest.raises(TransactionError, match="prepared"):
            stage(store, "too late")
        session.commit()

        assert [event.name for event in kept.events] == ["outside"]
    assert (host.ground.names(), host.ground.notes(), called) == (["outside", "inside"], ["mine"], [2])


@two_phase_drivers
def test_two_phase_rollback_after_the_prepare_leaves_nothing(host: Host) -> None:
    called: list[object] = []
    with host.session(twophase=True) as session:
        store = host.store.within(session)
        store.after_commit(called.append)
        session.add(Note(note="mine"))
        dropped = stage(store)
        session.prepare()
        session.rollback()
        with pytest.raises(TransactionError, match="rolled back"):
            _ = dropped.events
        stage(store, "of the next transaction")
        session.commit()

    assert prepared_transactions(host) == 0
    assert (host.ground.names(), host.ground.notes(), called) == (["of the next transaction"], [], [])


@two_phase_drivers
def test_two_phase_session_that_just_commits_stores_what_is_staged(host: Host) -> None:
    with host.session(twophase=True) as session, session.begin():
        stage(host.store.within(session))

    assert host.ground.names() == ["staged"]


# Blocks


@each_kind_of_driver()
async def test_blocks_that_begin_a_transaction_store_what_is_staged_or_drop_it(host: Host) -> None:
    factory = host.factory()
    async with entered(factory.begin()) as session:
        stage(host.store.within(session), "factory.begin()")
    async with entered(factory()) as session:
        store = host.store.within(session)
        async with entered(session.begin()):
            stage(store, "session.begin()")
        with pytest.raises(ZeroDivisionError):
            await fail_in(session.begin(), store)
        async with entered(session.begin()), entered(session.begin_nested()):
            stage(store, "session.begin_nested()")

    assert host.ground.names() == ["factory.begin()", "session.begin()", "session.begin_nested()"]


async def fail_in(block: Any, store: Any) -> None:
    async with entered(block):
        stage(store, "dropped")
        raise ZeroDivisionError


# Flushing and expiring


@each_kind_of_driver()
async def test_neither_staging_nor_publishing_flushes_the_session(host: Host) -> None:
    async with host.caller() as (caller, store):
        note = Note(note="mine")
        caller.add(note)
        stage(store)
        await host.publish(store)
        assert inspect(note).pending

        await settled(store.flush())
        assert inspect(note).persistent
        assert host.ground.notes() == []
        await settled(caller.commit())

    assert (host.ground.names(), host.ground.notes()) == (["mine", "staged"], ["mine"])


@each_kind_of_driver()
async def test_autoflush_leaves_what_is_staged_for_the_commit(host: Host) -> None:
    async with host.caller() as (caller, store):
        caller.add(Note(note="mine"))
        stage(store)
        assert list(await settled(caller.scalars(select(Note.note)))) == ["mine"]
        assert await settled(store.log().read()) == []
        await settled(caller.commit())

    assert host.ground.names() == ["staged"]


@each_kind_of_driver()
async def test_stored_events_are_at_hand_after_a_commit_that_expires_everything(host: Host) -> None:
    async with entered(host.session(expire_on_commit=True)) as session:
        session.add(Note(note="mine"))
        staged = stage(host.store.within(session))
        await settled(session.commit())
        with statements_of(host.engine) as statements:
            assert [event.position for event in staged.events] == [0]

    assert statements == []


# Several binds


class Base(DeclarativeBase):
    pass


class Order(RecordsEvents, Base):
    __tablename__ = "orders_elsewhere"
    id: Mapped[int] = mapped_column(primary_key=True)


SCHEMA = EventStoreSchema(Base.metadata)


@contextmanager
def two_databases(tmp_path: Path) -> Iterator[tuple[Engine, Engine]]:
    engines = [create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two")]
    for engine in engines:
        configure_sqlite(engine)
        Base.metadata.create_all(engine)
    yield engines[0], engines[1]
    for engine in engines:
        engine.dispose()


def names_in(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(SCHEMA.events.c.name)))


def test_session_with_several_binds_sends_events_where_it_sends_their_class(tmp_path: Path) -> None:
    with two_databases(tmp_path) as (events, others):
        store = SyncEventStore(events, schema=SCHEMA)
        with Session(binds={SCHEMA.EventRecord: events, Base: others}) as session:
            order = Order()
            session.add(order)
            order.record(new_event("recorded"))
            stage(store.within(session))
            stage(store.within(session), "published")
            session.commit()
        assert sorted(names_in(events)) == ["published", "recorded", "staged"]
        assert names_in(others) == []


def test_session_that_has_no_bind_for_events_says_so(tmp_path: Path) -> None:
    """Events are no subclass of the application's base, and so not covered by a bind for that."""
    with two_databases(tmp_path) as (one, _), Session(binds={Base: one}) as session:
        store = SyncEventStore(one, schema=SCHEMA).within(session)
        with pytest.raises(ConfigurationError, match="EventRecord"):
            stage(store)


# Nothing staged


@each_driver("sqlite", "postgresql+psycopg")
async def test_commit_with_nothing_staged_costs_looks_into_dictionaries(host: Host) -> None:
    """Once anything was staged in the process, the listeners are there for every session."""
    async with host.caller() as (caller, store):
        stage(store)
        await settled(caller.commit())
    gc.collect()  # objects of earlier tests for which events are kept
    called: list[str] = []

    def note(frame: FrameType, what: str, _: Any) -> None:
        if what == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/session"):
            called.append(frame.f_code.co_name)

    with host.session() as session, statements_of(host.engine) as statements:
        session.add(Note(note="mine"))
        sys.setprofile(note)
        try:
            session.commit()
        finally:
            sys.setprofile(None)

    assert [
        statement for statement in statements if "notes" not in statement and not statement.startswith("BEGIN")
    ] == []
    listeners = {name for name in called if name.startswith("_")}
    # Before the commit, after the flush, after the commit, and at the end of both transactions.
    assert called.count("_pass_on") >= 5
    # They look whether there is anything, and find nothing.
    assert set(called) - listeners <= {"find", "kept_in"}
    assert len(called) <= 30
