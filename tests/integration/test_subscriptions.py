"""Subscriptions in one process: what is handled, in which order, how often, and what becomes of failures."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from eventstore_sa import EventStore, NewEvent, StreamIdentifier, SyncEventStore, constraints
from eventstore_sa.errors import ConfigurationError, SubscriptionError, WaitTimeoutError
from eventstore_sa.projection import (
    ProjectionStore,
    SyncProjectionStore,
    TableProjection,
    project,
    rebuild,
    rebuild_sync,
)
from eventstore_sa.store import ConstrainedEventSource, SyncConstrainedEventSource
from eventstore_sa.subscriptions import FailurePolicy, Subscription, SyncSubscription, catch_up, run
from eventstore_sa.subscriptions.partition import PartitionWorker
from eventstore_sa.testing.postgres import PostgresServer
from tests.awaiting import settled
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.failure_table import row
from tests.hosts import statements_of
from tests.patience import PATIENCE_S
from tests.projectors import CustomerProjector, OrderProjector
from tests.subscribers import (
    ALL,
    DATABASES,
    EVERY,
    POSTGRES,
    Place,
    eventually,
    install_effects,
    numbers,
    open_place,
    policy,
)


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer, postgres_templates: PostgresTemplates) -> Iterator[PostgresDatabase]:
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_effects)) as database:
        yield database


@pytest_asyncio.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    postgres = request.getfixturevalue("database") if request.param in POSTGRES else None
    async with open_place(request.param, tmp_path, postgres) as place:
        yield place


class Base(DeclarativeBase):
    pass


class Counted(Base):
    __tablename__ = "counted"
    id: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int | None]


@project(Counted)
class CountProjection(TableProjection):
    def placed(self, row: Counted, event: Any) -> None:
        row.count = (row.count or 0) + 1


everywhere = pytest.mark.parametrize("place", ALL, indirect=True)
with_every_driver = pytest.mark.parametrize("place", EVERY, indirect=True)
on_databases = pytest.mark.parametrize("place", DATABASES, indirect=True)
on_postgres = pytest.mark.parametrize("place", ["postgresql+asyncpg", "postgresql+psycopg2"], indirect=True)
on_asyncpg = pytest.mark.parametrize("place", ["postgresql+asyncpg"], indirect=True)


class Failing:
    """A handler that fails for some events, as often as is asked for."""

    def __init__(self, place: Place, *numbers: int, times: int = 1_000_000, batches: bool = False) -> None:
        self.place = place
        self.numbers = set(numbers)
        self.times = times
        self.calls: list[Any] = []

    def per_event(self, event: Any, session: Any = None) -> Any:
        self.calls.append(event.sequence_number)
        self._fail(event)
        return self.place.note(event) if session is None else self.place.store_effect(event, session)

    def with_session(self, event: Any, session: Any) -> Any:
        return self.per_event(event, session)

    def per_batch(self, events: list[Any]) -> None:
        self.calls.append(len(events))
        for event in events:
            self._fail(event)
        for event in events:
            self.place.note(event)

    def _fail(self, event: Any) -> None:
        if event.sequence_number in self.numbers and self.times:
            self.times -= 1
            raise ValueError(f"event {event.sequence_number} is poison")

    @property
    def handler(self) -> Any:
        return self.per_event if self.place.sessions is None else self.with_session


@with_every_driver
async def test_every_event_is_handled_once_and_in_order(place: Place) -> None:
    stored = await place.publish("1", "2", "1", "3")
    subscription = place.subscription()

    await place.catch_up(subscription)
    assert place.effects() == numbers(stored)
    stored += await place.publish("3", "1")
    await place.catch_up(subscription)
    await place.catch_up(subscription)

    assert place.effects() == numbers(stored)
    assert await place.checkpoints(subscription) == [stored[-1].sequence_number]


@everywhere
async def test_catching_up_ends_when_the_partitions_rest_without_asking_the_database_in_between(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How often it looks by itself, in case that other processes have some of the partitions.
    monkeypatch.setattr("eventstore_sa.subscriptions.running._LOOK_AGAIN_S", 1_000_000.0)
    stored = await place.publish(*(str(number % 7) for number in range(20)))
    subscription = place.subscription(partitions=2)

    async with asyncio.timeout(PATIENCE_S):
        await place.catch_up(subscription)
        await place.catch_up(subscription)

    assert sorted(place.effects()) == numbers(stored)


@with_every_driver
async def test_partitions_share_the_streams_and_keep_their_order(place: Place) -> None:
    stored = await place.publish(*(str(number % 7) for number in range(40)))
    subscription = place.subscription(partitions=3)

    await place.catch_up(subscription)

    handled = place.effects()
    assert sorted(handled) == numbers(stored)
    for stream in range(7):
        of_stream = [event.sequence_number for event in stored if event.stream == str(stream)]
        assert [number for number in handled if number in of_stream] == of_stream
    status = await settled(subscription.status())
    assert [each.partition for each in status] == [0, 1, 2]
    assert sum(each.handled for each in status) == 40
    assert {(each.sequence_number, each.lag_events, each.owner) for each in status} == {(40, 0, None)}


@on_databases
async def test_effects_and_checkpoint_are_one_transaction(place: Place) -> None:
    stored = await place.publish(*"123456")
    failing = Failing(place, stored[3].sequence_number, times=2)

    await place.catch_up(place.subscription(failing.handler, on_failure=policy(retries=5)))

    assert place.effects() == numbers(stored)
    assert len(failing.calls) > len(stored)


@on_postgres
async def test_a_constraint_that_fails_at_the_commit_is_a_failure_of_the_handler(place: Place) -> None:
    stored = await place.publish(*"12")
    place.execute("CREATE TABLE once (number bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    place.execute("INSERT INTO once VALUES (1)")

    def handle(event: Any, session: Any) -> Any:
        return session.execute(text("INSERT INTO once VALUES (:n)"), {"n": event.sequence_number})

    subscription = place.subscription(handle, on_failure=policy("skip"))
    await place.catch_up(subscription)

    (skipped,) = await settled(subscription.parked())
    assert (skipped.sequence_number, skipped.state) == (stored[0].sequence_number, "skipped")
    assert place.execute("SELECT number FROM once ORDER BY 1") == [(1,), (2,)]
    place.execute("DROP TABLE once")


@everywhere
async def test_a_batch_is_halved_until_the_poison_event_stands_alone(place: Place) -> None:
    stored = await place.publish(*(str(number) for number in range(20)))
    failing = Failing(place, stored[13].sequence_number)
    subscription = place.subscription(
        failing.per_batch, per_batch=True, sessions=None, on_failure=policy("skip", retries=1)
    )

    await place.catch_up(subscription)

    expected = numbers(stored)
    expected.remove(stored[13].sequence_number)
    assert place.done == expected
    assert failing.calls[0] == 20
    assert failing.calls.count(1) >= 2


@row("a handler raises")
@everywhere
async def test_a_stop_keeps_everything_that_follows_until_it_is_resumed(place: Place) -> None:
    stored = await place.publish(*"1234")
    failing = Failing(place, stored[2].sequence_number)
    subscription = place.subscription(failing.handler, on_failure=policy("stop"))

    with pytest.raises(SubscriptionError, match="stopped at 2: ValueError: event 3 is poison"):
        await place.catch_up(subscription)
    assert place.effects() == numbers(stored[:2])
    (status,) = await settled(subscription.status())
    assert (status.state, status.last_error) == ("stopped", "ValueError: event 3 is poison")
    with pytest.raises(SubscriptionError, match="is stopped at 2, before event 4"):
        await settled(subscription.wait_for(stored[3], timeout_s=PATIENCE_S))

    failing.numbers.clear()
    await settled(subscription.resume())
    await place.catch_up(subscription)
    assert place.effects() == numbers(stored)


@row("a handler raises")
@with_every_driver
async def test_a_parked_event_holds_back_later_events_of_its_stream_only(place: Place) -> None:
    stored = await place.publish("1", "2", "1", "2")
    failing = Failing(place, stored[0].sequence_number)
    subscription = place.subscription(failing.handler, on_failure=policy("park", retries=2))

    await place.catch_up(subscription)
    later = await place.publish("1", "2")
    await place.catch_up(subscription)

    assert place.effects() == numbers([stored[1], stored[3], later[1]])
    parked = await settled(subscription.parked())
    assert [(each.sequence_number, each.state) for each in parked] == [
        (stored[0].sequence_number, "parked"),
        (stored[2].sequence_number, "held"),
        (later[0].sequence_number, "held"),
    ]
    assert (parked[0].error, parked[0].attempts) == ("ValueError: event 1 is poison", 3)
    for event, said in ((stored[0], "is parked: ValueError"), (stored[2], "is held back behind a parked event")):
        with pytest.raises(SubscriptionError, match=said):
            await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))

    assert await settled(subscription.replay()) == 0
    assert (await settled(subscription.parked()))[0].attempts == 4

    failing.numbers.clear()
    assert await settled(subscription.replay()) == 3
    assert place.effects()[3:] == numbers([stored[0], stored[2], later[0]])
    assert await settled(subscription.parked()) == []
    after = await place.publish("1")
    await place.catch_up(subscription)
    assert place.effects()[-1] == after[0].sequence_number


@everywhere
async def test_a_discarded_event_is_never_handled_and_frees_its_stream(place: Place) -> None:
    stored = await place.publish("1", "1")
    failing = Failing(place, stored[0].sequence_number)
    subscription = place.subscription(failing.handler, on_failure=policy("park"))
    await place.catch_up(subscription)

    assert await settled(subscription.discard(stored[0].sequence_number)) is True
    assert await settled(subscription.discard(stored[0].sequence_number)) is False

    assert await settled(subscription.replay(StreamIdentifier("orders", "1"))) == 1
    stored += await place.publish("1")
    await place.catch_up(subscription)
    assert place.effects() == numbers(stored[1:])


@everywhere
async def test_a_skipped_event_is_recorded_and_waiting_for_it_says_so(place: Place) -> None:
    stored = await place.publish("1", "1")
    failing = Failing(place, stored[0].sequence_number)
    subscription = place.subscription(failing.handler, on_failure=policy("skip"))

    await place.catch_up(subscription)

    assert place.effects() == numbers(stored[1:])
    with pytest.raises(SubscriptionError, match="was skipped: ValueError: event 1 is poison"):
        await settled(subscription.wait_for(stored[0], timeout_s=PATIENCE_S))
    await settled(subscription.wait_for(stored[1], timeout_s=PATIENCE_S))


@row("a handler raises")
@everywhere
async def test_errors_are_tried_again_by_type_and_the_consequence_may_depend_on_them(place: Place) -> None:
    stored = await place.publish("1", "2")
    failing = Failing(place, *numbers(stored))

    def then(error: Exception, event: Any) -> Any:
        return "park" if event.stream == "1" else "skip"

    subscription = place.subscription(failing.handler, on_failure=policy(then, retries=7, retry_on=(KeyError, OSError)))
    await place.catch_up(subscription)

    parked = await settled(subscription.parked())
    assert [(each.state, each.attempts) for each in parked] == [("parked", 1), ("skipped", 1)]


@row("a handler hangs")
@pytest.mark.parametrize("place", ["memory", "sqlite+aiosqlite"], indirect=True)
async def test_a_handler_that_takes_too_long_has_failed(place: Place) -> None:
    await place.publish("1", "2")

    async def handle(event: Any) -> None:
        if event.stream == "1":
            await asyncio.sleep(PATIENCE_S)
        place.note(event)

    subscription = place.subscription(handle, sessions=None, deadline_s=0.01, on_failure=policy("park"))
    await place.catch_up(subscription)

    (parked,) = await settled(subscription.parked())
    assert (parked.stream.stream, parked.error) == ("1", "TimeoutError: the handler took longer than 0.01 s")
    assert len(place.done) == 1


class Odd(BaseException):
    pass


@everywhere
async def test_a_handler_that_raises_what_is_not_an_exception_has_failed(place: Place) -> None:
    """It would end the task or thread that processes the partition, and leave that to nobody."""
    errors: dict[str, BaseException] = {"1": Odd("odd"), "2": asyncio.CancelledError(), "3": StopIteration()}
    if not place.asynchronous:
        errors["4"] = SystemExit(1)
    stored = await place.publish(*errors, "fine")

    def handle(event: Any) -> None:
        if event.stream in errors:
            raise errors[event.stream]
        place.note(event)

    subscription = place.subscription(handle, sessions=None, on_failure=policy("park"))
    await place.catch_up(subscription)

    parked = await settled(subscription.parked())
    assert [each.stream.stream for each in parked] == list(errors)
    assert parked[0].error == "RuntimeError: the handler has raised Odd, which is not an Exception: odd"
    assert place.done == numbers(stored[-1:])


@everywhere
async def test_a_partition_whose_worker_has_ended_without_a_word_is_taken_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, ends = PartitionWorker.steps, [True]

    def end(worker: PartitionWorker) -> Any:
        if ends:
            ends.pop()
            return
        yield from steps(worker)

    monkeypatch.setattr(PartitionWorker, "steps", end)
    monkeypatch.setattr("eventstore_sa.subscriptions.node._SURVEY_EVERY_S", 0.02)
    stored = await place.publish("1")
    await place.catch_up(place.subscription())
    assert place.effects() == numbers(stored)


@row("the connection breaks at the COMMIT")
@on_databases
async def test_the_connection_breaks_at_the_commit(place: Place) -> None:
    """Before it, or after it: nobody knows, and the checkpoint is read again."""
    breaks = ["before", "after"]
    kind: Any = place.sessions.kw.get("class_") or place.sessions.class_

    def broken() -> DBAPIError:
        return DBAPIError(None, None, OSError("gone"), connection_invalidated=True)

    class Breaking(kind):  # type: ignore[misc]
        if place.asynchronous:

            async def commit(self) -> None:
                when = breaks.pop(0) if breaks else None
                if when != "before":
                    await super().commit()
                if when:
                    raise broken()
        else:

            def commit(self) -> None:  # type: ignore[misc]
                when = breaks.pop(0) if breaks else None
                if when != "before":
                    super().commit()
                if when:
                    raise broken()

    sessions = type(place.sessions)(place.engine, class_=Breaking)
    stored = await place.publish("1", "2", "3")
    await place.catch_up(place.subscription(sessions=sessions, batch_size=1))

    assert breaks == []
    assert place.effects() == numbers(stored)


@everywhere
async def test_sources(place: Place) -> None:
    orders = await place.publish("1", "2")
    bills = await place.publish("1", category="bills", name="sent")
    await place.publish("1", category="other")
    constrained: Any = ConstrainedEventSource if place.asynchronous else SyncConstrainedEventSource
    sources = {
        "the log": (place.store.log(), [1, 2, 3, 4]),
        "categories": ([place.orders, place.store.category(category="bills")], numbers([*orders, *bills])),
        "a stream": (place.store.stream(category="orders", stream="2"), numbers(orders[1:])),
        "names": (constrained(place.store.log(), {constraints.name_in(["sent"])}), numbers(bills)),
    }
    for name, (source, expected) in sources.items():
        place.done.clear()
        subscription = place.subscription(place.note, source, name=name, sessions=None)
        await place.catch_up(subscription)

        assert place.done == expected, name
        # Also beyond the last match.
        assert await place.checkpoints(subscription) == [4], name


@everywhere
async def test_starts(place: Place) -> None:
    first = await place.publish("1", "2")
    moment = datetime.now(UTC)
    second = await place.publish("3")
    starts: dict[Any, list[Any]] = {
        "beginning": [*first, *second],
        "now": [],
        first[0].sequence_number: [first[1], *second],
        moment: second,
        moment + timedelta(days=1): [],
    }
    for start, expected in starts.items():
        place.done.clear()
        subscription = place.subscription(place.note, name=f"from {start}", sessions=None, start=start)
        await settled(subscription.register())
        await place.catch_up(subscription)
        assert place.done == numbers(expected), start
    with pytest.raises(ConfigurationError, match="cannot begin after 9: the log is complete up to 3 only"):
        await settled(place.subscription(place.note, name="later", sessions=None, start=9).register())


@everywhere
async def test_rewind_and_skip(place: Place) -> None:
    stored = await place.publish(*"1234")
    subscription = place.subscription(place.note, sessions=None)
    with pytest.raises(SubscriptionError, match="there is no subscription 'billing'"):
        await settled(subscription.rewind())
    await place.catch_up(subscription)

    await settled(subscription.rewind(to=2))
    await place.catch_up(subscription)
    assert place.done == numbers([*stored, *stored[2:]])

    more = await place.publish(*"567")
    await settled(subscription.skip_to(6))
    await place.catch_up(subscription)
    assert place.done[6:] == numbers(more[2:])

    with pytest.raises(ConfigurationError, match="the log is complete up to 7 only"):
        await settled(subscription.skip_to(8))
    with pytest.raises(ConfigurationError, match="is on the other side: use rewind"):
        await settled(subscription.skip_to(3))
    await settled(subscription.rewind(to=3))
    with pytest.raises(ConfigurationError, match="is on the other side: use skip_to"):
        await settled(subscription.rewind(to=5))


@everywhere
async def test_what_is_parked_beyond_is_forgotten_by_a_rewind(place: Place) -> None:
    stored = await place.publish("1", "1")
    failing = Failing(place, stored[0].sequence_number)
    subscription = place.subscription(failing.handler, on_failure=policy("park"))
    await place.catch_up(subscription)

    failing.numbers.clear()
    await settled(subscription.rewind())
    await place.catch_up(subscription)

    assert place.effects() == numbers(stored)
    assert await settled(subscription.parked()) == []


@row("the number of partitions changes")
@everywhere
async def test_the_number_of_partitions_can_change(place: Place) -> None:
    stored = await place.publish(*(str(number % 5) for number in range(20)))
    await place.catch_up(place.subscription(partitions=2))
    stored += await place.publish(*(str(number % 5) for number in range(20)))

    for partitions in (5, 1, 3):
        subscription = place.subscription(partitions=partitions)
        await place.catch_up(subscription)
        status = await settled(subscription.status())
        assert {(each.partitions, each.draining_for) for each in status} == {(partitions, None)}
        assert sorted(place.effects()) == numbers(stored)
        stored += await place.publish("1", "2")


@row("the number of partitions changes")
@everywhere
async def test_partitions_are_split_again_from_the_highest_checkpoint(place: Place) -> None:
    """With partitions that have come to different numbers, of which a stopped one refuses the change."""
    stored = await place.publish(*(str(number % 5) for number in range(20)))
    poison = stored[7].sequence_number
    failing = Failing(place, poison)
    with pytest.raises(SubscriptionError):
        await place.catch_up(place.subscription(failing.handler, partitions=2, on_failure=policy("stop")))
    wanted = place.subscription(failing.handler, partitions=3, on_failure=policy("stop"))
    with pytest.raises(ConfigurationError, match=r"cannot be given 3, because \[\d\] of them are stopped or paused"):
        await place.catch_up(wanted)

    failing.numbers.clear()
    await settled(wanted.resume())
    await place.catch_up(wanted)

    assert sorted(place.effects()) == numbers(stored)
    assert len(await settled(wanted.status())) == 3


@everywhere
async def test_another_source_under_the_same_name_is_refused(place: Place) -> None:
    await settled(place.subscription().register())

    with pytest.raises(ConfigurationError, match="its checkpoint means something else there"):
        await settled(place.subscription(source=place.store.log()).register())

    assert await settled(place.subscription().forget()) is True
    assert await settled(place.subscription().forget()) is False
    await settled(place.subscription(source=place.store.log()).register())


@with_every_driver
async def test_a_running_subscription_is_woken_by_publishes_and_can_be_waited_for(place: Place) -> None:
    subscription = place.subscription(partitions=2)
    async with place.running(subscription):
        for stream in "12345":
            (event,) = await place.publish(stream)
            await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
            assert event.sequence_number in place.effects()
        assert {each.owner is not None for each in await settled(subscription.status())} == {True}

    assert {each.owner for each in await settled(subscription.status())} == {None}
    (event,) = await place.publish("1")
    with pytest.raises(WaitTimeoutError, match="not held by any node: is it run anywhere"):
        await settled(subscription.wait_for(event, timeout_s=0.01))


@everywhere
async def test_pausing_and_resuming_a_running_subscription(place: Place) -> None:
    subscription = place.subscription()
    async with place.running(subscription):
        (first,) = await place.publish("1")
        await settled(subscription.wait_for(first, timeout_s=PATIENCE_S))
        await settled(subscription.pause())
        (second,) = await place.publish("1")
        with pytest.raises(SubscriptionError, match="is paused at"):
            await settled(subscription.wait_for(second, timeout_s=PATIENCE_S))
        await settled(subscription.resume())
        await settled(subscription.wait_for(second, timeout_s=PATIENCE_S))

    # Without sessions, a handler may have been at work when its partition was taken from it.
    assert list(dict.fromkeys(place.effects())) == numbers([first, second])
    assert place.sessions is None or len(place.effects()) == 2


@everywhere
async def test_a_projector_is_a_handler(place: Place) -> None:
    projections: Any = (ProjectionStore if place.asynchronous else SyncProjectionStore)(place.store)
    await place.publish(*"112", name="something-happened", payload=3)
    subscription = place.subscription(OrderProjector())

    for _ in range(2):
        await place.catch_up(subscription)
        assert (await settled(projections.load(name="order", id="1"))).state["sum"] == 6
        await settled(subscription.rewind())


@everywhere
async def test_what_cannot_work_is_refused_at_once(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="reads a single stream"):
        place.subscription(place.note, place.store.stream(category="a", stream="b"), sessions=None, partitions=2)
    with pytest.raises(ConfigurationError, match="a handler is a function, a projector or a table projection"):
        place.subscription(OrderProjector, sessions=None)
    with pytest.raises(ConfigurationError, match="needs a session: pass sessions="):
        place.subscription(place.store_effect, sessions=None)
    with pytest.raises(ConfigurationError, match="reads the log, a category"):
        place.subscription(place.note, object(), sessions=None)
    with pytest.raises(ConfigurationError, match="has at most 200 bytes"):
        place.subscription(place.note, sessions=None, name="ä" * 101)
    with pytest.raises(ConfigurationError, match="a failure has the consequence 'stop', 'skip', 'park'; got 'panic'"):
        FailurePolicy(then="panic")  # type: ignore[arg-type]
    twice = [place.subscription(place.note, sessions=None) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="several subscriptions are called 'billing'"):
        await place.catch_up(*twice)
    if not place.asynchronous:

        async def handle(event: Any) -> None: ...

        with pytest.raises(ConfigurationError, match="is a coroutine function"):
            place.subscription(handle, sessions=None)


@row("an open transaction holds back the log")
@on_postgres
async def test_a_transaction_that_commits_late_is_not_overtaken(place: Place) -> None:
    """The watermark is looked at again although no other number is drawn."""
    assert place.outside is not None
    subscription = place.subscription()
    async with place.running(subscription):
        with place.outside.connect() as late:
            late.execute(
                text(
                    "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
                    "VALUES (gen_random_uuid(), 'orders', 'late', 0, 'late', 'null', now(), now())"
                )
            )
            (event,) = await place.publish("1")
            with pytest.raises(WaitTimeoutError):
                await settled(subscription.wait_for(event, timeout_s=0.3))
            late.commit()
        await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))

    assert place.effects() == [event.sequence_number - 1, event.sequence_number]


@row("the log was restored")
@on_postgres
async def test_a_log_that_was_restored_stops_it(place: Place) -> None:
    await place.publish("1", "2")
    subscription = place.subscription()
    await place.catch_up(subscription)
    place.execute("UPDATE es_subscriptions SET event_id = gen_random_uuid()")
    await place.publish("3")

    with pytest.raises(SubscriptionError, match="the log no longer has the event that the checkpoint 2 remembers"):
        await place.catch_up(subscription)

    await settled(subscription.rewind())
    await settled(subscription.resume())
    await place.catch_up(subscription)
    assert place.effects() == [1, 2, 1, 2, 3]


@on_postgres
async def test_numbers_that_will_be_drawn_again_stop_it(place: Place) -> None:
    await place.publish("1", "2")
    subscription = place.subscription()
    await place.catch_up(subscription)
    place.execute("UPDATE es_subscriptions SET sequence_number = 10")

    with pytest.raises(SubscriptionError, match="numbers are drawn again"):
        await place.catch_up(subscription)


@on_postgres
async def test_nothing_is_held_while_there_is_nothing_to_do(place: Place) -> None:
    subscriptions = [place.subscription(name=f"s{number}") for number in range(3)]
    async with place.running(*subscriptions):
        (event,) = await place.publish("1")
        for subscription in subscriptions:
            await settled(subscription.wait_for(event, timeout_s=PATIENCE_S))
        for _ in range(20):
            open_transactions = place.execute(
                "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
            )
            assert open_transactions == []
            await asyncio.sleep(0.01)
        assert place.engine.pool.checkedout() <= 1  # a poll


@row("the database is away")
@on_postgres
async def test_the_database_goes_away_and_comes_back(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    subscription = place.subscription(partitions=2)
    stored: list[Any] = []
    async with place.running(subscription):
        for round_ in range(3):
            stored += await place.publish(*(str(number) for number in range(10)))
            place.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            stored += await place.publish(f"after {round_}")
            await settled(subscription.wait_for(stored[-1], timeout_s=PATIENCE_S))

        def all_are_there() -> bool:
            return sorted(place.effects()) == numbers(stored)

        await eventually(all_are_there, "events were missed")

    assert sorted(place.effects()) == numbers(stored)
    assert {record.levelname for record in caplog.records if "eventstore_sa.subscriptions" in record.name} <= {
        "INFO",
        "WARNING",
    }


@row("a process ends gracefully")
@everywhere
async def test_a_graceful_end_is_between_events(place: Place) -> None:
    stored = await place.publish(*(str(number) for number in range(50)))
    started = asyncio.Event() if place.asynchronous else threading.Event()

    async def handle(event: Any) -> None:
        place.note(event)
        started.set()
        await asyncio.sleep(0.001)

    def handle_in_thread(event: Any) -> None:
        place.note(event)
        started.set()
        threading.Event().wait(0.001)

    subscription = place.subscription(handle if place.asynchronous else handle_in_thread, sessions=None)
    async with place.running(subscription):
        if place.asynchronous:
            await started.wait()  # type: ignore[misc]
        else:
            started.wait(PATIENCE_S)  # type: ignore[call-arg,unused-coroutine]

    handled = len(place.done)
    assert 0 < handled < 50
    assert await place.checkpoints(subscription) == [stored[handled - 1].sequence_number]
    await place.catch_up(subscription)
    assert place.done == numbers(stored)


@on_asyncpg
async def test_cancelling_run_gives_the_partitions_back(place: Place) -> None:
    subscription = place.subscription(partitions=2)
    task = asyncio.create_task(run([subscription]))
    (event,) = await place.publish("1")
    await eventually(lambda: event.sequence_number in place.effects(), "it was not handled")

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert {each.owner for each in await subscription.status()} == {None}
    assert place.execute("SELECT count(*) FROM es_subscription_nodes") == [(0,)]


@on_databases
async def test_a_handler_may_publish_and_its_events_count_once(place: Place) -> None:
    await place.publish("1", "2")

    def react(event: Any, session: Any) -> Any:
        target = place.store.within(session).stream(category="bills", stream=event.stream)
        return target.publish(events=[NewEvent(name="billed", payload=event.sequence_number)])

    subscription = place.subscription(react)
    await place.catch_up(subscription)
    await place.catch_up(subscription)

    bills = await settled(place.store.category(category="bills").read())
    assert [event.payload for event in bills] == [1, 2]


@on_databases
async def test_few_statements_are_needed_for_a_batch(place: Place) -> None:
    await place.publish(*(str(number) for number in range(100)))

    def handle(events: list[Any], session: Any) -> None:
        place.done.extend(numbers(events))

    subscription = place.subscription(handle, per_batch=True)
    with statements_of(place.engine) as statements:
        await place.catch_up(subscription)

    moves = [each for each in statements if each.startswith("UPDATE es_subscriptions SET sequence_number")]
    assert len(moves) == 1
    assert len(place.done) == 100


@everywhere
async def test_progress_is_told(place: Place) -> None:
    await place.publish(*"123")
    told: list[Any] = []
    await place.catch_up(place.subscription(), progress=told.append)

    assert (told[-1].sequence_number, told[-1].last_sequence_number, told[-1].handled) == (3, 3, 3)


@row("the projections are rebuilt")
@everywhere
async def test_a_rebuild_and_a_subscription_of_the_same_projections_do_not_undo_each_other(place: Place) -> None:
    """Whatever the subscription does while the rebuild is under way, it applies again to what was rebuilt."""
    projections: Any = (ProjectionStore if place.asynchronous else SyncProjectionStore)(place.store)
    projector = CustomerProjector()
    subscription = place.subscription(projector, place.store.log())
    await place.publish("a-1", "a-2", name="something-happened", payload=1)
    await place.catch_up(subscription)
    subscribed: list[Any] = []

    async def go_on() -> None:
        await place.publish("a-3", "b-1", name="something-happened", payload=10)
        await place.catch_up(subscription)
        subscribed.extend(await place.checkpoints(subscription))

    async def sums() -> list[int]:
        return [(await settled(projections.load(name="customer", id=each))).state["sum"] for each in "ab"]

    if place.asynchronous:

        async def told(_: Any) -> None:
            if not subscribed:
                await go_on()

        await rebuild(projector, store=place.store, progress=told)
    else:

        def told_at_once(_: Any) -> None:
            if not subscribed:
                # A thread of its own, because this one has a running event loop.
                thread = threading.Thread(target=asyncio.run, args=(go_on(),))
                thread.start()
                thread.join()

        rebuild_sync(projector, store=place.store, progress=told_at_once)
    await place.catch_up(subscription)

    assert subscribed == [4]
    assert await sums() == [12, 10]
    await place.publish("a-1", name="something-happened", payload=100)
    await place.catch_up(subscription)
    assert await sums() == [112, 10]


@on_postgres
async def test_an_event_that_commits_late_is_not_lost_to_a_rebuild(place: Place) -> None:
    """A projection of several streams would pass it, if the rebuild had applied events beyond the watermark."""
    assert place.outside is not None
    projections: Any = (ProjectionStore if place.asynchronous else SyncProjectionStore)(place.store)
    projector = CustomerProjector()
    subscription = place.subscription(projector, place.store.log())
    await place.publish("a-1", name="something-happened", payload=1)
    await place.catch_up(subscription)
    with place.outside.connect() as late:
        late.execute(
            text(
                "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
                "VALUES (gen_random_uuid(), 'orders', 'a-late', 0, 'something-happened', '10', now(), now())"
            )
        )
        await place.publish("a-2", name="something-happened", payload=100)
        await settled((rebuild if place.asynchronous else rebuild_sync)(projector, store=place.store))
        late.commit()
    await place.catch_up(subscription)

    assert (await settled(projections.load(name="customer", id="a"))).state["sum"] == 111


@on_databases
async def test_a_table_projection_is_a_handler(place: Place) -> None:
    if place.postgres:
        place.execute("CREATE TABLE IF NOT EXISTS counted (id text PRIMARY KEY, count int)")
        place.execute("DELETE FROM counted")
    else:
        place.execute("CREATE TABLE counted (id text PRIMARY KEY, count int)")
    await place.publish(*"1121")

    await place.catch_up(place.subscription(CountProjection()))

    assert [tuple(row) for row in place.execute("SELECT id, count FROM counted ORDER BY id")] == [("1", 3), ("2", 1)]


@everywhere
async def test_streams_that_are_parked_stay_so_when_partitions_change(place: Place) -> None:
    stored = await place.publish("1", "2", "1")
    failing = Failing(place, stored[0].sequence_number)
    await place.catch_up(place.subscription(failing.handler, on_failure=policy("park")))

    subscription = place.subscription(failing.handler, on_failure=policy("park"), partitions=3)
    stored += await place.publish("1", "2")
    await place.catch_up(subscription)

    assert sorted(place.effects()) == numbers([stored[1], stored[4]])
    failing.numbers.clear()
    assert await settled(subscription.replay()) == 3


@on_asyncpg
async def test_a_statement_that_takes_too_long_is_ended_with_its_handler(place: Place) -> None:
    stored = await place.publish("1", "2")

    async def handle(event: Any, session: Any) -> None:
        await place.store_effect(event, session)
        if event.stream == "1":
            await session.execute(text("SELECT pg_sleep(600)"))

    subscription = place.subscription(handle, deadline_s=0.2, on_failure=policy("park"))
    await place.catch_up(subscription)

    (parked,) = await subscription.parked()
    assert (parked.stream.stream, parked.error) == ("1", "TimeoutError: the handler took longer than 0.2 s")
    assert place.effects() == numbers(stored[1:])
    sleeping = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND state = 'active' AND query LIKE '%pg_sleep(600)%'"
    )
    assert place.execute(sleeping) == []


@on_asyncpg
async def test_a_second_cancellation_does_not_wait_for_the_handler(place: Place) -> None:
    started = asyncio.Event()

    async def handle(event: Any, session: Any) -> None:
        await place.store_effect(event, session)
        started.set()
        await asyncio.sleep(PATIENCE_S)

    subscription = place.subscription(handle)
    await place.publish("1")
    task = asyncio.create_task(run([subscription]))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert place.effects() == []
    await place.catch_up(place.subscription())
    assert len(place.effects()) == 1


async def test_a_database_with_one_connection_has_no_sessions_for_it(tmp_path: Path) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(ConfigurationError, match="has StaticPool"):
        Subscription("billing", EventStore(engine).log(), lambda event: None, sessions=async_sessionmaker(engine))
    Subscription("billing", EventStore(engine).log(), lambda event: None)
    await engine.dispose()
    with pytest.raises(ConfigurationError, match="has SingletonThreadPool"):
        SyncSubscription("billing", SyncEventStore(create_engine("sqlite://")).log(), lambda event: None)


@on_asyncpg
async def test_the_application_starts_and_ends_without_a_database(place: Place) -> None:
    """Ending does not hang when the partitions cannot be given back."""
    assert place.outside is not None
    subscription = place.subscription()
    async with place.running(subscription):
        (event,) = await place.publish("1")
        await subscription.wait_for(event, timeout_s=PATIENCE_S)
        place.execute("ALTER TABLE es_subscriptions RENAME TO away")
    place.execute("ALTER TABLE away RENAME TO es_subscriptions")

    (status,) = await subscription.status()
    assert status.owner is not None


@row("an event cannot be read")
@on_postgres
async def test_an_event_that_cannot_be_read_stops_it(place: Place, recwarn: pytest.WarningsRecorder) -> None:
    stored = await place.publish("1")
    place.execute(
        "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
        "VALUES (gen_random_uuid(), 'orders', 'odd', 0, 'odd', 'null', 'infinity', now())"
    )
    subscription = place.subscription()

    with pytest.raises(SubscriptionError, match="stopped at 1: UnreadableEventError"):
        await place.catch_up(subscription)

    assert place.effects() == numbers(stored)
    await settled(subscription.skip_to(2))
    await settled(subscription.resume())
    stored += await place.publish("2")
    await place.catch_up(subscription)
    assert place.effects() == numbers(stored)
    assert not recwarn.list


@everywhere
async def test_a_policy_that_fails_itself_stops_it(place: Place) -> None:
    stored = await place.publish("1")
    failing = Failing(place, stored[0].sequence_number)

    def then(error: Exception, event: Any) -> Any:
        raise KeyError("policy")

    with pytest.raises(SubscriptionError, match="stopped at 0: ValueError: event 1 is poison"):
        await place.catch_up(place.subscription(failing.handler, on_failure=policy(then)))


@everywhere
async def test_steering_while_it_runs_takes_effect_at_once(place: Place) -> None:
    """Whoever holds a partition loses it, so that nothing it has in memory is used."""
    stored = await place.publish("1", "2")
    subscription = place.subscription()
    async with place.running(subscription):
        await settled(subscription.wait_for(stored[-1], timeout_s=PATIENCE_S))
        await settled(subscription.rewind())
        await eventually(lambda: len(place.effects()) == 4, "it is handled again")
        (last,) = await place.publish("3")
        await settled(subscription.wait_for(last, timeout_s=PATIENCE_S))

    assert place.effects() == [*numbers(stored), *numbers(stored), last.sequence_number]


@row("two event loops run it")
@on_asyncpg
async def test_two_event_loops_share_it_with_an_engine_each(place: Place) -> None:
    stored = await place.publish(*"12345678")

    async def elsewhere() -> None:
        engine = create_async_engine(place.engine.url)
        store, sessions = EventStore(engine), async_sessionmaker(engine)
        source = store.category(category="orders")
        await catch_up(Subscription("billing", source, place.store_effect, sessions=sessions, partitions=4))
        await engine.dispose()

    async def wrongly() -> None:
        with pytest.raises(ConfigurationError, match="belong to another event loop"):
            await catch_up(place.subscription(partitions=4))

    await asyncio.gather(place.catch_up(place.subscription(partitions=4)), asyncio.to_thread(asyncio.run, elsewhere()))
    await asyncio.to_thread(asyncio.run, wrongly())

    assert sorted(place.effects()) == numbers(stored)


@row("a process forks")
@pytest.mark.parametrize("place", ["postgresql+psycopg2"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_forked_process_leaves_the_subscriptions_of_its_parent_alone(place: Place) -> None:
    subscription = place.subscription()
    async with place.running(subscription):
        (first,) = await place.publish("1")
        await settled(subscription.wait_for(first, timeout_s=PATIENCE_S))
        child = os.fork()
        if child == 0:
            refused = 1
            try:
                subscription.status()
            except ConfigurationError as error:
                refused = 0 if "forked" in str(error) else 2
            finally:
                os._exit(refused)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        (second,) = await place.publish("1")
        await settled(subscription.wait_for(second, timeout_s=PATIENCE_S))
    assert place.effects() == numbers([first, second])
