"""What the stores of events, projections and snapshots have in common: sessions, the schema, and their end.

What a store keeps, and how it is asked for it, is in the stores themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters.storage_adapter import StorageAdapter, SyncStorageAdapter

__all__ = ["Store", "SyncStore", "adapter_of"]

AnyAdapter = TypeVar("AnyAdapter", bound=StorageAdapter | SyncStorageAdapter)
Adapter = TypeVar("Adapter", bound=StorageAdapter)
SyncAdapter = TypeVar("SyncAdapter", bound=SyncStorageAdapter)


class _AnyStore(Generic[AnyAdapter]):
    """What takes no I/O, with asyncio and without."""

    adapter: AnyAdapter
    """Where everything is kept."""

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller."""
        return self.adapter.in_transaction

    def _over(self, adapter: AnyAdapter) -> Self:
        """Return the same store over another adapter."""
        store = copy(self)
        store.adapter = adapter
        return store


class Store(_AnyStore[Adapter]):
    """A store over an adapter, used with asyncio."""

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


class SyncStore(_AnyStore[SyncAdapter]):
    """A store over an adapter, used without asyncio: the twin of `Store`."""

    def within(self, session: Session | scoped_session[Any]) -> Self:
        """Return the same store inside the transaction of a session; see `Store.within`.

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


def adapter_of(
    store: Store[Any] | SyncStore[Any], given: object, contract: type[Any], make: Callable[..., Any], **options: object
) -> Any:
    """Return the adapter that a store was given, or make one on the bind that it was given.

    Args:
        store: The store.
        given: The bind or adapter.
        contract: What the adapters of the store implement.
        make: Makes an adapter on a bind, with the options.
        options: The options that the store was given; None: not given.

    Raises:
        ConfigurationError: If the adapter is of another kind, or an option is given with an adapter.
    """
    if not isinstance(given, StorageAdapter | SyncStorageAdapter):
        return make(given, **options)
    name, kind = type(store).__name__, type(given).__name__
    if not isinstance(given, contract):
        family = contract.__name__.removeprefix("Sync")
        twins = [base.__name__ for base in type(given).__mro__ if base.__name__.removeprefix("Sync") == family]
        remedy = (
            f"use {twins[0].removesuffix('StorageAdapter')}Store"
            if twins
            else f"pass {'a' if contract.__name__.startswith('S') else 'an'} {contract.__name__}"
        )
        raise ConfigurationError(f"{kind} does not fit {name}: {remedy}")
    if any(each is not None for each in options.values()):
        raise ConfigurationError(
            f"{name} was given an adapter and {', '.join(options)}: pass options to the adapter, or pass a bind to the store"
        )
    return given
