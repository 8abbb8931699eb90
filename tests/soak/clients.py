"""A writer's connections, with asyncio or without: the acts of `writer` are written once, against these.

The synchronous client blocks inside coroutines, so each of its users runs an event loop of its own in a thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction

from eventstore_sa import EventStore, SyncEventStore
from eventstore_sa.errors import (
    EventStoreError,
    LockTimeoutError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
)
from eventstore_sa.store.adapters.event_contract import AwaitableEventStorageAdapter

__all__ = ["AsyncClient", "Client", "Savepoint", "SyncClient", "Transaction", "trouble"]


class Savepoint(Protocol):
    """A savepoint, to be ended one way or the other."""

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class Transaction(Protocol):
    """A host's session: its SQL, and a store inside it."""

    @property
    def store(self) -> EventStore: ...

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]: ...

    async def add(self, record: object) -> None: ...

    async def savepoint(self) -> Savepoint: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...


class Client(Protocol):
    """A store of its own, and transactions of the host's."""

    store: EventStore

    def transaction(self) -> AbstractAsyncContextManager[Transaction]: ...

    async def close(self) -> None: ...


class AsyncClient:
    """asyncpg, or psycopg with asyncio; shared by its users, whose publishes may travel together."""

    def __init__(self, url: str, application_name: str, *, users: int = 1, coalesce: bool = False) -> None:
        named = {"application_name": application_name}
        arguments: dict[str, Any] = {"server_settings": named} if "+asyncpg" in url else named
        self._engine = create_async_engine(make_url(url), connect_args=arguments, pool_size=2 * users, max_overflow=0)
        self.store = EventStore(self._engine, coalesce=coalesce)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        async with AsyncSession(self._engine, expire_on_commit=False) as session:
            yield _AsyncTransaction(session, self.store.within(session))

    async def close(self) -> None:
        await self._engine.dispose()


class SyncClient:
    """psycopg or psycopg2, blocking; shared by its users, whose publishes may travel together."""

    def __init__(self, url: str, application_name: str, *, users: int = 1, coalesce: bool = False) -> None:
        named = {"application_name": application_name}
        self._engine = create_engine(make_url(url), connect_args=named, pool_size=2 * users, max_overflow=0)
        self._store = SyncEventStore(self._engine, coalesce=coalesce)
        self.store = EventStore(AwaitableEventStorageAdapter(self._store.adapter))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        with Session(self._engine, expire_on_commit=False) as session:
            within = self._store.within(session)
            yield _SyncTransaction(session, EventStore(AwaitableEventStorageAdapter(within.adapter)))

    async def close(self) -> None:
        self._engine.dispose()


class _AsyncTransaction:
    def __init__(self, session: AsyncSession, store: EventStore) -> None:
        self._session = session
        self.store = store

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]:
        result = await self._session.execute(text(sql), parameters)
        return result.all() if result.returns_rows else ()  # type: ignore[attr-defined]

    async def add(self, record: object) -> None:
        self._session.add(record)
        await self._session.flush()

    async def savepoint(self) -> AsyncSessionTransaction:
        return await self._session.begin_nested()

    async def commit(self) -> None:
        await self._session.commit()

    async def rollback(self) -> None:
        await self._session.rollback()


class _SyncTransaction:
    def __init__(self, session: Session, store: EventStore) -> None:
        self._session = session
        self.store = store

    async def execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> Sequence[Any]:
        result = self._session.execute(text(sql), parameters)
        return result.all() if result.returns_rows else ()  # type: ignore[attr-defined]

    async def add(self, record: object) -> None:
        self._session.add(record)
        self._session.flush()

    async def savepoint(self) -> Savepoint:
        return _SyncSavepoint(self._session.begin_nested())

    async def commit(self) -> None:
        self._session.commit()

    async def rollback(self) -> None:
        self._session.rollback()


class _SyncSavepoint:
    def __init__(self, savepoint: SessionTransaction) -> None:
        self._savepoint = savepoint

    async def commit(self) -> None:
        self._savepoint.commit()

    async def rollback(self) -> None:
        self._savepoint.rollback()


def trouble(error: Exception) -> str | None:
    """Name what a writer must expect: "lost connection", "deadlock", ...; None when it must not happen at all."""
    match error:
        case UnmetWriteConditionError():
            return "unmet condition"
        case LockTimeoutError():
            return "lock timeout"
        case TransactionError() if "deadlock" in error.message:
            return "deadlock"
        case StorageError() if "to the database" in error.message:
            return "lost connection"
        case EventStoreError():
            return None
        case DBAPIError():
            state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
            # A connection that breaks at an awkward moment is not always recognised: no server spoke, so no state.
            silent = not state and isinstance(error, OperationalError | InterfaceError)
            if error.connection_invalidated or silent or state == "57P01" or state.startswith("08"):
                return "lost connection"
            return {"40P01": "deadlock", "55P03": "lock timeout"}.get(state)
        case SQLAlchemyError() | ConnectionError():
            lost = ("invalid transaction", "connection is closed", "another operation", "Can't operate on closed")
            return "lost connection" if any(words in str(error) for words in lost) else None
        case _ if type(error).__name__ == "InternalClientError":
            # In a statement of the host's own: asyncpg is confused by what it hears while its connection is being killed.
            return "lost connection"
        case _:
            return None
