"""What storage adapters of every kind have in common: sessions, the schema, their end.

An asyncio adapter may own a synchronous one and forward to it; that is here as well. The contracts for events, projections
and snapshots build on these classes, which know nothing of what is stored.
"""

from __future__ import annotations

from abc import ABC
from copy import copy
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters.runners import IN_TASK, Runner

__all__ = ["AwaitableStorageAdapter", "StorageAdapter", "SyncStorageAdapter"]

_NO_SESSIONS = "{adapter} cannot work within a session: within(session) needs a store on a SQLAlchemy bind"


class _Adapter(ABC):  # noqa: B024 - the contracts add what is abstract
    """What takes no I/O, with asyncio and without."""

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller."""
        return False

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: If this storage cannot work within sessions, or not within one of this kind.
        """
        raise ConfigurationError(_NO_SESSIONS.format(adapter=type(self).__name__))


class StorageAdapter(_Adapter):
    """Storage of any kind, used with asyncio; the defaults suit storage that needs no preparation and no end."""

    async def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    async def drop_schema(self) -> None:
        """Drop what `create_schema` creates, with everything that is stored."""

    async def aclose(self) -> None:
        """Release what the adapter itself opened."""


class SyncStorageAdapter(_Adapter):
    """Storage of any kind, used without asyncio: the twin of `StorageAdapter`."""

    def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    def drop_schema(self) -> None:
        """Drop what `create_schema` creates, with everything that is stored."""

    def close(self) -> None:
        """Release what the adapter itself opened."""


SyncAdapter = TypeVar("SyncAdapter", bound=SyncStorageAdapter)


class AwaitableStorageAdapter(StorageAdapter, Generic[SyncAdapter]):
    """An asyncio adapter that owns a synchronous one, as SQLAlchemy's AsyncEngine owns an Engine.

    Args:
        sync_adapter: What does the work.
        runner: How it is run; by default in the calling task, which it blocks.
    """

    sync_adapter: SyncAdapter
    """The same storage, for a synchronous store. Over an asyncio driver it works only inside `run_sync`."""

    def __init__(self, sync_adapter: SyncAdapter, *, runner: Runner = IN_TASK) -> None:
        self.sync_adapter = sync_adapter
        self._runner = runner

    def _over(self, sync_adapter: SyncAdapter, runner: Runner | None = None) -> Self:
        """Return the same adapter over another synchronous one."""
        adapter = copy(self)
        adapter.sync_adapter = sync_adapter
        adapter._runner = self._runner if runner is None else runner  # noqa: SLF001 - a copy of this one
        return adapter

    @property
    def runner(self) -> Runner:
        """How the synchronous adapter is run."""
        return self._runner

    @property
    def in_transaction(self) -> bool:
        return self.sync_adapter.in_transaction

    async def create_schema(self) -> None:
        await self._runner.run(self.sync_adapter.create_schema)

    async def drop_schema(self) -> None:
        await self._runner.run(self.sync_adapter.drop_schema)

    async def aclose(self) -> None:
        await self._runner.run(self.sync_adapter.close)
