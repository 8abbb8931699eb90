"""Fill an event store with millions of events: `python -m benchmarks.data --events 10_000_000 --url postgresql://...`.

The events are those of a shop: orders that are placed, paid and sent; baskets that are filled and given up; customers that
change little; a few accounts that are written to forever. Streams of all kinds are under way at the same time, as in a real
log, and their lengths differ as much: most have a handful of events, a few have thousands. The same seed makes the same
events, except for the numbers of the streams, which continue those that are stored.

PostgreSQL is filled by COPY. The database draws the sequence numbers, and its triggers announce them to readers, as for any
other way of inserting, so the log is complete for those who read it meanwhile. COPY takes no locks on streams: nobody else
may write to those that are being made, which get new numbers. SQLite is filled by INSERT.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any, Final, TypeAlias

import asyncpg
from sqlalchemy import URL, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore_sa import EventStore, EventStoreSchema, configure_sqlite, verify_schema
from eventstore_sa.errors import EventStoreError
from eventstore_sa.persistence.schema.ddl import quoted

__all__ = ["COLUMNS", "fill_postgresql", "fill_sqlite", "history", "main"]

COLUMNS: Final = (
    "id",
    "category",
    "stream",
    "position",
    "name",
    "payload",
    "metadata",
    "observed_at",
    "occurred_at",
)
"""The columns of a row, in the order of COPY; what the database assigns is left out."""

Row: TypeAlias = tuple[str, str, str, int, str, str, str, str, str]

# Short transactions: readers of the log wait for the fence of each.
_ROWS_PER_COPY: Final = 50_000
_ROWS_PER_BLOCK: Final = 1000
_STREAMS_UNDER_WAY: Final = 500


class _Kind:
    """A category: how often its streams begin, how long they get, and what their events say."""

    def __init__(
        self,
        category: str,
        weight: float,
        length: Callable[[Random], int],
        names: Sequence[str],
        payload: Callable[[int, int], str],
    ) -> None:
        self.category = category
        self.weight = weight
        self.length = length
        self.names = names
        self.payload = payload

    def name_of(self, position: int, length: int) -> str:
        """The first event begins a stream and the last one ends it; those between take turns."""
        if position == 0:
            return self.names[0]
        if position == length - 1:
            return self.names[-1]
        middle = self.names[1:-1]
        return middle[position % len(middle)]


def _order(stream: int, position: int) -> str:
    return (
        f'{{"order_id":"order-{stream}","customer":"customer-{stream % 9973}","total":{stream % 99991 / 100},'
        f'"currency":"EUR","lines":[{{"sku":"sku-{stream % 89}","quantity":{1 + position},"price":3.5}},'
        f'{{"sku":"sku-{position % 83}","quantity":1,"price":17.25}}]}}'
    )


def _basket(stream: int, position: int) -> str:
    return f'{{"basket":"basket-{stream}","sku":"sku-{(stream + position) % 9001}","quantity":{1 + position % 5}}}'


def _customer(stream: int, position: int) -> str:
    return (
        f'{{"customer":"customer-{stream}","name":"Customer {stream}","email":"customer-{stream}@example.org",'
        f'"address":{{"street":"High Street {stream % 300}","postcode":"{10000 + stream % 90000}","country":"DE"}},'
        f'"revision":{position}}}'
    )


def _account(stream: int, position: int) -> str:
    amount = (stream * 31 + position * 17) % 100_000 / 100
    return f'{{"account":"account-{stream}","amount":{amount},"reference":"{position:012d}"}}'


def _long_tail(random: Random) -> int:
    """Most accounts have tens of events, some thousands."""
    return min(int(20 * random.paretovariate(1.1)), 50_000)


_KINDS: Final = (
    _Kind(
        "orders",
        0.40,
        lambda random: 3 + int(random.expovariate(0.3)),
        ("order-placed", "line-added", "order-paid", "order-sent"),
        _order,
    ),
    _Kind(
        "baskets",
        0.45,
        lambda random: 2 + int(random.expovariate(0.25)),
        ("basket-opened", "item-added", "item-removed", "basket-given-up"),
        _basket,
    ),
    _Kind(
        "customers",
        0.14,
        lambda random: 1 + int(random.expovariate(0.7)),
        ("customer-registered", "address-changed", "email-changed"),
        _customer,
    ),
    _Kind(
        "accounts",
        0.01,
        _long_tail,
        ("account-opened", "amount-credited", "amount-debited", "account-closed"),
        _account,
    ),
)


def history(*, seed: int = 1, first_stream: int = 1, start: datetime | None = None) -> Iterator[Row]:
    """Yield the rows of a log without end, in the order of the log.

    Args:
        seed: Which log.
        first_stream: The number of the first stream; none of that or a higher number may be stored.
        start: When the first event was observed, by default a year ago; then there is one each 20 ms.
    """
    random = Random(seed)
    weights = [kind.weight for kind in _KINDS]
    under_way: list[list[Any]] = []
    number = first_stream
    moment = start or datetime.now(UTC) - timedelta(days=365)
    bits, choose = random.getrandbits, random.random
    while True:
        if len(under_way) < _STREAMS_UNDER_WAY:
            kind = random.choices(_KINDS, weights)[0]
            under_way.append([kind, number, 0, kind.length(random)])
            number += 1
            index = len(under_way) - 1
        else:
            index = int(choose() * _STREAMS_UNDER_WAY)
        kind, stream, position, length = under_way[index]
        moment += _BETWEEN
        observed = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
        yield (
            # As uuid7 makes them: by time, and then by chance.
            f"{int(moment.timestamp() * 1000):012x}7{bits(12):03x}{bits(62) | 1 << 63:016x}",
            kind.category,
            f"{kind.category}-{stream}",
            position,
            kind.name_of(position, length),
            kind.payload(stream, position),
            f'{{"user":"user-{stream % 31}"}}',
            observed,
            observed,
        )
        if position + 1 < length:
            under_way[index][2] = position + 1
        else:
            under_way[index] = under_way[-1]
            under_way.pop()


_BETWEEN: Final = timedelta(milliseconds=20)


async def fill_postgresql(
    connection: asyncpg.Connection[Any],
    rows: Iterator[Row],
    count: int,
    *,
    prefix: str = "es_",
    schema: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy so many of the rows into the table of events, in transactions of 50,000 at most, and bring statistics up to date.

    Args:
        connection: A connection without a transaction.
        rows: Where the rows come from: `history()`, which can be continued by another call.
        count: How many of them.
        prefix: The prefix of the tables.
        schema: Their schema; by default the search path decides.
        progress: Is told how many have been committed.
    """
    for done in range(0, count, _ROWS_PER_COPY):
        part = islice(rows, min(_ROWS_PER_COPY, count - done))
        # One statement and one transaction, before whose first number the trigger raises the fence.
        await connection.copy_to_table(
            f"{prefix}events", schema_name=schema, source=_blocks(part), columns=COLUMNS, format="text"
        )
        progress(min(done + _ROWS_PER_COPY, count))
    await connection.execute(f"VACUUM ANALYZE {quoted(f'{prefix}events', schema)}")


