"""Events that other SQL has inserted, and Python cannot hold: a typed error names the event, and reads go on behind it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from eventstore_sa import LogIdentifier, Projection, StreamIdentifier
from eventstore_sa.errors import SerialisationError, UnreadableEventError
from eventstore_sa.projection import ProjectionStore, SyncProjectionStore
from eventstore_sa.sources.constraints import position_after, sequence_number_after, sequence_number_before
from tests.awaiting import collected, settled
from tests.hosts import POSTGRES_DRIVERS, SQLITE_DRIVERS, Host, each_driver, new_event

pytestmark = pytest.mark.keeps_connections

DEEP = "[" * 3000 + "]" * 3000
LONG = "9" * 5000

INSERT = """
INSERT INTO es_events (id, category, stream, position, name, payload, metadata, observed_at, occurred_at, tags, version)
VALUES (
  {id}, {category}, {stream}, {position}, {name}, {payload}, {metadata}, {observed_at}, {occurred_at}, {tags}, {version}
)
"""

ON_POSTGRESQL: dict[str, dict[str, str]] = {
    "infinite": {"occurred_at": "'infinity'"},
    "minus infinite": {"observed_at": "'-infinity'"},
    "before Christ": {"occurred_at": "'0044-03-15 12:00:00+00 BC'"},
    "after the year 9999": {"observed_at": "'10000-01-01 00:00:00+00'"},
    "5,000 digits": {"payload": f"'{LONG}'"},
    "5,000 digits in metadata": {"metadata": f"'[{LONG}]'"},
    "3,000 levels": {"payload": f"'{DEEP}'"},
    "tags that are no array": {"tags": "'{\"course\": 1}'"},
    "tags that are numbers": {"tags": "'[1]'"},
}
ON_SQLITE: dict[str, dict[str, str]] = {
    "no time": {"occurred_at": "'soon'"},
    "a number for a time": {"observed_at": "x'00'"},
    "5,000 digits": {"payload": f"'{LONG}'"},
    "3,000 levels": {"metadata": f"'{DEEP}'"},
    "no JSON": {"payload": "'{\"a\": '"},
    "JSON5": {"payload": "'{a: 1}'"},
    "not a number": {"payload": "'NaN'"},
    "a blob that is no JSON": {"payload": "x'ff'"},
    "a blob for a name": {"name": "x'616263'"},
    "a blob for a stream": {"stream": "x'616263'"},
    "text for a position": {"position": "'first'"},
    "no id": {"id": "'42'"},
    "a blob for an id": {"id": "x'42'"},
    "payload that is not UTF-8": {"payload": "CAST(x'22ff22' AS TEXT)"},
    "a name that is not UTF-8": {"name": "CAST(x'ff' AS TEXT)"},
    "tags that are no array": {"tags": "'{\"course\": 1}'"},
    "tags that are numbers": {"tags": "'[1]'"},
    "text for a version": {"version": "'first'"},
    "a category that is not UTF-8": {"category": "CAST(x'ff' AS TEXT)"},
}


async def insert(host: Host, **values: str) -> int:
    """Insert an event as other SQL may; return its sequence number."""
    moment = "'2024-05-06 07:08:09.000000+00'" if host.postgres else "'2024-05-06 07:08:09.000000'"
    row = {
        "id": f"'{uuid4().hex}'",
        "category": "'orders'",
        "stream": "'1'",
        "position": "2",
        "name": "'odd'",
        "payload": "'{}'",
        "metadata": "NULL",
        "observed_at": moment,
        "occurred_at": moment,
        "tags": "NULL",
        "version": "1",
    }
    with host.ground.outside.begin() as connection:
        if host.postgres:
            connection.execute(text("SET LOCAL eventstore_sa.restoring = 'on'"))
        connection.exec_driver_sql(INSERT.format(**row | values).replace("%", "%%"))
        return connection.scalar(text("SELECT max(sequence_number) FROM es_events")) or 0


async def read_until_error(source: Any, **arguments: Any) -> tuple[list[int], UnreadableEventError]:
    """Iterate; return the numbers of the events that came, and the error at their end."""
    numbers: list[int] = []
    try:
        if hasattr(source.iterate(), "__aiter__"):
            async for event in source.iterate(**arguments):
                numbers.append(event.sequence_number)
        else:
            for event in source.iterate(**arguments):
                numbers.append(event.sequence_number)
    except UnreadableEventError as error:
        return numbers, error
    raise AssertionError(numbers)


async def check(host: Host, values: dict[str, str]) -> None:
    store = host.store
    stream = store.stream(category="orders", stream="1")
    before = await settled(stream.publish(events=[new_event(), new_event()]))
    number = await insert(host, **values)
    after = await settled(
        store.category(category="orders").publish(streams={str(n): {"events": [new_event()]} for n in range(2, 5)})
    )
    numbers_before = [event.sequence_number for event in before]
    numbers_after = [event.sequence_number for events in after.values() for event in events]

    sources = [store.log()] if "category" in values else [store.log(), store.category(category="orders")]
    for source in sources:
        seen, error = await read_until_error(source)
        assert (seen, error.sequence_number) == (numbers_before, number)
        rest = await collected(source.iterate(constraints={sequence_number_after(number)}))
        assert [event.sequence_number for event in rest] == numbers_after

        seen, error = await read_until_error(source, backwards=True)
        assert (seen, error.sequence_number) == (numbers_after[::-1], number)
        rest = await collected(source.iterate(constraints={sequence_number_before(number)}, backwards=True))
        assert [event.sequence_number for event in rest] == numbers_before[::-1]

    assert f"event {number}" in str(error)
    assert f"sequence_number_after({number})" in str(error)
    assert "9999" not in str(error)
    assert "\\xff" not in str(error)
    if not values.keys() & {"stream", "category", "position"}:
        seen, error = await read_until_error(stream)
        assert seen == numbers_before
        if "UTF" not in str(values):
            assert error.position == 2
        with pytest.raises(UnreadableEventError):
            await settled(stream.latest())
        with pytest.raises(UnreadableEventError):
            await settled(stream.read())
        async with host.caller() as (_, hosted):
            with pytest.raises(UnreadableEventError):
                await settled(hosted.stream(category="orders", stream="1").read())
            assert len(await settled(hosted.log().read(constraints={sequence_number_after(number)}))) == 3


@each_driver(*POSTGRES_DRIVERS)
@pytest.mark.parametrize("values", ON_POSTGRESQL.values(), ids=ON_POSTGRESQL)
async def test_postgresql(host: Host, values: dict[str, str]) -> None:
    await check(host, values)


@each_driver(*SQLITE_DRIVERS)
@pytest.mark.parametrize("values", ON_SQLITE.values(), ids=ON_SQLITE)
async def test_sqlite(host: Host, values: dict[str, str]) -> None:
    await check(host, values)


@each_driver()
async def test_the_error_tells_the_stream(host: Host) -> None:
    number = await insert(host, payload=f"'{LONG}'", position="0")

    with pytest.raises(UnreadableEventError, match="at position 0 of stream 'orders/1'") as caught:
        await settled(host.store.log().read())

    assert caught.value.stream == StreamIdentifier("orders", "1")
    assert (caught.value.position, caught.value.sequence_number) == (0, number)


@each_driver()
async def test_a_stream_is_read_on_by_position_too(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    await insert(host, payload=f"'{LONG}'", position="0")
    stored = await host.publish(host.store)

    assert await settled(stream.read(constraints={position_after(0)})) == [stored]


@each_driver(*SQLITE_DRIVERS)
async def test_one_undecodable_event_among_thousands_is_found(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="2")
    await settled(stream.publish(events=[new_event() for _ in range(1700)]))
    number = await insert(host, payload="CAST(x'22ff22' AS TEXT)")
    await settled(stream.publish(events=[new_event() for _ in range(1700)]))

    seen, error = await read_until_error(host.store.log())

    assert len(seen) == 1700
    assert error.sequence_number == number
    assert len(await settled(host.store.log().read(constraints={sequence_number_after(number)}))) == 1700


@each_driver(*POSTGRES_DRIVERS)
async def test_the_first_and_last_years_can_be_read_although_they_cannot_be_published(host: Host) -> None:
    await insert(host, observed_at="'0001-01-01 00:00:00+00'", occurred_at="'9999-12-31 23:59:59.999999+00'")

    (event,) = await settled(host.store.log().read())

    assert event.observed_at == datetime.min.replace(tzinfo=UTC)
    assert event.occurred_at == datetime.max.replace(tzinfo=UTC)


@each_driver()
async def test_a_projection_that_cannot_be_read_is_named(host: Host) -> None:
    store = (ProjectionStore if host.asynchronous else SyncProjectionStore)(host.engine)
    projection = Projection(id="7", name="order", source=LogIdentifier(), state={}, metadata=None)
    await settled(store.save(projection=projection))
    with host.ground.outside.begin() as connection:
        connection.execute(text(f"UPDATE es_projections SET state = '{LONG}'"))

    calls: list[Any] = [lambda: store.load(id="7", name="order"), store.search, lambda: collected(store.iterate())]
    for call in calls:
        with pytest.raises(SerialisationError, match="projection 'order' with id '7' cannot be read"):
            await settled(call())

    await settled(store.save(projection=projection))
    assert await settled(store.load(id="7", name="order")) is not None
