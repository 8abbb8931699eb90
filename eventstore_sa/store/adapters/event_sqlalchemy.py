"""Storage adapters for events in a SQL database, over `persistence/events/storage.py`.

The asyncio adapter owns the synchronous one and runs it in greenlets. For what a bind may be, see `bindables.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.contracts.inline_projections import InlineProjection, Projections, combined
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.persistence.events.conditions import ConditionEvaluator, ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverter, ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.events.tags_epoch import KnownEpoch
from eventstore_sa.persistence.inspection.storage import SQLInspectionStorage
from eventstore_sa.persistence.rebuilding import SQLRebuildStorage
from eventstore_sa.persistence.restoring import Restoring
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema, schema_or_default
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking
from eventstore_sa.persistence.sqlalchemy_internals import await_in_greenlet, most_connections
from eventstore_sa.persistence.subscriptions.storage import SQLSubscriptionStorage
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.publishing import StreamPublication, keyed_results, publications
from eventstore_sa.session import CommitCallback, SessionStorage, StagedPublish
from eventstore_sa.session.connection_watch import watch
from eventstore_sa.sources.base import checked_limit
from eventstore_sa.sources.constraints import QueryConstraint, QueryConstraints, checked_constraints
from eventstore_sa.store.adapters.bindables import AsyncBindable, SyncBindable, async_bind
from eventstore_sa.store.adapters.coalescing import Coalescing, SyncCoalescing
from eventstore_sa.store.adapters.event_contract import (
    STAGING_NEEDS_A_SESSION,
    AnyStreamPublishDefinition,
    AwaitableEventStorageAdapter,
    EventStorageAdapter,
    Holdable,
    Latestable,
    Listable,
    Scannable,
    SyncEventStorageAdapter,
    checked_listable,
    checked_target,
)
from eventstore_sa.store.adapters.runners import GreenletRunner, paged
from eventstore_sa.store.adapters.sqlalchemy_adapter import AwaitableSQLAlchemyAdapter, SyncSQLAlchemyAdapter
from eventstore_sa.store.turns import Turns
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier
from eventstore_sa.types.numbers import checked_count
from eventstore_sa.types.watermark import Watermark

__all__ = ["SQLAlchemyEventStorageAdapter", "SyncSQLAlchemyEventStorageAdapter"]

_PAGE_SIZE: Final = 1000
_STALL_WARNING_S: Final = 30.0
_PATIENCE_S: Final = 0.1

C = TypeVar("C", bound=QueryConstraint)
R = TypeVar("R")


class _Options(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema
    page_size: int
    stall_warning_s: float
    evaluators: ConditionEvaluators
    constraint_converters: ConstraintConverters
    known_epoch: KnownEpoch
    projections: Projections = ()


def _tables(
    schema: EventStoreSchema | None,
    locking: Locking | None,
    serialisation_guarantee: EventSerialisationGuarantee | None,
) -> EventStoreSchema:
    """Return the tables of an adapter.

    Raises:
        ConfigurationError: If the options are invalid, or do not agree with the schema.
    """
    if schema is None:
        return default_schema(locking, serialisation_guarantee)
    schema = schema_or_default(schema)
    for option, given in (("locking", locking), ("serialisation_guarantee", serialisation_guarantee)):
        there: object = getattr(schema, option)
        if given is not None and given != there:
            raise ConfigurationError(
                f"the store was given {option}={given!s}, but its {schema!r} has {there!s}: how writers exclude each other "
                "belongs to the schema, so set it there and leave it out here"
            )
    return schema


class SyncSQLAlchemyEventStorageAdapter(SyncSQLAlchemyAdapter[_Options, EventStorage], SyncEventStorageAdapter):
    """Keeps events in a SQL database.

    Args:
        bind: An Engine, sessionmaker or URL: every publish is a transaction of its own. A Connection or Session: everything
            is part of its transaction, which the adapter never begins, commits or rolls back.
        schema: The tables; by default those of an `EventStoreSchema` with the next two options.
        locking: How writers exclude each other; must agree with `schema` if that is given. See `EventStoreSchema`.
        serialisation_guarantee: At which level they do; must agree with `schema` likewise.
        page_size: How many events a scan fetches at a time.
        stall_warning_s: After how many seconds a warning is logged that an open transaction holds readers of the log back.
        constraint_converters: How your own constraints are translated to SQL, if several adapters share that; see
            `register_constraint`.
        coalesce: Whether publishes that are made at the same time travel to PostgreSQL together; see `EventStore`.

    Raises:
        ConfigurationError: If the bind cannot be used, its driver is not installed, or the schema has another locking mode.
    """

    _store_kind = "event store"

    def __init__(
        self,
        bind: SyncBindable | Bind,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        page_size: int = _PAGE_SIZE,
        stall_warning_s: float = _STALL_WARNING_S,
        constraint_converters: ConstraintConverters | None = None,
        coalesce: bool | None = None,
    ) -> None:
        options = _Options(
            _tables(schema, locking, serialisation_guarantee),
            checked_count("page_size", page_size),
            stall_warning_s,
            ConditionEvaluators(),
            ConstraintConverters() if constraint_converters is None else constraint_converters,
            KnownEpoch(),
        )
        self._coalescing = SyncCoalescing() if coalesce else None
        self._turns = Turns()
        super().__init__(bind, options)

    def _open(self, bind: Bind, options: _Options) -> None:
        super()._open(bind, options)
        self.locking: Locking = options.schema.locking
        self.serialisation_guarantee: EventSerialisationGuarantee = options.schema.serialisation_guarantee
        self._in_session = SessionStorage.of(bind, self._storage)

    def _make_storage(self, bind: Bind, options: _Options) -> EventStorage:
        return EventStorage(
            bind,
            options.schema,
            page_size=options.page_size,
            evaluators=options.evaluators,
            constraint_converters=options.constraint_converters,
            stall_warning_s=options.stall_warning_s,
            projections=options.projections,
            known_epoch=options.known_epoch,
        )

    @property
    def storage(self) -> EventStorage:
        """The events.

        Raises:
            ConfigurationError: If the adapter is closed.
        """
        return self._storage

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

    def save_parts(self, parts: Sequence[StreamPublication]) -> None:
        self._publish(parts)

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
        return self._scan(target, constraints, limit, backwards=backwards, as_text=False)

    def scan_text(
        self, *, target: Scannable, constraints: QueryConstraints, limit: int | None, backwards: bool
    ) -> Iterator[AnyStoredEvent]:
        return self._scan(target, constraints, limit, backwards=backwards, as_text=True)

    def _scan(
        self, target: Scannable, constraints: QueryConstraints, limit: int | None, *, backwards: bool, as_text: bool
    ) -> Iterator[AnyStoredEvent]:
        pages = self._storage.pages(
            checked_target(target),
            constraints=checked_constraints(constraints),
            limit=checked_limit(limit),
            backwards=backwards,
            as_text=as_text,
        )
        return paged(pages, ahead=True)

    def streams(self, *, target: Listable = LogIdentifier()) -> Iterator[StreamIdentifier]:  # noqa: B008
        return paged(self._storage.stream_pages(checked_listable(target)))

    def categories(self) -> Iterator[CategoryIdentifier]:
        return paged(self._storage.category_pages())

    def find_text(
        self, *, ids: Collection[UUID] = (), sequence_numbers: Collection[int] = ()
    ) -> Sequence[AnyStoredEvent]:
        by_id = self._storage.find_text(list(ids), []) if ids else []
        return [*by_id, *(self._storage.find_text([], list(sequence_numbers)) if sequence_numbers else [])]

    def watermark(self) -> Watermark:
        return self._storage.watermark()

    def flush(self) -> None:
        self._session_storage.flush()

    def with_projections(self, projections: Sequence[InlineProjection]) -> Self:
        inline = combined([*self._options.projections, *projections])
        return self._reopened(self._bind, replace(self._options, projections=inline))

    def register_constraint(self, constraint_type: type[C], converter: ConstraintConverter[C]) -> None:
        """Register how your own constraints of a type, and of its subclasses, are translated to SQL.

        It applies to the stores that `within` returns as well.

        Args:
            constraint_type: A subclass of `QueryConstraint`.
            converter: Called with a constraint and the table of events; returns a condition on its rows, which must
                agree with the constraint's `met_by`.

        Raises:
            ConfigurationError: If the type is not a constraint, or a built-in one.
        """
        self._options.constraint_converters.register(constraint_type, converter)

    def register_condition(self, condition: type[WriteCondition], evaluate: ConditionEvaluator) -> None:
        """Register how your own conditions of a type are checked.

        Args:
            condition: The type; exactly this one.
            evaluate: Called with the condition and a `ConditionContext` while the locks of the publish are held; returns a
                SQL expression or a bool. It is synchronous, and runs its own SQL on `context.connection`.
        """
        self._options.evaluators.register(condition, evaluate)

    def stage(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> StagedPublish[Any]:
        storage = self._session_storage
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        return storage.stage(parts, lambda results: keyed_results(streams, results))

    def after_commit(self, callback: CommitCallback) -> None:
        self._session_storage.after_commit(callback)

    def boundary_of(self, tags: AbstractSet[str]) -> AbstractSet[str]:
        return self._options.schema.locking_mode.boundary_of(tags)

    def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        return self._storage.add_tags(added)

    def tags_epoch(self, *, current: bool = False) -> str:
        return self._storage.tags_epoch(current=current)

    def rebuild_storage(self, name: str) -> SQLRebuildStorage:
        return SQLRebuildStorage(self.bind, self.schema, name)

    def subscription_storage(self) -> SQLSubscriptionStorage:
        return SQLSubscriptionStorage(self.bind, self._storage)

    def inspection_storage(self) -> SQLInspectionStorage:
        return SQLInspectionStorage(self.bind, self._storage)

    def restoring(self) -> Restoring:
        """Return what stores events with the numbers that they had elsewhere.

        Raises:
            ConfigurationError: If it cannot be done here.
        """
        return Restoring(self.bind, self.schema)

    @property
    def wakeups(self) -> Wakeups:
        return self.schema.wakeups

    @property
    def turns(self) -> Turns | None:
        return self._turns

    @property
    def locks_streams(self) -> bool:
        """Whether a stream can be locked for more than one statement, and there is a connection left for other work then."""
        own = self.bind.engine_bind
        if own is None or own.engine.dialect.name != "postgresql":
            return False
        connections = most_connections(own.engine.pool)
        return connections is None or connections > 1

    def locked(self, held: Holdable, work: Callable[[SyncEventStorageAdapter], R]) -> R:
        if not self.locks_streams:
            return work(self)

        def within(bind: Bind) -> R:
            return work(self._reopened(bind, self._options))

        if isinstance(held, StreamIdentifier):
            return self._storage.locked(publications(target=held, events=()), within)
        return self._storage.locked(publications(target=LogIdentifier(), streams=held), within, patience_s=_PATIENCE_S)

    @property
    def _publish(self) -> Callable[[Sequence[StreamPublication]], list[list[AnyStoredEvent]]]:
        storage = self._storage
        if self._in_session is not None:
            return self._in_session.publish_at_once
        if self.bind.in_transaction:
            return self._publish_on_connection
        if self._coalescing is not None:
            return partial(self._coalescing.publish, storage, self._bind)
        return storage.publish

    def _publish_on_connection(self, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        """Publish in the transaction of a connection of the caller's, and tell those who wait once it is committed."""
        results = self._storage.publish(parts)
        if self.wakeups.is_heard:
            with self.bind.reading() as scope:
                watch(scope.connection).add(when_durable=self.wakeups.wake)
        return results

    @property
    def _session_storage(self) -> SessionStorage:
        _ = self._storage
        if self._in_session is None:
            raise TransactionError(STAGING_NEEDS_A_SESSION)
        return self._in_session


