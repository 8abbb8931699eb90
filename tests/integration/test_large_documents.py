"""Documents that are larger than a database takes are refused before they are sent; pages of reads are bounded by bytes."""

from __future__ import annotations

import sqlite3
import tracemalloc
from itertools import product
from os import urandom
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, text

from eventstore_sa import LogIdentifier, Projection
from eventstore_sa.errors import SerialisationError
from eventstore_sa.persistence import page_bytes
from eventstore_sa.persistence.schema import default_schema, jsonb_size
from eventstore_sa.projection import ProjectionStore, SyncProjectionStore
from eventstore_sa.query import Path, SortClause, SortField
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.types import encode_json, to_json
from tests.awaiting import collected, settled
from tests.hosts import (
    KINDS_OF_DRIVERS,
    POSTGRES_DRIVERS,
    SQLITE_DRIVERS,
    Host,
    each_driver,
    each_kind_of_driver,
    new_event,
    statements_of,
)

VALUES: dict[str, Any] = {
    "objects": [{"order": n, "text": 'a "b" \\ \n é ' * 5, "lines": [1, 2.5, 3], "e": {}, "f": []} for n in range(500)],
    "integers": list(range(5000)),
    "digits": [1] * 5000,
    "containers": [[]] * 5000,
    "words": [True, False, None] * 2000,
    "escapes": ["\u0001" * 100] * 100,
    "floats": [1.5e-7 * n for n in range(2000)],
    "large integers": [10**30 + n for n in range(1000)],
    "keys": {f"k{n}": "v" * n for n in range(300)},
    "JSON in strings": ['{"a": "b\\\\c"}'] * 1000,
    "commas in strings": ["a, b: [c] {d}, true, null, 1"] * 1000,
    "fractions": [1.5] * 5000,
    "a fraction in each object": [{"a": 1.5}] * 5000,
    "two fractions in each object": [{"a": 1.5, "b": 1.5}] * 5000,
    "strings between numbers": ["a", 1] * 5000,
    "strings between containers": ["a", [], "abc", {}] * 2000,
    "short keys": [{"abc": "d", "e": [1, "f", 2]}] * 2000,
    "empty strings": [""] * 5000,
    "backslashes": ["\\u0041\\", '\\"', '\\\n"\\'] * 1000,
    "small fractions": [1.2345e-10, 5e-324, 1.2345678901234567e-7] * 1000,
    "great numbers": [1e300, 1.7976931348623157e308, 123456789.123456789] * 1000,
    "very large integers": [10**n + 1 for n in range(200, 600)],
    "a word": True,
    "a number": 12345,
    "a string": "abc",
    "nothing": [],
}


