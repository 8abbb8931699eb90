"""Business transactions in processes that are killed: `python -m tests.killing URL TRANSACTIONS SEED MISTAKE`.

One process after the other is forked, transfers money between accounts until it is killed at a random moment, and leaves
behind whatever was committed by then: rows of accounts, and events in their streams. `disagreements` compares the two.
Prints how many processes were killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Engine, NullPool, create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import EventStoreSchema, NewEvent, RecordsEvents
from tests.awaiting import entered, settled
from tests.hosts import Ground, Host

__all__ = ["LEAST_KILLS", "SCHEMA", "disagreements", "open_accounts"]

ACCOUNTS: Final = 6
LONGEST_LIFE: Final = 4  # transactions
LEAST_KILLS: Final = 10
WARM_UP: Final = 10
WAYS: Final = ("recorded", "staged", "published")


class Base(DeclarativeBase):
    pass


class Account(RecordsEvents, Base):
    __tablename__ = "killing_accounts"
    __event_category__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(default=0)
    changes: Mapped[int] = mapped_column(default=0)


SCHEMA: Final = EventStoreSchema(Base.metadata)


def open_accounts(engine: Engine) -> None:
    """Create the accounts, in a database that has an event store."""
    Account.metadata.create_all(engine, tables=[Account.metadata.tables["killing_accounts"]])
    with Session(engine) as session, session.begin():
        session.add_all(Account(id=number) for number in range(ACCOUNTS))


def disagreements(engine: Engine) -> tuple[list[str], int]:
    """Compare each account with its events; return what differs, and the number of events."""
    event = SCHEMA.EventRecord
    with Session(engine) as session:
        differing: list[str] = []
        stored = 0
        for account in session.scalars(select(Account)):
            payloads = session.scalars(select(event.payload).where(event.stream == str(account.id))).all()
            stored += len(payloads)
            if (account.changes, account.balance) != (len(payloads), sum(payloads)):
                differing.append(f"account {account.id}: {account.changes} changes, {len(payloads)} events")
    return differing, stored


class Trader:
    """Does transfers; made before the fork, so that no process has to compile its statements anew."""

    def __init__(self, url: str, *, mistake: bool) -> None:
        address = make_url(url)
        self._host = Host(Ground(create_engine(address, poolclass=NullPool)), address.drivername)
        self._store = self._host.store_on(self._host.engine, schema=SCHEMA)
        self._mistake = mistake

    async def trade(self, chance: random.Random, transactions: Iterable[object]) -> None:
        """Do one transfer after the other, on one connection."""
        async with entered(self._host.engine.connect()) as connection:
            factory = self._host.factory(connection)
            for _ in transactions:
                async with entered(factory()) as session:
                    await _transfer(self._store, session, chance, mistake=self._mistake)


async def _transfer(store: Any, session: Any, chance: random.Random, *, mistake: bool) -> None:
    amount = chance.randrange(1, 100)
    giver, taker = chance.sample(range(ACCOUNTS), 2)
    moved: list[tuple[str, Any]] = []
    for number, change in sorted(((giver, -amount), (taker, amount))):
        account = await settled(session.get(Account, number, with_for_update=True))
        account.balance += change
        account.changes += 1
        new = NewEvent(name="moved", payload=change)
        stream = store.within(session).stream(category="accounts", stream=str(number))
        match "alone" if mistake else chance.choice(WAYS):
            case "recorded":
                account.record(new)
            case "staged":
                stream.stage(events=[new])
            case "published":
                await settled(stream.publish(events=[new]))
            case _:
                moved.append((str(number), new))
        savepoint = await settled(session.begin_nested())
        stream.stage(events=[NewEvent(name="regretted", payload=1)])
        await settled(savepoint.rollback())
    await settled(session.commit())
    for name, new in moved:
        await settled(store.stream(category="accounts", stream=name).publish(events=[new]))


def _kill_one(trader: Trader, chance: random.Random, *, longest_life_s: float) -> int:
    """Start a process, and kill it soon after its first transaction has begun; return how many there were."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # As many transactions are begun as there are bytes in the pipe.
        begun = iter(lambda: os.write(writing, b"."), None)
        asyncio.run(trader.trade(random.Random(chance.getrandbits(32)), begun))
    os.close(writing)
    begun_there = len(os.read(reading, 1))
    time.sleep(chance.uniform(0, longest_life_s))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(reading, 4096):
        begun_there += len(more)
    os.close(reading)
    if not os.WIFSIGNALED(status):
        raise SystemExit("a process has ended by itself")
    return begun_there


def main(url: str, transactions: str, seed: str, mistake: str) -> None:
    """Kill processes until so many transactions have been begun, and some processes killed."""
    chance = random.Random(int(seed))
    trader = Trader(url, mistake=mistake == "True")
    asyncio.run(trader.trade(chance, range(WARM_UP)))
    start = time.perf_counter()
    asyncio.run(trader.trade(chance, range(WARM_UP)))
    longest_life_s = (time.perf_counter() - start) / WARM_UP * LONGEST_LIFE
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()
    begun = killed = 0
    # How many transactions a process gets done depends on the machine, which may be slower or faster than a moment ago.
    while begun < int(transactions) or killed < LEAST_KILLS:
        begun += _kill_one(trader, chance, longest_life_s=longest_life_s)
        killed += 1
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
