"""Who holds the log back: a warning names the transaction, and SQL clients wait for it as Python does."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from eventstore_sa import NewEvent, SyncEventStore
from eventstore_sa.errors import WaitTimeoutError
from eventstore_sa.store.adapters import SyncSQLAlchemyEventStorageAdapter
from tests.databases import PostgresDatabase
from tests.interleaving import Stage, install_schema, open_stage
from tests.patience import PATIENCE_S


@pytest.fixture
def stage(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Stage]:
    with open_stage(make_postgres_database(prepared_by=install_schema)) as stage:
        yield stage


def reader(stage: Stage, *, stall_warning_s: float) -> SyncEventStore:
    return SyncEventStore(SyncSQLAlchemyEventStorageAdapter(stage.engine, stall_warning_s=stall_warning_s))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_log_that_stands_still_is_complained_of_with_the_name_of_who_holds_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store = reader(stage, stall_warning_s=0)
    stage.publish("before", stream="1")
    forgotten = stage.writer("forgotten")
    forgotten.publish("uncommitted", stream="2")
    stage.publish("after", stream="3")

    assert [event.name for event in store.log().read()] == ["before"]

    (warning,) = warnings_of(caplog)
    assert "nothing beyond 1 of 3" in warning
    assert "forgotten" in warning
    assert str(forgotten.pid) in warning
    assert re.search(r"since=datetime\.datetime\(\d{4}", warning)


def test_log_that_stands_still_for_a_short_time_is_not_complained_of(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store = reader(stage, stall_warning_s=3600)
    stage.writer("busy").publish(stream="2")

    assert store.log().read() == []
    assert store.log().read() == []

    assert warnings_of(caplog) == []


def test_log_that_moves_and_streams_that_nobody_holds_are_not_complained_of(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    store = reader(stage, stall_warning_s=0)
    stage.publish("before", stream="1")
    assert len(store.log().read()) == 1
    forgotten = stage.writer("forgotten")
    forgotten.publish(stream="2")
    assert len(store.stream(category="orders", stream="1").read()) == 1
    forgotten.rollback()
    assert len(store.category(category="orders").read()) == 1

    assert warnings_of(caplog) == []


def read_log(stage: Stage, after: int, limit: int) -> list[str]:
    """Read a page as a client without the library does."""
    with stage.autocommit() as connection:
        rows = connection.execute(
            text("SELECT name FROM es_read_log_v1(:after, :limit)"), {"after": after, "limit": limit}
        )
        return list(rows.scalars())


def test_sql_client_reads_pages_of_the_log(stage: Stage) -> None:
    for number in range(1, 6):
        stage.publish(f"event-{number}", stream=str(number))

    assert read_log(stage, 0, 2) == ["event-1", "event-2"]
    assert read_log(stage, 2, 2) == ["event-3", "event-4"]
    assert read_log(stage, 4, 2) == ["event-5"]
    assert read_log(stage, 5, 2) == []


def test_sql_client_gets_what_the_event_holds(stage: Stage) -> None:
    stored = stage.publish("event", stream="1")

    with stage.autocommit() as connection:
        row = connection.execute(text("SELECT * FROM es_read_log_v1(0, 10)")).one()

    assert row.id == stored.id
    assert (row.category, row.stream, row.position, row.sequence_number) == ("orders", "1", 0, stored.sequence_number)
    assert (row.payload, row.metadata) == (None, None)
    assert (row.tags, row.version) == (None, 1)
    assert row.observed_at == stored.observed_at


def test_sql_client_gets_tags_and_version(stage: Stage) -> None:
    event = NewEvent(name="subscribed", payload=None, tags={"student:s1", "course:c1"}, version=2)
    stage.store.stream(category="courses", stream="1").publish(events=[event])

    with stage.autocommit() as connection:
        row = connection.execute(text("SELECT * FROM es_read_log_v1(0, 10)")).one()

    assert (row.tags, row.version) == (["course:c1", "student:s1"], 2)


def test_sql_client_does_not_pass_an_open_writer_and_misses_nothing_afterwards(stage: Stage) -> None:
    stage.publish("first", stream="1")
    writer = stage.writer()
    writer.publish("late", stream="2")
    stage.publish("early", stream="3")

    assert read_log(stage, 0, 10) == ["first"]
    assert read_log(stage, 1, 10) == []

    writer.commit()
    assert read_log(stage, 1, 10) == ["late", "early"]


def test_database_ends_a_forgotten_transaction_where_it_is_told_to(stage: Stage) -> None:
    """What the manual recommends: the log moves on without anybody's help."""
    forgotten = stage.writer("forgotten")
    forgotten.publish("lost", stream="1")
    after = stage.publish("after", stream="2")
    assert stage.log() == []

    # Last: from then on the transaction lives no longer than this between two statements.
    forgotten.execute("SET idle_in_transaction_session_timeout = '20ms'")
    seen = stage.store.log().read(wait_for=after, timeout_s=PATIENCE_S)

    assert [event.name for event in seen] == ["after"]
    forgotten.session.invalidate()


def test_wait_for_names_the_prepared_transaction_that_it_waited_for_in_vain(stage: Stage) -> None:
    writer = stage.writer("forgotten")
    writer.publish("prepared", stream="1")
    writer.execute("PREPARE TRANSACTION 'undecided'")
    after = stage.publish("after", stream="2")

    with pytest.raises(WaitTimeoutError, match="prepared transaction 'undecided' holds the log back") as caught:
        stage.store.log().read(wait_for=after, timeout_s=0.01)

    assert "None" not in str(caught.value)
    with stage.autocommit() as connection:
        connection.execute(text("ROLLBACK PREPARED 'undecided'"))
