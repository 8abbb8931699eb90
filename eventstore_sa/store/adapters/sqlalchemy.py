"""Storage of events in a SQL database through SQLAlchemy: two thin faces over `persistence/events/storage.py`.

The asyncio face runs the same synchronous code in a greenlet, as SQLAlchemy's own asyncio extension does. What a bind may
be is told in `binding.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking
from eventstore_sa.publishing import keyed_results, publications
from eventstore_sa.sources.base import checked_limit
from eventstore_sa.sources.constraints import QueryConstraints, checked_constraints
from eventstore_sa.store.adapters.base import (
    AnyStreamPublishDefinition,
    EventStorageAdapter,
    Latestable,
    Listable,
    Scannable,
    SyncEventStorageAdapter,
    checked_listable,
    checked_target,
)
from eventstore_sa.store.adapters.binding import AsyncBindable, SyncBindable, async_bind, sync_bind
from eventstore_sa.store.adapters.bound import AsyncBoundAdapter, SyncBoundAdapter
from eventstore_sa.store.adapters.sqlalchemy_base import SQLAlchemyAdapterBase, StorageOptions
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier
from eventstore_sa.types.watermark import Watermark

__all__ = ["SQLAlchemyEventStorageAdapter", "SyncSQLAlchemyEventStorageAdapter"]

_PAGE_SIZE: Final = 1000
_STALL_WARNING_S: Final = 30.0


class SyncSQLAlchemyEventStorageAdapter(
    SQLAlchemyAdapterBase, SyncBoundAdapter[StorageOptions, EventStorage], SyncEventStorageAdapter
):
    """Keeps events in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every publish is a transaction of its own. A Connection or Session: all is
            done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of an `EventStoreSchema` with the next two options by default.
        locking: How writers exclude each other; of a schema that is given, the same as there. See `EventStoreSchema`.
        serialisation_guarantee: At which level; the same holds.
        page_size: How many events a scan fetches at a time.
        stall_warning_s: A warning is logged when an open transaction has held readers of the log back for so many
            seconds.
        constraint_converters: How custom constraints are translated to SQL, where several adapters share that; see
            `register_constraint`.

    Raises:
        ConfigurationError: The bind cannot be used, its driver is not installed, or locking is not that of the schema.
    """

    def __init__(
        self,
        bind: SyncBindable,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        page_size: int = _PAGE_SIZE,
        stall_warning_s: float = _STALL_WARNING_S,
        constraint_converters: ConstraintConverters | None = None,
    ) -> None:
        options = StorageOptions.of(
            schema=schema,
            locking=locking,
            serialisation_guarantee=serialisation_guarantee,
            page_size=page_size,
            stall_warning_s=stall_warning_s,
            constraint_converters=constraint_converters,
        )
        self._open(sync_bind(bind, options.schema), options)

    def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        return keyed_results(streams, self._publish(parts))

    def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        return self._storage.latest(checked_target(target))

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        pages = self._storage.pages(
            checked_target(target),
            constraints=checked_constraints(constraints),
            limit=checked_limit(limit),
            backwards=backwards,
        )
        return (event for page in pages for event in page)

    def streams(self, *, target: Listable = LogIdentifier()) -> Iterator[StreamIdentifier]:  # noqa: B008
        return (stream for page in self._storage.stream_pages(checked_listable(target)) for stream in page)

    def categories(self) -> Iterator[CategoryIdentifier]:
        return (category for page in self._storage.category_pages() for category in page)

    def watermark(self) -> Watermark:
        return self._storage.watermark()

    def flush(self) -> None:
        self._session_storage.flush()


class SQLAlchemyEventStorageAdapter(
    SQLAlchemyAdapterBase, AsyncBoundAdapter[StorageOptions, EventStorage], EventStorageAdapter
):
    """Keeps events in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every publish is a transaction of its own. An AsyncConnection or
            AsyncSession: all is done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; those of an `EventStoreSchema` with the next two options by default.
        locking: How writers exclude each other; of a schema that is given, the same as there. See `EventStoreSchema`.
        serialisation_guarantee: At which level; the same holds.
        page_size: How many events a scan fetches at a time.
        stall_warning_s: A warning is logged when an open transaction has held readers of the log back for so many
            seconds.
        constraint_converters: How custom constraints are translated to SQL, where several adapters share that; see
            `register_constraint`.

    Raises:
        ConfigurationError: The bind cannot be used, its driver is not installed, or locking is not that of the schema.
    """

    def __init__(
        self,
        bind: AsyncBindable,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        page_size: int = _PAGE_SIZE,
        stall_warning_s: float = _STALL_WARNING_S,
        constraint_converters: ConstraintConverters | None = None,
    ) -> None:
        options = StorageOptions.of(
            schema=schema,
            locking=locking,
            serialisation_guarantee=serialisation_guarantee,
            page_size=page_size,
            stall_warning_s=stall_warning_s,
            constraint_converters=constraint_converters,
        )
        self._open(async_bind(bind, options.schema), options)

    async def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        return keyed_results(streams, await self._run(self._publish, parts))

    async def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        return await self._run(self._storage.latest, checked_target(target))

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> AsyncIterator[AnyStoredEvent]:
        pages = self._storage.pages(
            checked_target(target),
            constraints=checked_constraints(constraints),
            limit=checked_limit(limit),
            backwards=backwards,
        )
        return self._items(pages)

    def streams(self, *, target: Listable = LogIdentifier()) -> AsyncIterator[StreamIdentifier]:  # noqa: B008
        return self._items(self._storage.stream_pages(checked_listable(target)))

    def categories(self) -> AsyncIterator[CategoryIdentifier]:
        return self._items(self._storage.category_pages())

    async def watermark(self) -> Watermark:
        return await self._run(self._storage.watermark)

    async def flush(self) -> None:
        await self._run(self._session_storage.flush)
