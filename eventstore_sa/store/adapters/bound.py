"""What all adapters on a SQLAlchemy bind have in common: they are open until closed, and work within sessions.

An adapter of a family (events, projections) has a base of its own that says what its storage is; the asyncio and the
synchronous one add these faces. What a bind may be is told in `binding.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.store.adapters.binding import BoundTo, async_bind, sync_bind
from eventstore_sa.store.adapters.greenlets import GreenletRunner

__all__ = ["AsyncBoundAdapter", "BoundAdapter", "SyncBoundAdapter"]

T = TypeVar("T")


class _Options(Protocol):
    @property
    def schema(self) -> EventStoreSchema: ...


class _Storage(Protocol):
    def create_schema(self) -> None: ...
    def drop_schema(self) -> None: ...


Options = TypeVar("Options", bound=_Options)
Storage = TypeVar("Storage", bound=_Storage)


class BoundAdapter(Generic[Options, Storage]):
    """Storage on one bind, until it is closed.

    Attributes:
        schema: The tables.
    """

    store_kind: ClassVar[str]
    """What the stores over this adapter are called in messages: "event store"."""

    def _open(self, bound: BoundTo, options: Options) -> None:
        self.schema: EventStoreSchema = options.schema
        self._options = options
        self._bound = bound
        self._open_storage: Storage | None = self._make_storage(bound.bind, options)

    @abstractmethod
    def _make_storage(self, bind: Bind, options: Options) -> Storage: ...

    @classmethod
    def _opened(cls, bound: BoundTo, options: Options) -> Self:
        adapter = object.__new__(cls)
        adapter._open(bound, options)
        return adapter

    def _bound_to(self, bound: BoundTo, options: Options | None = None) -> Self:
        """Make another adapter, with the same options or others."""
        _ = self._storage
        return self._opened(bound, options or self._options)

    @property
    def bind(self) -> Bind:
        """Where connections come from.

        Raises:
            ConfigurationError: The adapter is closed.
        """
        _ = self._storage
        return self._bound.bind

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller's."""
        return self._bound.bind.hosted

    @property
    def _storage(self) -> Storage:
        if self._open_storage is None:
            raise ConfigurationError(f"this {self.store_kind} is closed: make a new one")
        return self._open_storage


class SyncBoundAdapter(BoundAdapter[Options, Storage]):
    """The synchronous face."""

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: It is no session for a synchronous store.
        """
        checked: object = session
        if not isinstance(checked, Session | scoped_session):
            raise ConfigurationError(
                f"within() of a synchronous {self.store_kind} takes a Session or scoped_session; got a "
                f"{type(checked).__name__}"
            )
        return self._bound_to(sync_bind(session, self.schema))

    def create_schema(self) -> None:
        """Create what is missing of the tables of the library."""
        self._storage.create_schema()

    def drop_schema(self) -> None:
        """Drop all tables of the library."""
        self._storage.drop_schema()

    def close(self) -> None:
        """Dispose of the engine when it was made here, from a URL."""
        self._open_storage = None
        if self._bound.owned is not None:
            self._bound.owned.dispose()


class AsyncBoundAdapter(BoundAdapter[Options, Storage]):
    """The asyncio face: the same synchronous code, run in a greenlet."""

    def _open(self, bound: BoundTo, options: Options) -> None:
        super()._open(bound, options)
        self._run = GreenletRunner(bound.bind).run

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: It is no session for asyncio.
        """
        checked: object = session
        if not isinstance(checked, AsyncSession | async_scoped_session):
            raise ConfigurationError(
                f"within() of an asyncio {self.store_kind} takes an AsyncSession or async_scoped_session; got a "
                f"{type(checked).__name__}"
            )
        return self._bound_to(async_bind(session, self.schema))

    async def create_schema(self) -> None:
        """Create what is missing of the tables of the library."""
        await self._run(self._storage.create_schema)

    async def drop_schema(self) -> None:
        """Drop all tables of the library."""
        await self._run(self._storage.drop_schema)

    async def aclose(self) -> None:
        """Dispose of the engine when it was made here, from a URL."""
        self._open_storage = None
        if isinstance(self._bound.owned, AsyncEngine):
            await self._bound.owned.dispose()

    async def _items(self, pages: Iterator[list[T]]) -> AsyncIterator[T]:
        end: list[T] = []
        while page := await self._run(lambda: next(pages, end)):
            for item in page:
                yield item
