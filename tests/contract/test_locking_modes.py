"""The shipped cases over the modes of locking that are not the default, each at every level of the guarantee.

The groups about concurrency and publishing run over all of them; the others where their statements differ, so that the
suite stays short. Each class has a database of its own, because the mode is recorded there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import ClassVar

import pytest
import pytest_asyncio
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking, LockingMode
from eventstore_sa.store.adapters import (
    EventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.store.adapters.event_contract import AwaitableEventStorageAdapter
from eventstore_sa.testing import clear
from eventstore_sa.testing.cases.concurrency import ConcurrencyCases
from eventstore_sa.testing.cases.conditions import ConditionCases
from eventstore_sa.testing.cases.decisions import QueryConditionCases
from eventstore_sa.testing.cases.event_storage import AsyncSetting, SyncSetting
from eventstore_sa.testing.cases.fidelity import FidelityCases
from eventstore_sa.testing.cases.partitions import PartitionCases
from eventstore_sa.testing.cases.publishing import PublishingCases
from eventstore_sa.testing.cases.reading import ReadingCases
from eventstore_sa.testing.cases.repetition import RepetitionCases
from eventstore_sa.testing.cases.tags import TagCases
from eventstore_sa.testing.postgres import PostgresServer
from tests.contract.wide_reads import WideReads
from tests.databases import PostgresDatabase, PostgresTemplates, fresh_database
from tests.stores import install_schema, record_locking

LOG, CATEGORY, STREAM = EventSerialisationGuarantee


class WritingCases(PublishingCases, ConditionCases, RepetitionCases, ConcurrencyCases):
    """What locks are there for."""


@pytest.fixture(scope="class")
def mode_database(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[PostgresDatabase]:
    """One database for all cases of a class, emptied before each."""
    with fresh_database(postgres_server, postgres_templates.prepared_by(install_schema)) as database:
        engine = create_engine(database.url("psycopg"), poolclass=NullPool)
        record_locking(engine, LockingMode(request.cls.locking, request.cls.guarantee.value))
        yield database


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def engine(mode_database: PostgresDatabase) -> AsyncIterator[AsyncEngine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_async_engine(mode_database.url("asyncpg"), pool_size=5, max_overflow=30)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="class")
def sync_engine(mode_database: PostgresDatabase) -> Iterator[Engine]:
    """One for all cases of a class: it keeps its connections and the statements that it has compiled."""
    engine = create_engine(mode_database.url("psycopg2"), pool_size=5, max_overflow=30)
    yield engine
    engine.dispose()


class _Async(AsyncSetting):
    thorough = False
    locking: ClassVar[Locking]
    guarantee: ClassVar[EventSerialisationGuarantee] = LOG
    coalesce: ClassVar[bool] = False

    @pytest_asyncio.fixture(loop_scope="class")
    async def adapter(self, engine: AsyncEngine) -> AsyncIterator[EventStorageAdapter]:
        await clear(engine)
        adapter = SQLAlchemyEventStorageAdapter(
            engine, locking=self.locking, serialisation_guarantee=self.guarantee, coalesce=self.coalesce
        )
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with autocommit.connect() as connection:
            wide = SQLAlchemyEventStorageAdapter(
                connection, locking=self.locking, serialisation_guarantee=self.guarantee
            )
            yield WideReads(adapter, wide, self.reads_are_complete_within)


class _Sync(SyncSetting):
    thorough = False
    locking: ClassVar[Locking]
    guarantee: ClassVar[EventSerialisationGuarantee] = LOG
    coalesce: ClassVar[bool] = False

    @pytest.fixture
    def adapter(self, sync_engine: Engine) -> Iterator[EventStorageAdapter]:
        clear(sync_engine)
        adapter: SyncEventStorageAdapter = SyncSQLAlchemyEventStorageAdapter(
            sync_engine, locking=self.locking, serialisation_guarantee=self.guarantee, coalesce=self.coalesce
        )
        autocommit = sync_engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            wide = SyncSQLAlchemyEventStorageAdapter(
                connection, locking=self.locking, serialisation_guarantee=self.guarantee
            )
            yield WideReads(
                AwaitableEventStorageAdapter(adapter),
                AwaitableEventStorageAdapter(wide),
                self.reads_are_complete_within,
            )


class TestAdvisoryLockOnTheLog(_Sync, PublishingCases, QueryConditionCases, ConcurrencyCases):
    locking = "advisory"


class TestAdvisoryLockOnCategories(_Async, PublishingCases, QueryConditionCases, ConcurrencyCases):
    locking = "advisory"
    guarantee = CATEGORY


class TestAdvisoryLockOnStreams(_Sync, PublishingCases, ConcurrencyCases):
    locking = "advisory"
    guarantee = STREAM


@pytest.mark.long
class TestCoalescingWithAdvisoryLockOnTheLog(_Async, ConcurrencyCases):
    locking = "advisory"
    coalesce = True


@pytest.mark.long
class TestCoalescingWithAdvisoryLockOnCategories(_Sync, ConcurrencyCases):
    locking = "advisory"
    guarantee = CATEGORY
    coalesce = True


@pytest.mark.long
class TestCoalescingWithRowLocks(_Async, ConcurrencyCases):
    locking = "row"
    coalesce = True


class TestRowLockOnTheLog(_Async, WritingCases):
    locking = "row"


class TestSyncRowLockOnTheLog(_Sync, ConcurrencyCases, FidelityCases, TagCases):
    locking = "row"


class TestRowLocksOnCategories(_Async, PublishingCases, ConcurrencyCases):
    locking = "row"
    guarantee = reads_are_complete_within = CATEGORY


class TestSyncRowLocksOnCategories(_Sync, RepetitionCases, PartitionCases, ConcurrencyCases):
    locking = "row"
    guarantee = reads_are_complete_within = CATEGORY


class TestRowLocksOnStreams(_Async, PublishingCases, QueryConditionCases, ConcurrencyCases):
    locking = "row"
    checks_queries = False
    guarantee = reads_are_complete_within = STREAM


class TestSyncRowLocksOnStreams(_Sync, ReadingCases, ConcurrencyCases):
    locking = "row"
    guarantee = reads_are_complete_within = STREAM
