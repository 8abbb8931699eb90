"""Storage adapters for events in the memory of this process: for tests, demos and code that needs no database.

The two adapters, with asyncio and without, are thin faces of `memory_storage.py`, so that both kinds of stores can share
one storage. Nothing outlives the process, and events here cannot be part of a session's transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Self

from eventstore_sa.conditions import WriteCondition
from eventstore_sa.contracts.inline_projections import InlineProjection, Projections, combined
from eventstore_sa.contracts.wakeups import Wakeups
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.sources.constraints import QueryConstraints
from eventstore_sa.store.adapters.event_contract import (
    AnyStreamPublishDefinition,
    AwaitableEventStorageAdapter,
    Latestable,
    Listable,
    Scannable,
    SyncEventStorageAdapter,
)
from eventstore_sa.store.adapters.memory_projections import InMemoryProjections
from eventstore_sa.store.adapters.memory_rebuilds import InMemoryRebuildStorage
from eventstore_sa.store.adapters.memory_storage import InMemoryConditionEvaluator, InMemoryEventStorage
from eventstore_sa.store.adapters.memory_subscriptions import InMemorySubscriptionStorage
from eventstore_sa.types import AnyNewEvent, AnyStoredEvent, CategoryIdentifier, LogIdentifier, StreamIdentifier

__all__ = ["InMemoryEventStorageAdapter", "SyncInMemoryEventStorageAdapter"]


class SyncInMemoryEventStorageAdapter(SyncEventStorageAdapter):
    """Events in the memory of this process, used without asyncio: the twin of `InMemoryEventStorageAdapter`.

    Args:
        storage: Where the events are kept; by default a storage of its own. Adapters may share one.
        projections: Inline projections, as `with_projections` gives them.
    """

    def __init__(self, storage: InMemoryEventStorage | None = None, *, projections: Projections = ()) -> None:
        self._storage = InMemoryEventStorage() if storage is None else storage
        self._inline = projections

    def register_condition(self, condition: type[WriteCondition], evaluate: InMemoryConditionEvaluator) -> None:
        """Register how your own conditions of a type are checked; see `InMemoryEventStorageAdapter`."""
        self._storage.register_condition(condition, evaluate)

    @property
    def projections(self) -> InMemoryProjections:
        """The projections that are kept beside the events."""
        return self._storage.projections

    def rebuild_storage(self, name: str) -> InMemoryRebuildStorage:
        return InMemoryRebuildStorage(self._storage, name)

    def subscription_storage(self) -> InMemorySubscriptionStorage:
        return InMemorySubscriptionStorage(self._storage)

    @property
    def wakeups(self) -> Wakeups:
        return self._storage.wakeups

    def with_projections(self, projections: Sequence[InlineProjection]) -> Self:
        return type(self)(self._storage, projections=_fit_for_memory(combined([*self._inline, *projections])))

    def save(
        self,
        *,
        target: StreamIdentifier | CategoryIdentifier | LogIdentifier,
        events: Sequence[AnyNewEvent] | None = None,
        condition: WriteCondition | None = None,
        streams: Mapping[Any, AnyStreamPublishDefinition] | None = None,
    ) -> Any:
        return self._storage.save(
            target=target, events=events, condition=condition, streams=streams, projections=self._inline
        )

    def save_parts(self, parts: Sequence[StreamPublication]) -> None:
        self._storage.publish(parts, self._inline)

    def latest(self, *, target: Latestable) -> AnyStoredEvent | None:
        return self._storage.latest(target=target)

    def scan(
        self,
        *,
        target: Scannable = LogIdentifier(),  # noqa: B008 - an immutable value
        constraints: QueryConstraints = frozenset(),
        limit: int | None = None,
        backwards: bool = False,
    ) -> Iterator[AnyStoredEvent]:
        return self._storage.scan(target=target, constraints=constraints, limit=limit, backwards=backwards)

    def scan_text(
        self, *, target: Scannable, constraints: QueryConstraints, limit: int | None, backwards: bool
    ) -> Iterator[AnyStoredEvent]:
        return self._storage.scan(
            target=target, constraints=constraints, limit=limit, backwards=backwards, as_text=True
        )

    def streams(self, *, target: Listable = LogIdentifier()) -> Iterator[StreamIdentifier]:  # noqa: B008
        return self._storage.streams(target)

    def categories(self) -> Iterator[CategoryIdentifier]:
        return self._storage.categories()

    def add_tags(self, added: Mapping[int, AbstractSet[str]]) -> int:
        return self._storage.add_tags(added)

    def tags_epoch(self, *, current: bool = False) -> str:
        return self._storage.tags_epoch

    def drop_schema(self) -> None:
        self._storage.clear()


class InMemoryEventStorageAdapter(AwaitableEventStorageAdapter[SyncInMemoryEventStorageAdapter]):
    """Events in the memory of this process, used with asyncio; serves both kinds of stores, see `sync_adapter`.

    Safe to use from any number of tasks, event loops and threads at once. A scan returns what is stored when `scan` is
    called: what is published meanwhile neither appears in it nor disturbs it. Each read returns
    new copies of the events. Each call first yields to the event loop, so that concurrent tasks meet as they would over a
    database. `drop_schema` forgets all events.

    Args:
        storage: Where the events are kept; by default a storage of its own. Adapters may share one.
        projections: Inline projections, as `with_projections` gives them.
    """

    def __init__(self, storage: InMemoryEventStorage | None = None, *, projections: Projections = ()) -> None:
        super().__init__(SyncInMemoryEventStorageAdapter(storage, projections=projections))

    def register_condition(self, condition: type[WriteCondition], evaluate: InMemoryConditionEvaluator) -> None:
        """Register how your own conditions of a type are checked; for all adapters of the storage.

        Args:
            condition: The type; exactly this one.
            evaluate: Called with the condition and an `InMemoryConditionContext`; returns whether it is met. It may be
                called several times for one publish.
        """
        self.sync_adapter.register_condition(condition, evaluate)

    @property
    def projections(self) -> InMemoryProjections:
        """The projections that are kept beside the events."""
        return self.sync_adapter.projections


def _fit_for_memory(projections: Projections) -> Projections:
    for projection in projections:
        if projection.needs_session:
            raise ConfigurationError(
                f"projection {projection.name!r} works on a database session, but this store keeps its events in "
                "memory: use a store on a SQLAlchemy bind, such as SQLite"
            )
    return projections
