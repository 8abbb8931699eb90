"""Runs a soak on an empty database, from the tables to the verdict."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import URL, Connection, Engine, create_engine, select, text

from eventstore_sa import EventStoreSchema, SyncEventStore
from eventstore_sa.testing.postgres import PostgresDriver
from tests.soak.chaos import Chaos, decide_prepared, wait_until_nobody_writes
from tests.soak.fences import check_every_fence, fences_checked
from tests.soak.journal import Journal, Noted, Tail
from tests.soak.plan import Plan
from tests.soak.processes import Processes, Program
from tests.soak.reader import Seen
from tests.soak.transactions import CREATE_HOST_TABLE
from tests.soak.verdict import Knowledge, findings

__all__ = ["Report", "Size", "soak"]

_TICK_S = 0.05
_START_S = 600.0
_END_S = 600.0
_WRITER_DRIVERS = ("asyncpg+coalescing", "psycopg", "asyncpg", "psycopg2+coalescing", "psycopg-async")
_READER_DRIVERS = ("asyncpg", "psycopg")


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything.

    Attributes:
        seconds: For how long, at most.
        commits: After how many known commits it is enough; None: never.
        writers: How many processes write, each with `workers` connections' worth of writers.
        workers: How many writers each process has.
        readers: How many processes read.
        streams: How many streams each category has.
        kills: Whether connections and processes are killed.
        leisure_of_fences: As in `Plan`; less of it makes for more fences to check.
        fences: How many fences of single events have to be checked besides, however long that takes.
    """

    seconds: float
    commits: int | None = None
    writers: int = 4
    workers: int = 4
    readers: int = 2
    streams: int = 8
    kills: bool = True
    leisure_of_fences: float = 3.0
    fences: int = 0


