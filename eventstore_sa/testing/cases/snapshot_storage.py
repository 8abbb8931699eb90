"""All cases of storage for snapshots, for asynchronous and for synchronous adapters.

The two classes are what third parties subclass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from eventstore_sa.projection.adapters import SnapshotStorageAdapter, SyncSnapshotStorageAdapter
from eventstore_sa.projection.adapters.snapshot_contract import AwaitableSnapshotStorageAdapter
from eventstore_sa.testing.cases.snapshot_saving import SnapshotSavingCases

__all__ = ["SnapshotStorageAdapterCases", "SyncSnapshotStorageAdapterCases"]


@pytest.mark.asyncio(loop_scope="function")
class SnapshotStorageAdapterCases(SnapshotSavingCases):
    """What every `SnapshotStorageAdapter` does. Subclass it as `Test...` and say how an adapter is made.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`. Each case needs storage in which nothing is stored yet.
    """

    def construct_storage_adapter(self) -> SnapshotStorageAdapter:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self) -> AsyncIterator[SnapshotStorageAdapter]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        await adapter.create_schema()
        try:
            yield adapter
        finally:
            await adapter.drop_schema()
            await adapter.aclose()

    @pytest.fixture
    def adapter(self, storage_adapter: SnapshotStorageAdapter) -> SnapshotStorageAdapter:
        """Provide what the cases talk to: the adapter under test itself."""
        return storage_adapter


@pytest.mark.asyncio(loop_scope="function")
class SyncSnapshotStorageAdapterCases(SnapshotSavingCases):
    """What every `SyncSnapshotStorageAdapter` does: the twin, with the very same cases."""

    def construct_storage_adapter(self) -> SyncSnapshotStorageAdapter:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest.fixture
    def storage_adapter(self) -> Iterator[SyncSnapshotStorageAdapter]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        adapter.create_schema()
        try:
            yield adapter
        finally:
            adapter.drop_schema()
            adapter.close()

    @pytest.fixture
    def adapter(self, storage_adapter: SyncSnapshotStorageAdapter) -> SnapshotStorageAdapter:
        """Provide what the cases talk to: the adapter under test behind the awaitable contract."""
        return AwaitableSnapshotStorageAdapter(storage_adapter)


def _override_me(cases: object) -> str:
    return f"{type(cases).__name__} overrides neither construct_storage_adapter() nor the fixture storage_adapter"