async def _blocks(rows: Iterator[Row]) -> AsyncIterator[bytes]:
    # No value has a tab, a line feed or a backslash, which COPY would want escaped.
    while block := "".join(["\t".join(map(str, row)) + "\n" for row in islice(rows, _ROWS_PER_BLOCK)]):
        yield block.encode()


def fill_sqlite(connection: sqlite3.Connection, rows: Iterator[Row], count: int, *, prefix: str = "es_") -> None:
    """Insert so many of the rows into the table of events of a SQLite file."""
    places = ", ".join("?" for _ in COLUMNS)
    insert = f"INSERT INTO {quoted(f'{prefix}events')} ({', '.join(COLUMNS)}) VALUES ({places})"
    with connection:
        connection.executemany(insert, islice(rows, count))


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the store that the arguments name, after a check of its schema."""
    options = _parser().parse_args(arguments)
    url = make_url(options.url)
    if url.get_backend_name() not in {"postgresql", "sqlite"}:
        print(f"only PostgreSQL and SQLite can be filled, not {url.get_backend_name()}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_fill(url, options))
    except EventStoreError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="Fill an event store with events.")
    parser.add_argument("--events", type=int, required=True, help="how many, such as 10_000_000")
    parser.add_argument(
        "--url", required=True, help="the database, as SQLAlchemy writes it; tables are made if missing"
    )
    parser.add_argument("--prefix", default="es_", help="the prefix of the tables (default: es_)")
    parser.add_argument("--schema", help="the schema of the tables, on PostgreSQL")
    parser.add_argument("--seed", type=int, default=1, help="which events (default: 1)")
    return parser


async def _fill(url: URL, options: argparse.Namespace) -> None:
    driver = "asyncpg" if url.get_backend_name() == "postgresql" else "aiosqlite"
    engine = create_async_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}"))
    configure_sqlite(engine)
    schema = EventStoreSchema(prefix=options.prefix, schema=options.schema)
    store = EventStore(engine, schema=schema)
    try:
        await store.create_schema()
        async with engine.connect() as checked:
            await checked.run_sync(lambda connection: verify_schema(connection, schema=schema))
        latest = await store.log().latest()
        # Each stream has an event, so none has a number that is higher than the last sequence number.
        rows = history(seed=options.seed, first_stream=1 + (latest.sequence_number if latest else 0))
        start = time.perf_counter()
        if driver == "asyncpg":
            connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
            try:
                await fill_postgresql(
                    connection,
                    rows,
                    options.events,
                    prefix=options.prefix,
                    schema=options.schema,
                    progress=lambda done: print(
                        f"\r{done:,} of {options.events:,}", end="", file=sys.stderr, flush=True
                    ),
                )
            finally:
                await connection.close()
        else:
            file = sqlite3.connect(str(url.database))
            try:
                fill_sqlite(file, rows, options.events, prefix=options.prefix)
            finally:
                file.close()
        elapsed = time.perf_counter() - start
        print(f"\n{options.events:,} events in {elapsed:.1f} s ({options.events / elapsed:,.0f}/s)", file=sys.stderr)
    finally:
        await engine.dispose()


if __name__ == "__main__":
    raise SystemExit(main())
