"""Tools for testing applications and storage adapters: scenarios, assertions, fakes, builders, adapter cases, databases.

The adapter cases need pytest, which is imported when they are first accessed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from eventstore_sa.testing import data
from eventstore_sa.testing.assertions import assert_published
from eventstore_sa.testing.builders import (
    BaseProjectionBuilder,
    MappingProjectionBuilder,
    NewEventBuilder,
    StoredEventBuilder,
)
from eventstore_sa.testing.clearing import clear
from eventstore_sa.testing.freezing import frozen
from eventstore_sa.testing.matching import EventMatcher, matching
from eventstore_sa.testing.postgres import PostgresServer, temporary_postgres
from eventstore_sa.testing.scenarios import Decided, Given, Result, Rows, given
from eventstore_sa.testing.sessions import FakeAsyncSession, FakeSession, StagedEvent, published_in, staged_in

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
    "Decided",
    "EventMatcher",
    "EventStorageAdapterCases",
    "FakeAsyncSession",
    "FakeSession",
    "Given",
    "MappingProjectionBuilder",
    "NewEventBuilder",
    "PostgresServer",
    "ProjectionConverterCases",
    "ProjectionStorageAdapterCases",
    "Result",
    "Rows",
    "SnapshotStorageAdapterCases",
    "StagedEvent",
    "StoredEventBuilder",
    "SyncEventStorageAdapterCases",
    "SyncProjectionStorageAdapterCases",
    "SyncSnapshotStorageAdapterCases",
    "assert_published",
    "clear",
    "data",
    "frozen",
    "given",
    "matching",
    "published_in",
    "staged_in",
    "temporary_postgres",
]


def __getattr__(name: str) -> object:
    if name in __all__ and name.endswith("Cases"):
        return getattr(import_module("eventstore_sa.testing.cases"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
