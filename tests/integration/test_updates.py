"""Load, decide, publish; transactions that are run again; conditions on rows of the host."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from eventstore_sa import NewEvent, Projector, StreamIdentifier, exists_row, retry_transaction, retry_transaction_sync
from eventstore_sa.conditions import position_is, stream_is_empty
from eventstore_sa.errors import ConfigurationError, ConnectionLostError, UnmetWriteConditionError
from eventstore_sa.store import turns
from eventstore_sa.store.updating import StreamUpdate
from tests.awaiting import settled
from tests.blocking import terminate_others, wait_for_waiting
from tests.hosts import KINDS_OF_DRIVERS, POSTGRES_DRIVERS, Host, Note, each_driver, each_kind_of_driver, new_event
from tests.patience import PATIENCE_S


class CountProjector(Projector[StreamIdentifier, int, None]):
    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: int, source: StreamIdentifier) -> str:
        return source.stream

    def counted(self, state: int, event: Any) -> int:
        return state + 1


def stream_of(store: Any) -> Any:
    return store.stream(category="orders", stream="1")


@each_kind_of_driver()
async def test_update_decides_on_the_state_and_returns_the_new_one(host: Host) -> None:
    seen: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        seen.append(state)
        return [new_event("counted")] * 0 if state >= 3 else [new_event("counted"), new_event("counted")]

    for expected in (2, 4, 4):
        update = await settled(stream_of(host.store).update(CountProjector(), decide))
        assert update.state == expected

    assert seen == [0, 2, 4]
    assert update.events == ()
    assert len(host.ground.names()) == 4


@each_kind_of_driver()
async def test_update_tries_again_when_another_was_faster(host: Host) -> None:
    seen: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        if len(seen) < 2:
            host.ground.publish("counted")
        seen.append(state)
        return [new_event("counted")]

    update = await settled(stream_of(host.store).update(CountProjector(), decide))

    assert (seen, update.state) == ([0, 1, 2], 3)
    assert [event.position for event in update.events] == [2]


@each_kind_of_driver()
async def test_update_gives_up_after_so_many_retries(host: Host) -> None:
    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        host.ground.publish("counted")
        return [new_event("counted")]

    with pytest.raises(UnmetWriteConditionError):
        await settled(stream_of(host.store).update(CountProjector(), decide, retries=1))

    assert host.ground.names() == ["counted", "counted"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_the_fourth_try_locks_the_stream_so_that_nobody_else_can_be_faster(host: Host) -> None:
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []
    others: list[threading.Thread] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        seen.append(state)
        if len(seen) <= 3:
            host.ground.publish("counted")
        else:
            others.append(threading.Thread(target=host.ground.publish, args=("waited",)))
            others[0].start()
            wait_for_waiting(host.ground)
        return [new_event("counted")]

    update = await settled(stream_of(host.store_on(engine)).update(CountProjector(), decide))

    others[0].join()
    assert (seen, update.state) == ([0, 1, 2, 3], 4)
    assert host.ground.names() == ["counted"] * 4 + ["waited"]
    await settled(engine.dispose())


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_a_connection_that_is_lost_before_the_commit_of_a_locked_try_costs_the_lock_alone(host: Host) -> None:
    engine = host.make_engine(poolclass=None)
    seen: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        seen.append(state)
        if len(seen) <= 3:
            host.ground.publish("counted")
        if len(seen) == 4:
            terminate_others(host.ground)
        return [new_event("counted", payload="mine")]

    update = await settled(stream_of(host.store_on(engine)).update(CountProjector(), decide))

    assert seen == [0, 1, 2, 3, 3]
    assert [event.payload for event in update.events] == ["mine"]
    assert host.ground.names() == ["counted"] * 4
    await settled(engine.dispose())


@each_driver(*KINDS_OF_DRIVERS)
async def test_any_number_of_retries_is_made_where_others_are_always_faster(host: Host) -> None:
    """Also with one connection, on which no transaction of ours can be held open beside other work."""
    engine = host.make_engine(poolclass=None, pool_size=1, max_overflow=0)
    seen: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        seen.append(state)
        if len(seen) <= 6:
            host.ground.publish("counted")
        return [new_event("counted")]

    update = await settled(stream_of(host.store_on(engine)).update(CountProjector(), decide, retries=6))

    assert seen == [*range(7)]
    assert update.state == 8 - 1
    await settled(engine.dispose())


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_updates_of_one_stream_in_one_process_do_not_race(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_S", PATIENCE_S)
    engine = host.make_engine(poolclass=None, pool_size=8, max_overflow=8)
    stream = stream_of(host.store_on(engine))
    tries: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        tries.append(state)
        return [new_event("counted")]

    if host.asynchronous:
        await asyncio.gather(*(stream.update(CountProjector(), decide) for _ in range(8)))
    else:
        with ThreadPoolExecutor(8) as threads:
            for each in [threads.submit(stream.update, CountProjector(), decide) for _ in range(8)]:
                each.result()

    assert tries == [*range(8)]
    await settled(engine.dispose())


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_updates_that_are_nested_the_other_way_round_do_not_wait_for_each_other(host: Host) -> None:
    engine = host.make_engine(poolclass=None, pool_size=8, max_overflow=8)
    store = host.store_on(engine)
    a, b = (store.stream(category="orders", stream=name) for name in "ab")
    met = threading.Barrier(2)

    def nested(outer: Any, inner: Any) -> Any:
        async def decide(_: int) -> Sequence[NewEvent[str, Any, Any]]:
            await asyncio.to_thread(met.wait, PATIENCE_S)
            await inner.update(CountProjector(), lambda _: [new_event("counted")])
            return [new_event("counted")]

        def decide_sync(_: int) -> Sequence[NewEvent[str, Any, Any]]:
            met.wait(PATIENCE_S)
            inner.update(CountProjector(), lambda _: [new_event("counted")])
            return [new_event("counted")]

        # Each is refused once, because of the inner publish of the other; then they are alone.
        return outer.update(CountProjector(), decide if host.asynchronous else decide_sync, retries=0)

    if host.asynchronous:
        outcomes = await asyncio.gather(nested(a, b), nested(b, a), return_exceptions=True)
    else:
        with ThreadPoolExecutor(2) as threads:
            futures = [threads.submit(nested, a, b), threads.submit(nested, b, a)]
            outcomes = [future.exception() for future in futures]

    assert {type(outcome) for outcome in outcomes} <= {UnmetWriteConditionError, StreamUpdate, type(None)}
    assert len(host.ground.names()) == 2 + sum(not isinstance(outcome, Exception) for outcome in outcomes)
    await settled(engine.dispose())


class NamesProjector(CountProjector):
    def initial_state_factory(self) -> Any:
        return {"names": []}

    def counted(self, state: Any, event: Any) -> Any:
        state["names"].append(event.name)
        return state


@each_driver("sqlite+aiosqlite", "sqlite")
async def test_decision_may_change_the_state_that_it_is_given(host: Host) -> None:
    def decide(state: Any) -> Sequence[NewEvent[str, Any, Any]]:
        state["names"].append("tried out")
        return [new_event("counted")] if len(state["names"]) < 3 else []

    for expected in (1, 2, 2):
        update = await settled(stream_of(host.store).update(NamesProjector(), decide))
        assert update.state == {"names": ["counted"] * expected}


@each_driver("sqlite+aiosqlite", "sqlite")
async def test_state_that_cannot_be_copied_is_refused(host: Host) -> None:
    class LockingProjector(CountProjector):
        def initial_state_factory(self) -> Any:
            return {"lock": threading.Lock()}

    with pytest.raises(ConfigurationError, match=r"dict cannot be copied \(TypeError.*give the class a __deepcopy__"):
        await settled(stream_of(host.store).update(LockingProjector(), lambda _: []))


@each_driver("sqlite+aiosqlite", "postgresql+asyncpg")
async def test_decision_may_be_a_coroutine(host: Host) -> None:
    async def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        return [new_event("counted")]

    assert (await stream_of(host.store).update(CountProjector(), decide)).state == 1


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_update_within_a_session_raises_at_once_and_the_transaction_is_run_again(host: Host) -> None:
    tries: list[int] = []

    def decide(state: int) -> Sequence[NewEvent[str, Any, Any]]:
        if not tries:
            host.ground.publish("counted")
        tries.append(state)
        return [new_event("counted")]

    def work(session: Any) -> Any:
        session.add(Note(note="mine"))
        return stream_of(host.store.within(session)).update(CountProjector(), decide)

    if host.asynchronous:
        update = await retry_transaction(host.factory(), work)
    else:
        update = retry_transaction_sync(host.factory(), work)

    assert (tries, update.state) == ([0, 1], 2)
    assert host.ground.notes() == ["mine"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
async def test_transaction_is_run_again_after_a_serialisation_failure_of_its_own_statements(host: Host) -> None:
    tries: list[str] = []
    with host.ground.outside.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('shared')"))
    engine = host.engine.execution_options(isolation_level="REPEATABLE READ")
    change = text("UPDATE notes SET note = note || '!'")

    def interfere() -> None:
        with host.ground.outside.begin() as connection:
            connection.execute(change)

    async def work(session: Any) -> None:
        await settled(session.execute(text("SELECT 1 FROM notes")))
        if not tries:
            interfere()
        tries.append("once")
        await settled(session.execute(change))

    def work_sync(session: Any) -> None:
        session.execute(text("SELECT 1 FROM notes"))
        if not tries:
            interfere()
        tries.append("once")
        session.execute(change)

    if host.asynchronous:
        await retry_transaction(host.factory(engine), work)
    else:
        retry_transaction_sync(host.factory(engine), work_sync)

    assert len(tries) == 2
    assert host.ground.notes() == ["shared!!"]


@each_driver(*POSTGRES_DRIVERS)
async def test_transaction_is_run_again_after_it_has_lost_its_connection(host: Host) -> None:
    tries: list[str] = []

    def interfere() -> None:
        tries.append("once")
        if len(tries) == 1:
            terminate_others(host.ground)

    async def work(session: Any) -> None:
        session.add(Note(note="mine"))
        await session.flush()
        interfere()
        await stream_of(host.store.within(session)).publish(events=[new_event("mine")])

    def work_sync(session: Any) -> None:
        session.add(Note(note="mine"))
        session.flush()
        interfere()
        stream_of(host.store.within(session)).publish(events=[new_event("mine")])

    if host.asynchronous:
        await retry_transaction(host.factory(), work)
    else:
        retry_transaction_sync(host.factory(), work_sync)

    assert len(tries) == 2
    assert host.ground.notes() == ["mine"]
    assert host.ground.names() == ["mine"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_transaction_is_not_run_again_where_it_is_unknown_what_a_store_on_an_engine_has_stored(
    host: Host,
) -> None:
    tries: list[str] = []

    async def work(session: Any) -> None:
        work_sync(session)

    def work_sync(_: Any) -> None:
        tries.append("once")
        raise ConnectionLostError("as of a store on an engine")

    with pytest.raises(ConnectionLostError):
        await settled(
            retry_transaction(host.factory(), work)
            if host.asynchronous
            else retry_transaction_sync(host.factory(), work_sync)
        )

    assert len(tries) == 1


@each_driver()
async def test_condition_on_a_row_of_the_host(host: Host) -> None:
    found = exists_row(select(Note).where(Note.note == "mine"))
    with pytest.raises(UnmetWriteConditionError, match="a row of notes"):
        await host.publish(host.store, condition=found)
    async with host.caller() as (caller, store):
        await host.write(caller)
        await host.publish(store, "at once", condition=found & stream_is_empty())
        staged = stream_of(store).stage(events=[new_event("staged")], condition=found & position_is(0))
        await settled(caller.commit())
    await host.publish(host.store, "own", condition=found | position_is(77))

    assert [event.position for event in staged.events] == [1]
    assert host.ground.names() == ["at once", "staged", "own"]


@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_row_is_locked_before_the_stream(host: Host) -> None:
    await settled(host.store.watermark())
    with host.ground.outside.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('mine')"))
    found = exists_row(select(Note).where(Note.note == "mine"))
    async with host.caller() as (caller, store):
        await host.publish(store, condition=found)
        with host.ground.outside.connect() as other:
            other.execute(text("SET lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                other.execute(text("UPDATE notes SET note = 'changed'"))
        await settled(caller.rollback())

    # Whoever holds the row may still publish to the stream, while another publish waits for the row.
    with host.ground.outside.begin() as holder:
        holder.execute(text("SELECT * FROM notes FOR UPDATE"))
        waiting = threading.Thread(target=lambda: host.ground.publish("waited", condition=found))
        waiting.start()
        _wait_for_a_lock(host)
        host.ground.publish("did not wait")
    waiting.join()

    assert host.ground.names() == ["did not wait", "waited"]


def test_condition_on_a_row_takes_a_select() -> None:
    with pytest.raises(ConfigurationError, match=r"select\(\)"):
        exists_row("SELECT 1")  # type: ignore[arg-type]


def _wait_for_a_lock(host: Host) -> None:
    with host.ground.outside.connect() as connection:
        query = text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND state = 'active' AND datname = current_database()"
        )
        while not connection.scalar(query):
            connection.rollback()
