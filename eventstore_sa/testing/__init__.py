"""Tools for testing applications and storage adapters: builders, random data, adapter cases, throwaway databases.

The adapter cases need pytest, which is imported when they are first accessed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from eventstore_sa.testing import data
from eventstore_sa.testing.builders import (
    BaseProjectionBuilder,
    MappingProjectionBuilder,
    NewEventBuilder,
    StoredEventBuilder,
)
from eventstore_sa.testing.clearing import clear
from eventstore_sa.testing.postgres import PostgresServer, temporary_postgres

if TYPE_CHECKING:
    from eventstore_sa.testing.cases import (
        EventStorageAdapterCases,
        ProjectionConverterCases,
        ProjectionStorageAdapterCases,
        SnapshotStorageAdapterCases,
        SyncEventStorageAdapterCases,
        SyncProjectionStorageAdapterCases,
        SyncSnapshotStorageAdapterCases,
    )

__all__ = [
    "BaseProjectionBuilder",
    "EventStorageAdapterCases",
    "MappingProjectionBuilder",
    "NewEventBuilder",
    "PostgresServer",
    "ProjectionConverterCases",
    "ProjectionStorageAdapterCases",
    "SnapshotStorageAdapterCases",
    "StoredEventBuilder",
    "SyncEventStorageAdapterCases",
    "SyncProjectionStorageAdapterCases",
    "SyncSnapshotStorageAdapterCases",
    "clear",
    "data",
    "temporary_postgres",
]


def __getattr__(name: str) -> object:
    if name in __all__ and name.endswith("Cases"):
        return getattr(import_module("eventstore_sa.testing.cases"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
