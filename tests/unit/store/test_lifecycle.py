"""Which adapters the stores of events, projections and snapshots take, and what is said of the others."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from eventstore_sa import EventStoreSchema
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import default_schema
from eventstore_sa.projection import ProjectionStore, SnapshotStore, SyncProjectionStore, SyncSnapshotStore
from eventstore_sa.projection.adapters import (
    InMemoryProjectionStorageAdapter,
    InMemorySnapshotStorageAdapter,
    SQLAlchemyProjectionStorageAdapter,
    SyncInMemoryProjectionStorageAdapter,
    SyncInMemorySnapshotStorageAdapter,
)
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.testing.cases.tables import in_turn


class Orders(EventStore):
    """A store of the application's own."""


@in_turn(
    "store, adapter, remedy",
    [
        (EventStore, SyncInMemoryEventStorageAdapter(), "use SyncEventStore"),
        (Orders, SyncInMemoryEventStorageAdapter(), "use SyncEventStore"),
        (SyncProjectionStore, SQLAlchemyProjectionStorageAdapter("sqlite+aiosqlite://"), "use ProjectionStore"),
        (ProjectionStore, SyncInMemoryProjectionStorageAdapter(), "use SyncProjectionStore"),
        (SnapshotStore, SyncInMemorySnapshotStorageAdapter(), "use SyncSnapshotStore"),
        (EventStore, SyncInMemoryProjectionStorageAdapter(), "pass an EventStorageAdapter"),
        (SyncSnapshotStore, InMemoryEventStorageAdapter(), "pass a SyncSnapshotStorageAdapter"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_with_what_fits(store: Any, adapter: Any, remedy: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^{type(adapter).__name__} does not fit {store.__name__}: {remedy}$"
    ):
        store(adapter)


@in_turn(
    "store, adapter",
    [
        (EventStore, InMemoryEventStorageAdapter()),
        (SyncEventStore, InMemoryEventStorageAdapter()),
        (ProjectionStore, InMemoryProjectionStorageAdapter()),
        (SyncProjectionStore, InMemoryProjectionStorageAdapter()),
        (SnapshotStore, InMemorySnapshotStorageAdapter()),
        (SyncSnapshotStore, InMemorySnapshotStorageAdapter()),
    ],
)
def test_options_and_sessions_are_not_for_adapters_in_memory(store: Any, adapter: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{store.__name__} was given an adapter and schema.*: pass options"):
        store(adapter, schema=default_schema())

    name = type(store(adapter).adapter).__name__
    with pytest.raises(ConfigurationError, match=rf"^{name} cannot work within a session"):
        store(adapter).within(object())


def test_a_store_of_the_applications_own_stays_one() -> None:
    assert type(Orders(InMemoryEventStorageAdapter()).with_projections()) is Orders


def test_a_metadata_is_not_a_schema() -> None:
    given: Any = MetaData()

    with pytest.raises(ConfigurationError, match=r"got MetaData: .* EventStoreSchema\(Base\.metadata\)"):
        SyncEventStore("sqlite://", schema=given)


def test_a_schema_asks_for_the_metadata_of_a_base() -> None:
    class Base(DeclarativeBase):
        pass

    given: Any = Base

    with pytest.raises(ConfigurationError, match=r"got Base: pass Base\.metadata$"):
        EventStoreSchema(given)


def test_a_url_without_a_driver_may_name_another_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(
        ConfigurationError, match=r"is not installed: pip install .*, or name .* postgresql\+asyncpg://"
    ):
        SyncEventStore("postgresql://localhost/shop")
    with pytest.raises(ConfigurationError, match=r"is not installed: pip install 'eventstore-sa\[psycopg\]'$"):
        SyncEventStore("postgresql+psycopg://localhost/shop")
