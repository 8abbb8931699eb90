"""What the stores of events, projections and snapshots have in common: sessions, the schema, and their end.

What a store keeps, and how it is asked for it, is in the stores themselves.
"""

from __future__ import annotations

from copy import copy
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters.storage_adapter import StorageAdapter, SyncStorageAdapter

__all__ = ["Store", "SyncStore", "check_adapter"]

Adapter = TypeVar("Adapter", bound=StorageAdapter)
SyncAdapter = TypeVar("SyncAdapter", bound=SyncStorageAdapter)


class Store(Generic[Adapter]):
    """A store over an adapter, used with asyncio.

    Attributes:
        adapter: Where everything is kept.
    """

    adapter: Adapter

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller."""
        return self.adapter.in_transaction

    def within(self, session: AsyncSession | async_scoped_session[Any]) -> Self:
        """Return the same store inside the transaction of a session.

        What it stores is committed or rolled back with the session's transaction, which it never begins, commits or rolls
        back. Reads are ordinary reads of that transaction: they see what was written in it at once, and must not drive
        the cursor of a reader.

        Raises:
            ConfigurationError: If it is not an asyncio session, or the store is not on a SQLAlchemy bind.
        """
        return self._over(self.adapter.within(session))

    async def create_schema(self) -> None:
        """Create the missing tables, functions and triggers: for development and tests; in production, migrate."""
        await self.adapter.create_schema()

    async def drop_schema(self) -> None:
        """Drop all tables, functions and triggers of the library, events included: for development and tests."""
        await self.adapter.drop_schema()

    async def aclose(self) -> None:
        """Close the store; the engine is disposed of only if the store made it from a URL."""
        await self.adapter.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _over(self, adapter: Adapter) -> Self:
        """Return the same store over another adapter."""
        store = copy(self)
        store.adapter = adapter
        return store


class SyncStore(Generic[SyncAdapter]):
    """A store over an adapter, used without asyncio: the twin of `Store`.

    Attributes:
        adapter: Where everything is kept.
    """

    adapter: SyncAdapter

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller."""
        return self.adapter.in_transaction

    def within(self, session: Session | scoped_session[Any]) -> Self:
        """Return the same store inside the transaction of a session.

        What it stores is committed or rolled back with the session's transaction, which it never begins, commits or rolls
        back. Reads are ordinary reads of that transaction: they see what was written in it at once, and must not drive
        the cursor of a reader.

        Raises:
            ConfigurationError: If it is not a synchronous session, or the store is not on a SQLAlchemy bind.
        """
        return self._over(self.adapter.within(session))

    def create_schema(self) -> None:
        """Create the missing tables, functions and triggers: for development and tests; in production, migrate."""
        self.adapter.create_schema()

    def drop_schema(self) -> None:
        """Drop all tables, functions and triggers of the library, events included: for development and tests."""
        self.adapter.drop_schema()

    def close(self) -> None:
        """Close the store; the engine is disposed of only if the store made it from a URL."""
        self.adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _over(self, adapter: SyncAdapter) -> Self:
        """Return the same store over another adapter."""
        store = copy(self)
        store.adapter = adapter
        return store


def check_adapter(store: Store[Any] | SyncStore[Any], given: object, **options: object) -> None:
    """Refuse an adapter that does not fit a store, and options that belong to the adapter.

    Args:
        store: The store.
        given: The bind or adapter that it was given.
        options: The options that it was given; None: not given.

    Raises:
        ConfigurationError: If the adapter is of the other kind, or an option is given with an adapter.
    """
    name = type(store).__name__
    if isinstance(given, SyncStorageAdapter) and isinstance(store, Store):
        raise ConfigurationError(f"{type(given).__name__} is synchronous and does not fit {name}: use Sync{name}")
    if isinstance(given, StorageAdapter) and isinstance(store, SyncStore):
        raise ConfigurationError(
            f"{type(given).__name__} needs asyncio and does not fit {name}: use {name.removeprefix('Sync')}"
        )
    if isinstance(given, StorageAdapter | SyncStorageAdapter) and any(each is not None for each in options.values()):
        raise ConfigurationError(
            f"{', '.join(options)} belong to the adapter: pass them to the adapter, or pass a bind to the store"
        )