class Report(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        findings: What is wrong, in words; nothing if all is well.
        commits: How many commits the writers know of.
        summary: All numbers, in one line.
    """

    findings: list[str]
    commits: int
    summary: str


def soak(
    url_for: Callable[[PostgresDriver], URL],
    size: Size,
    *,
    seed: int,
    mutate: Callable[[Connection], object] | None = None,
    late_watermark: bool = False,
) -> Report:
    """Run one soak.

    Args:
        url_for: The address of an empty database, as a superuser.
        size: How much of everything.
        seed: Of random choices.
        mutate: Breaks the schema before it starts.
        late_watermark: Whether the readers read the watermark after the page.
    """
    with tempfile.TemporaryDirectory(prefix="eventstore-sa-soak-") as folder, contextlib.ExitStack() as stack:
        engine = create_engine(url_for("psycopg"), isolation_level="AUTOCOMMIT")
        stack.callback(engine.dispose)
        two_phase = _prepare_database(engine, mutate)
        urls = {
            driver: url_for(driver).render_as_string(hide_password=False)
            for driver in ("asyncpg", "psycopg", "psycopg2")
        }
        plan = Plan(
            folder=folder,
            urls=urls,
            seed=seed,
            streams=size.streams,
            two_phase=two_phase,
            late_watermark=late_watermark,
            leisure_of_fences=size.leisure_of_fences,
        )
        plan.save()
        journal = Journal(Path(folder, "parent.journal"))
        stack.callback(journal.close)
        readers = stack.enter_context(Processes(_readers(size, late_watermark=late_watermark), plan_folder(plan)))
        writers = stack.enter_context(Processes(_writers(size), plan_folder(plan)))
        knowledge = Knowledge()
        started_at = time.monotonic()
        _watch(engine, size, plan, journal, (readers, writers), knowledge)
        seconds = time.monotonic() - started_at
        seen = [
            one
            for path in sorted(plan_folder(plan).glob("*.seen.json"))
            for one in msgspec.json.decode(path.read_bytes(), type=list[Seen])
        ]
        table = _table(engine)
    return Report(
        findings(table, knowledge, seen),
        knowledge.commits,
        _summary(table, knowledge, seen, seconds=seconds, seed=seed),
    )


def plan_folder(plan: Plan) -> Path:
    """Return the folder of a plan."""
    return Path(plan.folder)


def _watch(
    engine: Engine,
    size: Size,
    plan: Plan,
    journal: Journal,
    processes: tuple[Processes, Processes],
    knowledge: Knowledge,
) -> None:
    readers, writers = processes
    tail = Tail(plan_folder(plan))
    random = plan.random("chaos")
    _wait_for_first_commits(size.writers, writers, knowledge, tail)
    chaos = Chaos(engine, writers, journal, random)
    deadline = time.monotonic() + size.seconds
    while (time.monotonic() < deadline and (size.commits is None or knowledge.commits < size.commits)) or (
        fences_checked(knowledge.counts) < size.fences
    ):
        readers.require_alive()
        writers.require_alive()
        if size.kills:
            chaos.tick()
        else:
            decide_prepared(engine, journal, random)
        knowledge.learn(tail.new_entries())
        if knowledge.wrong:
            break
        time.sleep(_TICK_S)
    writers.end(timeout_s=_END_S)
    wait_until_nobody_writes(engine)
    decide_prepared(engine, journal, random)
    readers.end(timeout_s=_END_S)
    knowledge.learn(tail.new_entries())
    knowledge.settle()


def _wait_for_first_commits(amount: int, writers: Processes, knowledge: Knowledge, tail: Tail) -> None:
    """Wait until processes have had the time to start, however slow the machine is."""
    deadline = time.monotonic() + _START_S
    while knowledge.commits < amount and not knowledge.wrong:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {knowledge.commits} commits in the first {_START_S} s")
        writers.require_alive()
        knowledge.learn(tail.new_entries())
        time.sleep(_TICK_S)


def _prepare_database(engine: Engine, mutate: Callable[[Connection], object] | None) -> bool:
    """Create tables, and make deadlocks and timeouts come soon; tell whether transactions can be prepared."""
    with SyncEventStore(engine.url) as store:
        store.create_schema()
    with engine.connect() as connection:
        connection.execute(text(CREATE_HOST_TABLE))
        database = engine.dialect.identifier_preparer.quote(engine.url.database or "")
        connection.execute(text(f"ALTER DATABASE {database} SET deadlock_timeout = '50ms'"))
        connection.execute(text(f"ALTER DATABASE {database} SET lock_timeout = '1500ms'"))
        check_every_fence(connection)
        if mutate is not None:
            mutate(connection)
        return int(connection.execute(text("SHOW max_prepared_transactions")).scalar_one()) >= 10


def _writers(size: Size) -> list[Program]:
    drivers = (_WRITER_DRIVERS * size.writers)[: size.writers]
    writers = [
        Program("tests.soak.writer", (f"writer{number}", driver, str(size.workers)))
        for number, driver in enumerate(drivers)
    ]
    return [*writers, Program("tests.soak.fences", ("fences", "psycopg"))]


def _readers(size: Size, *, late_watermark: bool) -> list[Program]:
    drivers = ("psycopg",) if late_watermark else (_READER_DRIVERS * size.readers)[: size.readers]
    return [Program("tests.soak.reader", (f"reader{number}", driver)) for number, driver in enumerate(drivers)]


def _table(engine: Engine) -> list[Noted]:
    c = EventStoreSchema().events.c
    statement = select(c.id, c.category, c.stream, c.position, c.sequence_number).order_by(c.sequence_number)
    with engine.connect() as connection:
        return [Noted(str(row.id), *row[1:]) for row in connection.execute(statement)]


def _summary(table: Sequence[Noted], knowledge: Knowledge, seen: Sequence[Seen], *, seconds: float, seed: int) -> str:
    counts = ", ".join(f"{what}: {amount}" for what, amount in sorted(knowledge.counts.items()))
    unknown = len(knowledge.tried.keys() - knowledge.stored.keys() - knowledge.refused.keys())
    reads = sum(len(one.events) for one in seen)
    pages = sum(one.pages for one in seen)
    return (
        f"{knowledge.commits} commits, {len(table)} events, {unknown} events of unknown fate ({counts}); "
        f"{len(seen)} readers read {reads} events in {pages} pages ({seconds:.0f} s, seed {seed})"
    )
