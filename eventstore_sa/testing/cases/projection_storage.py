"""All cases of storage for projections together, for asynchronous and for synchronous adapters.

The two classes are what third parties subclass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from eventstore_sa.projection.adapters import ProjectionStorageAdapter, SyncProjectionStorageAdapter
from eventstore_sa.projection.adapters.projection_contract import AwaitableProjectionStorageAdapter
from eventstore_sa.testing.cases.projection_batches import ProjectionBatchCases
from eventstore_sa.testing.cases.projection_filters import ProjectionFilterCases
from eventstore_sa.testing.cases.projection_order import ProjectionOrderCases
from eventstore_sa.testing.cases.projection_saving import ProjectionSavingCases

__all__ = ["ProjectionStorageAdapterCases", "SyncProjectionStorageAdapterCases"]


@pytest.mark.asyncio(loop_scope="function")
class ProjectionStorageAdapterCases(
    ProjectionSavingCases, ProjectionBatchCases, ProjectionFilterCases, ProjectionOrderCases
):
    """What every `ProjectionStorageAdapter` does. Subclass it as `Test...` and say how an adapter is made.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`. Each case needs storage in which nothing is stored yet.
    """

    def construct_storage_adapter(self) -> ProjectionStorageAdapter:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self) -> AsyncIterator[ProjectionStorageAdapter]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        await adapter.create_schema()
        try:
            yield adapter
        finally:
            await adapter.drop_schema()
            await adapter.aclose()

    @pytest.fixture
    def adapter(self, storage_adapter: ProjectionStorageAdapter) -> ProjectionStorageAdapter:
        """Provide what the cases talk to: the adapter under test itself."""
        return storage_adapter


@pytest.mark.asyncio(loop_scope="function")
class SyncProjectionStorageAdapterCases(
    ProjectionSavingCases, ProjectionBatchCases, ProjectionFilterCases, ProjectionOrderCases
):
    """What every `SyncProjectionStorageAdapter` does: the twin, with the very same cases."""

    def construct_storage_adapter(self) -> SyncProjectionStorageAdapter:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest.fixture
    def storage_adapter(self) -> Iterator[SyncProjectionStorageAdapter]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        adapter.create_schema()
        try:
            yield adapter
        finally:
            adapter.drop_schema()
            adapter.close()

    @pytest.fixture
    def adapter(self, storage_adapter: SyncProjectionStorageAdapter) -> ProjectionStorageAdapter:
        """Provide what the cases talk to: the adapter under test behind the awaitable contract."""
        return AwaitableProjectionStorageAdapter(storage_adapter)


def _override_me(cases: object) -> str:
    return f"{type(cases).__name__} overrides neither construct_storage_adapter() nor the fixture storage_adapter"