def limit_pages(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """End pages after fewer bytes, in statements that are made for this test alone."""
    monkeypatch.setattr(page_bytes, "PAGE_BYTES", size)
    monkeypatch.setattr(default_schema(), "_made", {})


def store_of_projections(host: Host) -> Any:
    return (ProjectionStore if host.asynchronous else SyncProjectionStore)(host.engine)


def projection(id: str, state: Any) -> Projection[Any, Any]:
    return Projection(id=id, name="large", source=LogIdentifier(), state=state, metadata={})


@each_driver("postgresql+psycopg")
async def test_the_size_of_jsonb_is_told_from_the_text(host: Host) -> None:
    for name, value in VALUES.items():
        written = encode_json(to_json(value))
        with host.ground.outside.connect() as connection:
            exact = connection.scalar(text("SELECT pg_column_size(CAST(:t AS jsonb))"), {"t": written.decode()}) or 0

        size, _ = jsonb_size.jsonb_size(written)

        assert exact <= size <= 1.3 * exact + 16, name


@each_driver("postgresql+psycopg")
async def test_the_size_of_jsonb_is_never_told_too_small(host: Host) -> None:
    random = Random(17)

    def value(depth: int) -> Any:
        kinds = "sifebne" + ("ao" * 2 if depth < 4 else "")
        match random.choice(kinds):
            case "s":
                return "".join(random.choices('a"\\\n\u0001é🎉u0', k=random.randrange(9)))
            case "i":
                return random.randrange(10 ** random.choice((1, 2, 5, 9, 40, 300)))
            case "f":
                return random.random() * 10.0 ** random.randrange(-6, 6)
            case "e":
                return random.choice((-1, 1)) * random.random() * 10.0 ** random.randrange(-300, 300)
            case "a":
                return [value(depth + 1) for _ in range(random.randrange(6))]
            case "o":
                return {f"{'k' * random.randrange(5)}{n}": value(depth + 1) for n in range(random.randrange(6))}
            case _:
                return random.choice((True, False, None))

    written = [encode_json(to_json(value(0))).decode() for _ in range(2000)]
    with host.ground.outside.connect() as connection:
        exact = connection.execute(
            text(
                "SELECT pg_column_size(t::jsonb) FROM unnest(CAST(:given AS text[])) WITH ORDINALITY g(t, n) ORDER BY n"
            ),
            {"given": written},
        ).scalars()
        too_small = [
            one for one, size in zip(written, exact, strict=True) if jsonb_size.jsonb_size(one.encode())[0] < size
        ]

    assert too_small == []


def test_strings_are_counted_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [encode_json(to_json(value)) for value in VALUES.values()]
    whole = [jsonb_size.jsonb_size(each) for each in written]

    for length in (1, 2, 7, 100):
        monkeypatch.setattr(jsonb_size, "_PIECE", length)
        assert [jsonb_size.jsonb_size(each[:5000]) for each in written if len(each) <= 5000] == [
            size for size, each in zip(whole, written, strict=True) if len(each) <= 5000
        ]


@each_driver(*POSTGRES_DRIVERS)
async def test_what_postgresql_would_refuse_is_not_sent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonb_size, "MAX_JSONB_BYTES", 100_000)
    stream = host.store.stream(category="orders", stream="1")
    too_large: list[Any] = [["x" * 100_000], [1] * 10_000, {str(n): None for n in range(11_000)}]
    fits = ["x" * 99_000, [1] * 7_000]
    projections = store_of_projections(host)
    stored = await settled(stream.publish(events=[new_event()]))
    await settled(projections.save(projection=projection("there", 1)))

    with statements_of(host.engine) as statements:
        for payload in too_large:
            with pytest.raises(
                SerialisationError, match=r"the events to publish are [\d,]+ bytes of JSON, which become up to [\d,]+"
            ):
                await settled(stream.publish(events=[new_event(payload=payload)]))
            with pytest.raises(SerialisationError, match=r"the projections to save are [\d,]+ bytes"):
                await settled(projections.save(projection=projection("1", payload)))
            with pytest.raises(SerialisationError):
                await settled(projections.save(projection=projection("there", payload), expected_version=1))
            with pytest.raises(SerialisationError):
                await settled(projections.save(projection=projection("2", payload), expected_version=0))
        assert statements == []

    for payload in fits:
        stored += await settled(stream.publish(events=[new_event(payload=payload)]))
    async with host.caller() as (caller, hosted):
        with pytest.raises(SerialisationError):
            await settled(
                hosted.stream(category="orders", stream="1").publish(events=[new_event(payload=too_large[0])])
            )
        await host.write(caller)
        await settled(caller.commit())
    assert host.ground.notes() == ["mine"]
    assert await settled(stream.read()) == stored


@each_driver(*SQLITE_DRIVERS)
async def test_what_sqlite_refuses_is_a_typed_error(host: Host) -> None:
    def limit(dbapi_connection: Any, _record: Any) -> None:
        driver = getattr(dbapi_connection.driver_connection, "_conn", None) if host.asynchronous else dbapi_connection
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)

    event.listen(getattr(host.engine, "sync_engine", host.engine), "connect", limit)
    stream = host.store.stream(category="orders", stream="1")

    with pytest.raises(SerialisationError, match="larger than the database"):
        await settled(stream.publish(events=[new_event(payload="x" * 1_000_000)]))
    async with host.caller() as (caller, hosted):
        with pytest.raises(SerialisationError):
            await settled(hosted.stream(category="orders", stream="1").publish(events=[new_event(payload="x" * 10**6)]))
        await host.publish(hosted)
        await settled(caller.commit())

    assert len(await settled(stream.read())) == 1


