"""What is read does not depend on the TimeZone and the DateStyle of the session that reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import select, text

from eventstore_sa import EventStoreSchema, StreamIdentifier
from eventstore_sa.projection import SnapshotStore, SyncSnapshotStore
from eventstore_sa.sources.constraints import observed_between, occurred_between
from eventstore_sa.types import EARLIEST_TIME, LATEST_TIME, Snapshot, SnapshotKey
from tests.awaiting import entered, settled
from tests.hosts import POSTGRES_DRIVERS, Host, each_driver, new_event

TICK = timedelta(microseconds=1)
MOMENTS = [
    EARLIEST_TIME,
    EARLIEST_TIME + TICK,
    datetime(31, 12, 11, tzinfo=UTC),
    datetime(1582, 10, 4, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=UTC),
    LATEST_TIME - TICK,
    LATEST_TIME,
]
# In POSIX the sign of an offset is the other one, and seconds are refused as leap seconds.
TIME_ZONES = ["<west>15:59", "<east>-15:59", "Asia/Kathmandu", "America/St_Johns", "UTC"]
DATE_STYLES = ["German, DMY", "SQL, MDY", "SQL, DMY", "Postgres, DMY", "ISO, YMD"]


@contextmanager
def set_for_database(host: Host, **settings: str) -> Iterator[None]:
    """Give new sessions other defaults, as an administrator may."""
    name = host.engine.url.database
    with host.ground.outside.begin() as connection:
        for setting, value in settings.items():
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting} TO '{value}'")
    yield
    with host.ground.outside.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET ALL")


@each_driver(*POSTGRES_DRIVERS)
async def test_times_are_written_and_read_in_every_session(host: Host) -> None:
    stream = host.store.stream(category="orders", stream="1")
    stored: list[Any] = []

    for time_zone, date_style in zip(TIME_ZONES, DATE_STYLES, strict=True):
        with set_for_database(host, timezone=time_zone, datestyle=date_style):
            events = [
                new_event(occurred_at=one, observed_at=other) for one, other in zip(MOMENTS, MOMENTS[::-1], strict=True)
            ]
            stored += await settled(stream.publish(events=events))

            for source in (stream, host.store.log()):
                assert await settled(source.read()) == stored, (time_zone, date_style)
                assert await settled(source.latest()) == stored[-1]
                for between, field in ((occurred_between, "occurred_at"), (observed_between, "observed_at")):
                    found = await settled(source.read(constraints={between(MOMENTS[1], MOMENTS[-1])}))
                    assert found == [event for event in stored if MOMENTS[1] <= getattr(event, field) < MOMENTS[-1]]
            assert await settled(stream.publish(events=events)) == stored[-len(events) :]
            async with host.caller() as (_, hosted):
                assert await settled(hosted.log().read()) == stored


@each_driver(*POSTGRES_DRIVERS)
async def test_hosts_can_read_the_times_of_records_in_every_time_zone(host: Host) -> None:
    record = EventStoreSchema().EventRecord
    events = [new_event(occurred_at=moment, observed_at=moment) for moment in MOMENTS]
    await settled(host.store.stream(category="orders", stream="1").publish(events=events))

    for time_zone in TIME_ZONES:
        with set_for_database(host, timezone=time_zone):
            async with entered(host.session()) as session:
                found = (await settled(session.scalars(select(record).order_by(record.position)))).all()
                assert [each.occurred_at for each in found] == MOMENTS, time_zone


@each_driver(*POSTGRES_DRIVERS)
async def test_a_stalled_watermark_names_its_holder_in_every_session(host: Host) -> None:
    with host.ground.outside.connect() as other:
        other.execute(
            text(
                "INSERT INTO es_events (id, category, stream, position, name, payload, observed_at, occurred_at) "
                "VALUES (gen_random_uuid(), 'orders', '9', 0, 'n', '{}', now(), now())"
            )
        )
        begun = other.scalar(text("SELECT now()"))
        for time_zone, date_style in zip(TIME_ZONES, DATE_STYLES, strict=True):
            with set_for_database(host, timezone=time_zone, datestyle=date_style):
                watermark = await settled(host.store.watermark())

            assert watermark.holder is not None
            assert watermark.holder.since == begun
            assert watermark.holder.since.tzinfo is UTC


@each_driver(*POSTGRES_DRIVERS)
async def test_snapshots_are_read_in_every_session(host: Host) -> None:
    snapshots = (SnapshotStore if host.asynchronous else SyncSnapshotStore)(host.engine)
    key = SnapshotKey.of("count", 1, StreamIdentifier("orders", "1"))
    snapshot = Snapshot.taken(key=key, place=3, event_id=uuid4(), state="4", metadata="null")
    await settled(snapshots.save(snapshot=snapshot))

    for time_zone, date_style in zip(TIME_ZONES, DATE_STYLES, strict=True):
        with set_for_database(host, timezone=time_zone, datestyle=date_style):
            assert await settled(snapshots.find(key=key)) == snapshot

    with host.ground.outside.begin() as connection:
        connection.execute(text("UPDATE es_snapshots SET taken_at = 'infinity'"))
    found = await settled(snapshots.find(key=key))
    assert found.problem is None
