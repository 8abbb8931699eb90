"""What is given where an `EventStoreSchema` is meant: a MetaData gets the same clear error everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from eventstore_sa import (
    EventStore,
    NewEvent,
    ProjectionStore,
    RecordsEvents,
    SyncEventStore,
    SyncProjectionStore,
    verify_schema,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.inspection import diagnose, inspection_index
from eventstore_sa.projection import SnapshotStore, SyncSnapshotStore, projection_index
from eventstore_sa.projection.adapters import (
    SQLAlchemyProjectionStorageAdapter,
    SQLAlchemySnapshotStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemySnapshotStorageAdapter,
)
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.testing import clear, published_in
from eventstore_sa.testing.cases.tables import in_turn
from tests.project import ROOT

ENGINE = create_engine("sqlite://")
ASYNC_ENGINE = create_async_engine("sqlite+aiosqlite://")
OTHER_SCHEMAS = {
    # These have the name of a database schema.
    "EventStoreSchema",
    "ChangeLockingOp",
    "MigrateOp",
    "RepairOp",
    "eventstore_change_locking",
    "eventstore_migrate",
    "eventstore_repair",
    "foreign_events",
}


def connected(work: Callable[..., Any], **options: Any) -> Any:
    with ENGINE.connect() as connection:
        return work(connection, **options)


CALLS: dict[str, Callable[..., Any]] = {
    "EventStore": lambda schema: EventStore(ASYNC_ENGINE, schema=schema),
    "SyncEventStore": lambda schema: SyncEventStore(ENGINE, schema=schema),
    "SQLAlchemyEventStorageAdapter": lambda schema: SQLAlchemyEventStorageAdapter(ASYNC_ENGINE, schema=schema),
    "SyncSQLAlchemyEventStorageAdapter": lambda schema: SyncSQLAlchemyEventStorageAdapter(ENGINE, schema=schema),
    "ProjectionStore": lambda schema: ProjectionStore(ASYNC_ENGINE, schema=schema),
    "SyncProjectionStore": lambda schema: SyncProjectionStore(ENGINE, schema=schema),
    "SQLAlchemyProjectionStorageAdapter": lambda schema: SQLAlchemyProjectionStorageAdapter(
        ASYNC_ENGINE, schema=schema
    ),
    "SyncSQLAlchemyProjectionStorageAdapter": lambda schema: SyncSQLAlchemyProjectionStorageAdapter(
        ENGINE, schema=schema
    ),
    "SnapshotStore": lambda schema: SnapshotStore(ASYNC_ENGINE, schema=schema),
    "SyncSnapshotStore": lambda schema: SyncSnapshotStore(ENGINE, schema=schema),
    "SQLAlchemySnapshotStorageAdapter": lambda schema: SQLAlchemySnapshotStorageAdapter(ASYNC_ENGINE, schema=schema),
    "SyncSQLAlchemySnapshotStorageAdapter": lambda schema: SyncSQLAlchemySnapshotStorageAdapter(ENGINE, schema=schema),
    "projection_index": lambda schema: projection_index("order", "/id", schema=schema),
    "inspection_index": lambda schema: inspection_index("time", schema=schema),
    "verify_schema": lambda schema: connected(verify_schema, schema=schema),
    "diagnose": lambda schema: connected(diagnose, schema=schema),
    "clear": lambda schema: clear(ENGINE, schema=schema),
    "published_in": lambda schema: published_in(Session(ENGINE), schema=schema),
}


@in_turn("call", CALLS)
def test_a_metadata_in_the_place_of_a_schema_is_refused(call: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"got MetaData: make one, .* with EventStoreSchema\(Base.metadata\)"):
        call(MetaData())


def test_asyncio_is_no_different() -> None:
    with pytest.raises(ConfigurationError, match="got MetaData"):
        clear(ASYNC_ENGINE, schema=MetaData())  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="got MetaData"):
        published_in(AsyncSession(ASYNC_ENGINE), schema=MetaData())  # type: ignore[call-overload]


def test_entity_with_a_metadata_as_its_event_schema_is_refused() -> None:
    class Base(DeclarativeBase):
        pass

    class Order(RecordsEvents, Base):
        __tablename__ = "orders"
        __event_schema__ = Base.metadata  # type: ignore[assignment]
        id: Mapped[int] = mapped_column(primary_key=True)

    order = Order(id=1)
    order.record(NewEvent(name="placed", payload=None))

    with pytest.raises(ConfigurationError, match="got MetaData"):
        Session(ENGINE).add(order)


def test_every_public_parameter_that_is_called_schema_is_among_these() -> None:
    lines = (ROOT / "tests" / "api.txt").read_text(encoding="utf-8").splitlines()
    taking = {line.removeprefix("class ").partition("(")[0] for line in lines if "schema=None" in line}

    assert taking - OTHER_SCHEMAS == {*CALLS}
