"""What all adapters on a SQLAlchemy bind have in common: they are open until closed, and work within sessions.

The synchronous adapter of each family (events, projections, snapshots) says what its storage is; the asyncio one owns it and
runs it in greenlets. What a bind may be is in `bindables.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from copy import copy
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.creation import create_schema, drop_schema
from eventstore_sa.persistence.sqlalchemy_internals import run_in_greenlet
from eventstore_sa.persistence.transactions.binds import Bind, SessionBind
from eventstore_sa.persistence.transactions.running import TransactionRunner
from eventstore_sa.store.adapters.bindables import async_bind, is_url, sync_bind
from eventstore_sa.store.adapters.runners import GreenletRunner
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter, SyncStorageAdapter

__all__ = ["AwaitableSQLAlchemyAdapter", "SyncSQLAlchemyAdapter"]


class _Options(Protocol):
    @property
    def schema(self) -> EventStoreSchema: ...


Options = TypeVar("Options", bound=_Options)
Storage = TypeVar("Storage")


class SyncSQLAlchemyAdapter(SyncStorageAdapter, Generic[Options, Storage]):
    """Storage on one bind, until it is closed.

    Attributes:
        schema: The tables.
    """

    _store_kind: ClassVar[str]
    """What the stores over this adapter are called in messages: "event store"."""

    def __init__(self, bindable: object, options: Options) -> None:
        bind = sync_bind(bindable, options.schema)
        self._owned_engine: Engine | None = bind.engine if is_url(bindable) else None
        self._open(bind, options)

    def _open(self, bind: Bind, options: Options) -> None:
        self.schema: EventStoreSchema = options.schema
        self._options = options
        self._bind = bind
        self._open_storage: Storage | None = self._make_storage(bind, options)

    @abstractmethod
    def _make_storage(self, bind: Bind, options: Options) -> Storage: ...

    def _reopened(self, bind: Bind, options: Options) -> Self:
        """Return the same adapter on another bind or with other options."""
        _ = self._storage
        adapter = copy(self)
        adapter._open(bind, options)  # noqa: SLF001 - a copy of this one
        return adapter

    @property
    def bind(self) -> Bind:
        """Where connections come from.

        Raises:
            ConfigurationError: If the adapter is closed.
        """
        _ = self._storage
        return self._bind

    @property
    def in_transaction(self) -> bool:
        return self._bind.in_transaction

    @property
    def _storage(self) -> Storage:
        if self._open_storage is None:
            raise ConfigurationError(f"this {self._store_kind} is closed: make a new one")
        return self._open_storage

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, Session | scoped_session | SessionBind):
            raise ConfigurationError(
                f"within() of a synchronous store takes a Session or scoped_session; got {type(checked).__name__}"
            )
        adapter = self._reopened(sync_bind(session, self.schema), self._options)
        adapter._owned_engine = None  # noqa: SLF001 - a copy of this one
        return adapter

    def create_schema(self) -> None:
        with TransactionRunner(self.bind).transaction() as scope:
            create_schema(scope.connection, self.schema)

    def drop_schema(self) -> None:
        with TransactionRunner(self.bind).transaction() as scope:
            drop_schema(scope.connection, self.schema)

    def close(self) -> None:
        """Close the adapter; dispose of the engine if the adapter made it from a URL."""
        self._open_storage = None
        if self._owned_engine is not None:
            self._owned_engine.dispose()


SyncAdapter = TypeVar("SyncAdapter", bound=SyncSQLAlchemyAdapter[Any, Any])


class AwaitableSQLAlchemyAdapter(AwaitableStorageAdapter[SyncAdapter]):
    """The asyncio face: the synchronous adapter, run in a greenlet.

    Attributes:
        schema: The tables.
    """

    def __init__(self, sync_adapter: SyncAdapter, bindable: object) -> None:
        self._greenlets = GreenletRunner(sync_adapter.bind)
        super().__init__(sync_adapter, runner=self._greenlets)
        self.schema: EventStoreSchema = sync_adapter.schema
        self._owned_engine: Engine | None = sync_adapter.bind.engine if is_url(bindable) else None

    @property
    def bind(self) -> Bind:
        """Where connections come from.

        Raises:
            ConfigurationError: If the adapter is closed.
        """
        return self.sync_adapter.bind

    def within(self, session: Any) -> Self:
        checked: object = session
        if not isinstance(checked, AsyncSession | async_scoped_session):
            raise ConfigurationError(
                "within() of an asyncio store takes an AsyncSession or async_scoped_session; got "
                f"{type(checked).__name__}"
            )
        bind = async_bind(session, self.schema)
        adapter = self._over(self.sync_adapter.within(bind), GreenletRunner(bind))
        adapter._owned_engine = None  # noqa: SLF001 - a copy of this one
        return adapter

    async def aclose(self) -> None:
        """Close the adapter; dispose of the engine if the adapter made it from a URL."""
        self.sync_adapter.close()
        if self._owned_engine is not None:
            await self._greenlets.end_reading_ahead()
            await run_in_greenlet(self._owned_engine.dispose)
