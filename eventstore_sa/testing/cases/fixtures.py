"""The fixtures of all cases: an adapter with empty storage before each, which is made awaitable if it is synchronous."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Generic, TypeVar

import pytest
import pytest_asyncio

from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter, StorageAdapter, SyncStorageAdapter

__all__ = ["AsyncFixtures", "SyncFixtures"]

A = TypeVar("A", bound=StorageAdapter)
S = TypeVar("S", bound=SyncStorageAdapter)


@pytest.mark.asyncio(loop_scope="function")
class AsyncFixtures(Generic[A]):
    """The fixtures of cases for an asynchronous adapter.

    Either override `construct_storage_adapter`; the schema is then created before each case and dropped after it. Or
    override the fixture `storage_adapter`, which can take other fixtures and clean up after itself. Each case needs empty
    storage.
    """

    def construct_storage_adapter(self) -> A:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage_adapter(self) -> AsyncIterator[A]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        await adapter.create_schema()
        try:
            yield adapter
        finally:
            await adapter.drop_schema()
            await adapter.aclose()

    @pytest.fixture
    def adapter(self, storage_adapter: A) -> A:
        """Provide the adapter that the cases call: the one under test."""
        return storage_adapter


@pytest.mark.asyncio(loop_scope="function")
class SyncFixtures(Generic[S]):
    """The fixtures of cases for a synchronous adapter; the same as `AsyncFixtures` otherwise.

    Attributes:
        awaitable: Makes the adapter awaitable.
    """

    awaitable: ClassVar[type[AwaitableStorageAdapter[Any]]]

    def construct_storage_adapter(self) -> S:
        """Return a new adapter over storage of its own, before `create_schema`."""
        raise NotImplementedError(_override_me(self))

    @pytest.fixture
    def storage_adapter(self) -> Iterator[S]:
        """Provide the adapter under test, ready for use and with nothing stored."""
        adapter = self.construct_storage_adapter()
        adapter.create_schema()
        try:
            yield adapter
        finally:
            adapter.drop_schema()
            adapter.close()

    @pytest.fixture
    def adapter(self, storage_adapter: S) -> Any:
        """Provide the adapter that the cases call: the one under test, made awaitable."""
        return self.awaitable(storage_adapter)


def _override_me(cases: object) -> str:
    return f"{type(cases).__name__} overrides neither construct_storage_adapter() nor the fixture storage_adapter"