class SQLAlchemyEventStorageAdapter(
    AwaitableSQLAlchemyAdapter[SyncSQLAlchemyEventStorageAdapter],
    AwaitableEventStorageAdapter[SyncSQLAlchemyEventStorageAdapter],
):
    """Keeps events in a SQL database; used with asyncio.

    Args:
        bind: An AsyncEngine, async_sessionmaker or URL: every publish is a transaction of its own. An AsyncConnection or
            AsyncSession: all is done in its transaction, which is never begun, committed or rolled back here.
        schema: The tables; by default those of an `EventStoreSchema` with the next two options.
        locking: How writers exclude each other; must agree with `schema` if that is given. See `EventStoreSchema`.
        serialisation_guarantee: At which level they do; must agree with `schema` likewise.
        page_size: How many events a scan fetches at a time.
        stall_warning_s: After how many seconds a warning is logged that an open transaction holds readers of the log back.
        constraint_converters: How your own constraints are translated to SQL, if several adapters share that; see
            `register_constraint`.
        coalesce: Whether publishes that are made at the same time travel to PostgreSQL together; see `EventStore`.

    Raises:
        ConfigurationError: If the bind cannot be used, its driver is not installed, or the schema has another locking mode.
    """

    def __init__(
        self,
        bind: AsyncBindable | Bind,
        *,
        schema: EventStoreSchema | None = None,
        locking: Locking | None = None,
        serialisation_guarantee: EventSerialisationGuarantee | None = None,
        page_size: int = _PAGE_SIZE,
        stall_warning_s: float = _STALL_WARNING_S,
        constraint_converters: ConstraintConverters | None = None,
        coalesce: bool | None = None,
    ) -> None:
        tables = _tables(schema, locking, serialisation_guarantee)
        sync_adapter = SyncSQLAlchemyEventStorageAdapter(
            async_bind(bind, tables),
            schema=tables,
            page_size=page_size,
            stall_warning_s=stall_warning_s,
            constraint_converters=constraint_converters,
        )
        super().__init__(sync_adapter, bind)
        self._coalescing = Coalescing(self._greenlets) if coalesce else None
        self.locking: Locking = tables.locking
        self.serialisation_guarantee: EventSerialisationGuarantee = tables.serialisation_guarantee

    async def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        if self._coalescing is None or self.in_transaction:
            return await super().save(target=target, events=events, condition=condition, streams=streams)
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        publish = self._coalescing.publish
        return keyed_results(streams, await publish(self.sync_adapter.storage, self.bind, parts))

    async def aclose(self) -> None:
        self.sync_adapter.close()
        if self._coalescing is not None and not self.in_transaction:
            await self._coalescing.end()
        await super().aclose()

    async def locked(self, held: Holdable, work: Callable[[EventStorageAdapter], Awaitable[R]]) -> R:
        if not self.sync_adapter.locks_streams:
            return await work(self)

        def in_greenlet(adapter: SyncEventStorageAdapter) -> R:
            within: Any = adapter
            return await_in_greenlet(work(self._over(within, GreenletRunner(within.bind))))

        return await self._runner.run(self.sync_adapter.locked, held, in_greenlet)

    def register_constraint(self, constraint_type: type[C], converter: ConstraintConverter[C]) -> None:
        """Register how your own constraints are translated; see `SyncSQLAlchemyEventStorageAdapter.register_constraint`."""
        self.sync_adapter.register_constraint(constraint_type, converter)

    def register_condition(self, condition: type[WriteCondition], evaluate: ConditionEvaluator) -> None:
        """Register how your own conditions are checked; see `SyncSQLAlchemyEventStorageAdapter.register_condition`."""
        self.sync_adapter.register_condition(condition, evaluate)