@each_driver(*(driver for driver in KINDS_OF_DRIVERS if driver != "sqlite+aiosqlite"))
async def test_every_event_is_read_once_whatever_the_sizes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pages(monkeypatch, 10_000)
    adapter = (SQLAlchemyEventStorageAdapter if host.asynchronous else SyncSQLAlchemyEventStorageAdapter)(
        host.engine, page_size=7
    )
    store = type(host.store)(adapter)
    stream = store.stream(category="orders", stream="1")
    sizes = [0, 1, 9_000, 500, 500, 20_000, 20_000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9_990, 9_990, 30_000, 0, 0, 0, 0, 0]
    stored = await settled(
        stream.publish(events=[new_event(payload="x" * size, metadata="y" * (size // 10)) for size in sizes])
    )

    for source, backwards in product((stream, store.category(category="orders"), store.log()), (False, True)):
        expected = list(stored)[::-1] if backwards else list(stored)
        for limit in (None, 1, 3, 7, 8, 18, 24, 25):
            found = await settled(source.read(limit=limit, backwards=backwards))
            assert found == expected[:limit], (source.identifier, backwards, limit)


@each_kind_of_driver()
async def test_a_page_is_one_statement_as_long_as_it_is_small(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    await settled(stream.publish(events=[new_event(payload="x" * 1000) for _ in range(999)]))
    await settled(stream.latest())

    with statements_of(host.engine) as statements:
        assert len(await settled(stream.read())) == 999

    assert len([each for each in statements if not each.startswith("BEGIN")]) == 1


@each_kind_of_driver()
async def test_iterating_over_projections_is_bounded_too(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pages(monkeypatch, 10_000)
    store = store_of_projections(host)
    sizes = [0, 1, 9_000, 500, 20_000, 20_000, 1, 2, 3, 9_990, 30_000, 0, 0]
    for number, size in enumerate(sizes):
        await settled(store.save(projection=projection(str(number), {"n": -number, "x": "x" * size})))

    with statements_of(host.engine) as statements:
        found = await collected(store.iterate())
    assert [each.id for each in found] == [str(number) for number in range(len(sizes))]
    assert len([each for each in statements if "candidate" in each]) > 3

    backwards = await collected(store.iterate(sort=SortClause([SortField(Path("state", "n"))])))
    assert [each.id for each in backwards] == [str(number) for number in reversed(range(len(sizes)))]


@each_driver("postgresql+asyncpg", "postgresql+psycopg", "sqlite")
async def test_memory_does_not_grow_with_the_number_of_large_events(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pages(monkeypatch, 500_000)
    peaks = []
    for stream, count in (("few", 6), ("many", 36)):
        source = host.store.stream(category="orders", stream=stream)
        for number in range(count):
            await settled(source.publish(events=[new_event(payload=[number, urandom(75_000).hex()])]))
        tracemalloc.start()
        if host.asynchronous:
            async for _ in source.iterate():
                pass
        else:
            for _ in source.iterate():
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 2 * peaks[0]


@pytest.mark.long
@each_driver("postgresql+asyncpg", "postgresql+psycopg")
async def test_the_limits_of_postgresql_are_where_they_are_said_to_be(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    megabytes = "x" * 10_000_000

    with pytest.raises(SerialisationError):
        await settled(stream.publish(events=[new_event(payload=[megabytes] * 27)]))
    with pytest.raises(SerialisationError):
        await settled(stream.publish(events=[new_event(payload=[1] * (2**24 + 1))]))
    await settled(stream.publish(events=[new_event(payload=[megabytes] * 26)]))
    await settled(stream.publish(events=[new_event(payload=[1] * 16_000_000)]))

    first, second = await settled(stream.read())
    assert (len(first.payload), len(second.payload)) == (26, 16_000_000)
