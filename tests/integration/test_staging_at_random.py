"""Random walks through a session, against a model: what is stored is what was staged or recorded, and not rolled back."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, RecordsEvents, SyncEventStore
from eventstore_sa.conditions import position_is
from eventstore_sa.errors import UnmetWriteConditionError
from tests.awaiting import entered
from tests.hosts import Host, each_driver, new_event
from tests.integration.test_staging_late import listening

STEPS = 40
SESSION_HOOKS = ("before_commit", "before_flush", "after_flush", "after_flush_postexec")
MAPPER_HOOKS = ("before_insert", "after_insert", "before_update", "after_update")


class Base(DeclarativeBase):
    pass


class Order(RecordsEvents, Base):
    __tablename__ = "random_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    changes: Mapped[int] = mapped_column(default=0)


SCHEMA = EventStoreSchema(Base.metadata)
TABLES = [Order.__table__]


class Frame:
    """A transaction, or a savepoint of the session or of its connection: what vanishes when it is rolled back."""

    def __init__(self, savepoint: Any = None, *, of_connection: bool = False) -> None:
        self.savepoint = savepoint
        self.of_connection = of_connection
        self.events: list[str] = []
        self.orders: list[Order] = []
        self.rows: list[int] = []
        self.cannot_commit = False

    def take_over(self, inner: Frame) -> None:
        self.events += inner.events
        self.orders += inner.orders
        self.rows += inner.rows
        self.cannot_commit |= inner.cannot_commit


class Walk:
    """A session, what is done with it, and what has to come of that."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session = session
        self.random = random.Random(seed)
        self.numbers = count(1)
        self.frames = [Frame()]
        self.orders: list[Order] = []
        self.stored: list[str] = []
        self.stored_rows: list[int] = []
        self.log: list[str] = []
        self.listeners_left = 0

    @property
    def top(self) -> Frame:
        return self.frames[-1]

    def name(self) -> str:
        name = f"event-{next(self.numbers)}"
        self.top.events.append(name)
        return name

    @property
    def store(self) -> SyncEventStore:
        return SyncEventStore(self.session, schema=SCHEMA)

    def stage(self) -> None:
        stream = self.store.stream(category="random", stream=str(self.random.randrange(3)))
        stream.stage(events=[new_event(self.name())])

    def stage_what_fails(self) -> None:
        if self.random.random() < 0.2:
            self.store.stream(category="random", stream="never").stage(events=[new_event()], condition=position_is(99))
            self.top.cannot_commit = True

    def add(self) -> None:
        if self.top.of_connection:
            self.stage()
            return
        order = Order(id=next(self.numbers), changes=0)
        how = self.random.randrange(4)
        if how == 0:
            order.record(new_event(self.name()))
        if how == 3:
            self.session.add(order)
            order.record(new_event(self.name()))
            self.session.expunge(order)
        if how == 1:
            order.record(new_event(self.name()))
            order = self.session.merge(order)
        else:
            self.session.add(order)
        order.record(new_event(self.name()))
        self.top.orders.append(order)
        self.top.rows.append(order.id)

    def record(self) -> None:
        known = self.orders + [order for frame in self.frames for order in frame.orders]
        if known and not self.top.of_connection:
            self.random.choice(known).record(new_event(self.name()))

    def change(self) -> None:
        known = self.orders + [order for frame in self.frames for order in frame.orders]
        if known and not self.top.of_connection:
            order = self.random.choice(known)
            order.changes += 1
            order.record(new_event(self.name()))

    def flush(self) -> None:
        self.session.flush()

    def write(self) -> None:
        try:
            self.store.flush()
        except UnmetWriteConditionError:
            assert any(frame.cannot_commit for frame in self.frames)

    def settle(self) -> None:
        """Flush all; what is pending when a savepoint begins may be flushed in it, and vanish with it."""
        self.listeners_left = 0
        self.session.flush()

    def begin_savepoint(self) -> None:
        self.session.flush()
        self.settle()
        self.frames.append(Frame(self.session.begin_nested()))

    def begin_savepoint_of_connection(self) -> None:
        self.session.flush()
        self.settle()
        self.frames.append(Frame(self.session.connection().begin_nested(), of_connection=True))

    def release(self) -> None:
        if len(self.frames) > 1:
            self.top.savepoint.commit()
            inner = self.frames.pop()
            self.top.take_over(inner)

    def undo(self) -> None:
        if len(self.frames) > 1:
            self.top.savepoint.rollback()
            self.frames.pop()

    def commit(self) -> None:
        if any(frame.of_connection for frame in self.frames):
            return
        fails = any(frame.cannot_commit for frame in self.frames)
        if fails:
            with pytest.raises(UnmetWriteConditionError):
                self.commit_root()
            self.session.rollback()
        else:
            self.commit_root()
            for frame in self.frames:
                self.stored += frame.events
                self.stored_rows += frame.rows
                self.orders += frame.orders
        self.frames = [Frame()]

    def commit_root(self) -> None:
        self.session.commit()

    def roll_back(self) -> None:
        if not any(frame.of_connection for frame in self.frames):
            self.session.rollback()
            self.frames = [Frame()]

    def close(self) -> None:
        if not any(frame.of_connection for frame in self.frames):
            self.session.close()
            self.frames, self.orders = [Frame()], []

    def listen(self, session: Session, target: object = None) -> None:
        """Do something in a hook, which may be one of a commit."""
        if session is not self.session or self.listeners_left <= 0 or self.random.random() < 0.5:
            return
        self.listeners_left -= 1
        self.log.append("  listener")
        if isinstance(target, Order):
            target.record(new_event(self.name()))
        else:
            self.random.choice([self.stage, self.add, self.record])()

    def step(self) -> None:
        steps: list[Callable[[], None]] = [
            *[self.stage, self.add, self.change, self.begin_savepoint, self.begin_savepoint_of_connection] * 2,
            *[self.release, self.undo] * 3,
            *[self.commit, self.flush, self.write],
            *[self.roll_back, self.close, self.stage_what_fails],
        ]
        step = self.random.choice(steps)
        self.listeners_left = 3
        self.log.append(step.__name__)
        step()

    def go(self) -> None:
        with ExitStack() as stack:
            for name in SESSION_HOOKS:
                for target, first in ((self.session, False), (Session, False), (Session, True)):

                    def act(session: Session, *_: object) -> None:
                        self.listen(session)

                    stack.enter_context(listening(target, name, act, insert=first))
            for name in MAPPER_HOOKS:

                def act_on(_: object, __: object, order: Order) -> None:
                    self.listen(self.session, order)

                stack.enter_context(listening(Order, name, act_on))
            for _ in range(STEPS):
                self.step()
            while len(self.frames) > 1:
                self.release()
            self.commit()


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=pytest.mark.long if seed >= 6 else ()) for seed in range(200)]
)
@each_driver("sqlite", "postgresql+asyncpg", "postgresql+psycopg")
async def test_what_is_stored_is_what_was_staged_and_not_rolled_back(host: Host, seed: int) -> None:
    Base.metadata.create_all(host.ground.outside, tables=TABLES)
    try:
        async with entered(host.session(expire_on_commit=seed % 2 == 0)) as session:
            walk = Walk(getattr(session, "sync_session", session), seed)
            if host.asynchronous:
                await session.run_sync(lambda _: walk.go())
            else:
                walk.go()
        with host.ground.outside.connect() as connection:
            rows = sorted(connection.exec_driver_sql("SELECT id FROM random_orders").scalars())
        assert sorted(host.ground.names()) == sorted(walk.stored), walk.log
        assert rows == sorted(walk.stored_rows), walk.log
    finally:
        Base.metadata.drop_all(host.ground.outside, tables=TABLES)
