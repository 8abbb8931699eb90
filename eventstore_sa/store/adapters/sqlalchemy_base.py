"""What the asyncio and the synchronous SQLAlchemy adapter have in common: everything that does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.contracts.inline_projections import InlineProjection, Projections, combined
from eventstore_sa.errors import ConfigurationError, TransactionError
from eventstore_sa.persistence.events.conditions import ConditionEvaluator, ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverter, ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.projections.publishes import update_projections
from eventstore_sa.persistence.projections.rebuilds import SQLRebuildStorage
from eventstore_sa.persistence.schema import EventStoreSchema, default_schema
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, Locking
from eventstore_sa.persistence.transactions.binds import Bind
from eventstore_sa.publishing import StreamPublication, keyed_results, publications
from eventstore_sa.session import CommitCallback, SessionStorage, StagedPublish
from eventstore_sa.sources.constraints import QueryConstraint
from eventstore_sa.store.adapters.base import STAGING_NEEDS_A_SESSION, AnyStreamPublishDefinition
from eventstore_sa.store.adapters.binding import BoundTo
from eventstore_sa.store.adapters.bound import BoundAdapter
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier
from eventstore_sa.types.numbers import checked_count

__all__ = ["SQLAlchemyAdapterBase", "StorageOptions"]

C = TypeVar("C", bound=QueryConstraint)


class StorageOptions(Struct, frozen=True):
    """What an adapter shares with those that it makes for sessions."""

    schema: EventStoreSchema
    page_size: int
    stall_warning_s: float
    evaluators: ConditionEvaluators
    constraint_converters: ConstraintConverters
    projections: Projections = ()

    @classmethod
    def of(
        cls,
        *,
        schema: EventStoreSchema | None,
        locking: Locking | None,
        serialisation_guarantee: EventSerialisationGuarantee | None,
        page_size: int,
        stall_warning_s: float,
        constraint_converters: ConstraintConverters | None,
    ) -> StorageOptions:
        """Take the arguments of an adapter.

        Raises:
            ConfigurationError: There is no such mode of locking, the schema has another, or pages cannot be of that size.
        """
        if schema is not None:
            _check_agreement(schema, "locking", locking)
            _check_agreement(schema, "serialisation_guarantee", serialisation_guarantee)
        return cls(
            default_schema(locking, serialisation_guarantee) if schema is None else schema,
            checked_count("page_size", page_size),
            stall_warning_s,
            ConditionEvaluators(),
            ConstraintConverters() if constraint_converters is None else constraint_converters,
        )


def _check_agreement(schema: EventStoreSchema, option: str, given: object) -> None:
    there: object = getattr(schema, option)
    if given is not None and given != there:
        raise ConfigurationError(
            f"the store was given {option}={given!s}, and its {schema!r} has {there!s}: how writers exclude each other "
            "belongs to the schema, so give it there, and leave it out here"
        )


class SQLAlchemyAdapterBase(BoundAdapter[StorageOptions, EventStorage]):
    """Storage of events on one bind.

    Attributes:
        locking: How writers exclude each other.
        serialisation_guarantee: At which level.
    """

    store_kind = "event store"

    def _open(self, bound: BoundTo, options: StorageOptions) -> None:
        super()._open(bound, options)
        self.locking: Locking = options.schema.locking
        self.serialisation_guarantee: EventSerialisationGuarantee = options.schema.serialisation_guarantee
        self._in_session = SessionStorage.of(bound.bind, self._storage)

    def _make_storage(self, bind: Bind, options: StorageOptions) -> EventStorage:
        return EventStorage(
            bind,
            options.schema,
            page_size=options.page_size,
            evaluators=options.evaluators,
            constraint_converters=options.constraint_converters,
            update_projections=update_projections,
            stall_warning_s=options.stall_warning_s,
            projections=options.projections,
        )

    def with_projections(self, projections: Sequence[InlineProjection]) -> Self:
        """Return an adapter on the same bind whose publishes update projections, besides those of this one."""
        inline = combined([*self._options.projections, *projections])
        return self._bound_to(self._bound, replace(self._options, projections=inline))

    def register_constraint(self, constraint_type: type[C], converter: ConstraintConverter[C]) -> None:
        """Say how constraints of a type of your own, and of its subclasses, are translated to SQL.

        The same holds in the stores that `within` returns.

        Args:
            constraint_type: A subclass of `QueryConstraint`.
            converter: Called with a constraint and the table of events; returns a condition on its rows, which must
                agree with the constraint's `met_by`.

        Raises:
            ConfigurationError: The type is no constraint, or a built-in one.
        """
        self._options.constraint_converters.register(constraint_type, converter)

    def register_condition(self, condition: type[WriteCondition], evaluate: ConditionEvaluator) -> None:
        """Say how conditions of a type of the application's own are checked.

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
        """Have events stored when the session's transaction commits; see `EventStorageAdapter.stage`."""
        storage = self._session_storage
        parts = publications(target=target, events=events, condition=condition, streams=streams)
        return storage.stage(parts, lambda results: keyed_results(streams, results))

    def after_commit(self, callback: CommitCallback) -> None:
        """Have a function called after the commit; see `EventStorageAdapter.after_commit`."""
        self._session_storage.after_commit(callback)

    def rebuild_storage(self, name: str) -> SQLRebuildStorage:
        """Return what rebuilds the projections of a name; see `EventStorageAdapter.rebuild_storage`."""
        return SQLRebuildStorage(self.bind, self.schema, name)

    @property
    def _publish(self) -> Callable[[Sequence[StreamPublication]], list[list[AnyStoredEvent]]]:
        storage = self._storage
        return storage.publish if self._in_session is None else self._in_session.publish_at_once

    @property
    def _session_storage(self) -> SessionStorage:
        _ = self._storage
        if self._in_session is None:
            raise TransactionError(STAGING_NEEDS_A_SESSION)
        return self._in_session
