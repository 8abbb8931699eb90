"""All cases of event storage together, for asynchronous and for synchronous adapters.

The two classes of all cases are what third parties subclass. The cases themselves are in the modules of their groups,
which go together with a setting one by one as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, ClassVar

from eventstore_sa.store.adapters.event_contract import (
    AwaitableEventStorageAdapter,
    EventStorageAdapter,
    SyncEventStorageAdapter,
)
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.testing.cases.concurrency import ConcurrencyCases
from eventstore_sa.testing.cases.conditions import ConditionCases
from eventstore_sa.testing.cases.constraints import ConstraintCases
from eventstore_sa.testing.cases.decisions import QueryConditionCases
from eventstore_sa.testing.cases.fidelity import FidelityCases
from eventstore_sa.testing.cases.fixtures import AsyncFixtures, SyncFixtures
from eventstore_sa.testing.cases.inspection import InspectionCases
from eventstore_sa.testing.cases.listing import ListingCases
from eventstore_sa.testing.cases.names import NameCases
from eventstore_sa.testing.cases.partitions import PartitionCases
from eventstore_sa.testing.cases.publishing import PublishingCases
from eventstore_sa.testing.cases.reading import ReadingCases
from eventstore_sa.testing.cases.refusals import RefusalCases
from eventstore_sa.testing.cases.repetition import RepetitionCases
from eventstore_sa.testing.cases.setting import EventStorageSetting, Operation, Outcome, outcome_of
from eventstore_sa.testing.cases.subscriptions import SubscriptionCases
from eventstore_sa.testing.cases.tags import TagCases
from eventstore_sa.testing.cases.typed import TypedCases
from eventstore_sa.testing.cases.volume import VolumeCases

__all__ = ["AsyncSetting", "EventStorageAdapterCases", "SyncEventStorageAdapterCases", "SyncSetting"]


class _AllCases(
    ReadingCases,
    ConstraintCases,
    PartitionCases,
    ListingCases,
    InspectionCases,
    PublishingCases,
    ConditionCases,
    QueryConditionCases,
    RepetitionCases,
    FidelityCases,
    NameCases,
    TagCases,
    SubscriptionCases,
    TypedCases,
    RefusalCases,
    VolumeCases,
    ConcurrencyCases,
):
    """Every case, of all groups."""


class AsyncSetting(AsyncFixtures[EventStorageAdapter], EventStorageSetting):
    """The fixtures of cases for an `EventStorageAdapter`, and how the cases do several things at once."""

    async def run_concurrently(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Run all operations at the same time, each in a task of its own."""
        if not self.publishes_run_concurrently:
            return [await outcome_of(operation()) for operation in operations]
        return await asyncio.gather(*(outcome_of(operation()) for operation in operations))


class SyncSetting(SyncFixtures[SyncEventStorageAdapter], EventStorageSetting):
    """The fixtures of cases for a `SyncEventStorageAdapter`; the same as `AsyncSetting` otherwise."""

    awaitable: ClassVar[type[AwaitableStorageAdapter[Any]]] = AwaitableEventStorageAdapter

    async def run_concurrently(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Run all operations at the same time, each in a thread of its own."""
        if not self.publishes_run_concurrently:
            return [await outcome_of(operation()) for operation in operations]
        start = Barrier(len(operations))

        def run(operation: Operation) -> Outcome:
            start.wait()
            return asyncio.run(outcome_of(operation()))

        with ThreadPoolExecutor(len(operations)) as threads:
            return list(threads.map(run, operations))


class EventStorageAdapterCases(AsyncSetting, _AllCases):
    """The behaviour that every `EventStorageAdapter` must have. Subclass it as `Test...`.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`, which can take other fixtures and clean up after itself. Each case needs empty
    storage. The class attributes declare optional capabilities of the adapter; see `EventStorageSetting`.

    Examples:
        class TestMyAdapter(EventStorageAdapterCases):
            def construct_storage_adapter(self) -> EventStorageAdapter:
                return MyAdapter()
    """


class SyncEventStorageAdapterCases(SyncSetting, _AllCases):
    """The behaviour that every `SyncEventStorageAdapter` must have: the cases of `EventStorageAdapterCases`.

    Either override `construct_storage_adapter`, or the fixture `storage_adapter`.
    """
