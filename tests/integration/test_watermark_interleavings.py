"""How far the log is complete, and who holds it back: the watermark, and waiting for it.

Which events readers see meanwhile is in `test_order_interleavings.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from eventstore_sa.errors import WaitTimeoutError
from eventstore_sa.inspection import SyncInspection, WatermarkReport
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, install_schema, names, open_stage, set_next_number
from tests.patience import PATIENCE_S


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


def test_prepared_transaction_holds_readers_back_until_it_is_decided(stage: Stage) -> None:
    before = datetime.now(UTC)
    writer = stage.writer()
    first = writer.publish("first", stream="1")
    writer.execute("PREPARE TRANSACTION 'a-payment'")
    writer.rollback()
    stage.publish("second", stream="2")

    watermark = stage.store.watermark()

    assert watermark.sequence_number == first.sequence_number - 1
    assert watermark.holder is not None
    assert (watermark.holder.pid, watermark.holder.application_name) == (None, "a-payment")
    assert watermark.holder.since is not None
    assert before <= watermark.holder.since <= datetime.now(UTC)
    assert stage.log() == []
    with stage.autocommit() as connection:
        connection.execute(text("COMMIT PREPARED 'a-payment'"))
    assert stage.log() == ["first", "second"]


def test_all_who_hold_readers_back_are_reported_the_first_of_them_first(stage: Stage) -> None:
    stage.publish("before", stream="0")
    writer, prepared = stage.writer(), stage.writer()
    second = writer.publish("second", stream="1")
    third = prepared.publish("third", stream="2")
    prepared.execute("PREPARE TRANSACTION 'a-payment'")
    prepared.rollback()
    inspection = SyncInspection(stage.store)

    report = inspection.watermark()

    assert (report.sequence_number, report.last_number) == (second.sequence_number - 1, third.sequence_number)
    found = [(holder.sequence_number, holder.pid, holder.state) for holder in report.holders]
    assert found == [
        (second.sequence_number - 1, writer.pid, "idle in transaction"),
        (third.sequence_number - 1, None, None),
    ]
    assert report.holders[1].application_name == "a-payment"
    assert all(holder.since is not None for holder in report.holders)
    writer.commit()
    assert [holder.pid for holder in inspection.watermark().holders] == [None]
    with stage.autocommit() as connection:
        connection.execute(text("COMMIT PREPARED 'a-payment'"))
    assert inspection.watermark() == WatermarkReport(third.sequence_number, third.sequence_number, ())


def test_prepared_transaction_that_is_rolled_back_lets_readers_go_on(stage: Stage) -> None:
    writer = stage.writer()
    writer.publish("first", stream="1")
    writer.execute("PREPARE TRANSACTION 'a-refund'")
    writer.rollback()
    stage.publish("second", stream="2")

    with stage.autocommit() as connection:
        connection.execute(text("ROLLBACK PREPARED 'a-refund'"))

    assert stage.log() == ["second"]


def test_connection_that_prepared_a_transaction_raises_a_fence_of_its_own_next(stage: Stage) -> None:
    writer = stage.writer()
    writer.publish("first", stream="1")
    writer.execute("PREPARE TRANSACTION 'earlier'")
    writer.rollback()
    writer.publish("second", stream="2")
    with stage.autocommit() as connection:
        connection.execute(text("COMMIT PREPARED 'earlier'"))
    stage.publish("third", stream="3")

    assert stage.log() == ["first"]
    writer.commit()
    assert stage.log() == ["first", "second", "third"]


def test_long_transaction_that_publishes_nothing_holds_nobody_back(stage: Stage) -> None:
    stranger = stage.writer()
    stranger.execute("INSERT INTO host VALUES ('something')")
    stranger.execute("SELECT pg_advisory_xact_lock(0), pg_advisory_xact_lock(0, 0)")
    assert stranger.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")

    stored = stage.publish("seen", stream="1")

    assert stage.log() == ["seen"]
    assert stage.store.watermark().sequence_number == stored.sequence_number
    assert stage.store.watermark().holder is None


def test_first_event_ever_is_not_missed_when_it_is_committed_last(stage: Stage) -> None:
    writer = stage.writer()
    first = writer.publish("first", stream="1")
    assert stage.store.watermark().sequence_number == 0
    stage.publish("second", stream="2")

    assert first.sequence_number == 1
    assert stage.log() == []
    writer.commit()
    assert stage.log() == ["first", "second"]


def test_watermark_of_an_empty_log_is_zero(stage: Stage) -> None:
    watermark = stage.store.watermark()

    assert (watermark.sequence_number, watermark.holder) == (0, None)


def test_watermark_ignores_a_fence_of_its_own_transaction(stage: Stage) -> None:
    writer = stage.writer()
    stored = writer.publish()

    assert writer.store.watermark().sequence_number == stored.sequence_number
    assert stage.store.watermark().sequence_number == stored.sequence_number - 1


def test_watermark_names_the_transaction_that_is_furthest_behind(stage: Stage) -> None:
    before = datetime.now(UTC)
    stage.publish(stream="0")
    slowest = stage.writer("slowest")
    first = slowest.publish(stream="1")
    slow = stage.writer("slow")
    second = slow.publish(stream="2")

    watermark = stage.store.watermark()
    slowest.rollback()
    later = stage.store.watermark()

    assert watermark.sequence_number == first.sequence_number - 1
    assert watermark.holder is not None
    assert (watermark.holder.pid, watermark.holder.application_name) == (slowest.pid, "slowest")
    assert watermark.holder.since is not None
    assert before <= watermark.holder.since <= datetime.now(UTC)
    assert later.sequence_number == second.sequence_number - 1
    assert later.holder is not None
    assert (later.holder.pid, later.holder.application_name) == (slow.pid, "slow")


def test_wait_for_names_the_transaction_that_it_waited_for_in_vain(stage: Stage) -> None:
    other = stage.writer("forgotten")
    other.publish(stream="1")
    own = stage.publish("own", stream="2")

    assert stage.log() == []
    with pytest.raises(WaitTimeoutError, match=rf"'forgotten' \(process {other.pid}\)"):
        list(stage.store.log().iterate(wait_for=own, timeout_s=0.05))


def test_wait_for_returns_once_the_other_transaction_has_ended(stage: Stage) -> None:
    other = stage.writer()
    other.publish("first", stream="1")
    own = stage.publish("own", stream="2")

    read = stage.in_background(lambda: names(stage.store.log().iterate(wait_for=own, timeout_s=PATIENCE_S)))
    assert not read.done()
    other.commit()

    assert read.result() == ["first", "own"]


@pytest.mark.parametrize("low_bits", [2**31, 2**32, 2**32 + 2**31, 2**40])
def test_fences_hold_where_their_keys_wrap(stage: Stage, low_bits: int) -> None:
    with stage.autocommit() as connection:
        set_next_number(connection, low_bits - 3)
    seen: list[str] = []

    for round_number in range(4):
        slow = stage.writer("slow")
        first = slow.publish(f"{round_number}-slow", stream="slow")
        stage.publish(f"{round_number}-fast", stream="fast")
        watermark = stage.store.watermark()

        assert watermark.sequence_number == first.sequence_number - 1
        assert watermark.holder is not None
        assert watermark.holder.pid == slow.pid
        assert stage.log() == seen
        slow.commit()
        seen += [f"{round_number}-slow", f"{round_number}-fast"]
        assert stage.log() == seen
