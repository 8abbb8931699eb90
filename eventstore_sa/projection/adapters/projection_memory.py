"""Storage adapters for projections in memory: for tests, and as the reference for what the query language means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Self

from eventstore_sa.contracts.projection_records import ProjectionRecord, record_of
from eventstore_sa.projection.adapters.projection_contract import (
    AnyProjection,
    AwaitableProjectionStorageAdapter,
    Metadata,
    State,
    SyncProjectionStorageAdapter,
    checked_expectation,
    distinct_records,
    nothing_beside,
    one_at_most,
    search_for_two,
    typed_projection,
    typed_projections,
)
from eventstore_sa.query import CustomFilter, CustomFunction, CustomOperator, Lookup, Search
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.evaluation import (
    Evaluation,
    FilterEvaluator,
    FunctionEvaluator,
    OperatorEvaluator,
    QueryEvaluators,
)
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters.event_memory import InMemoryEventStorageAdapter, SyncInMemoryEventStorageAdapter
from eventstore_sa.store.adapters.memory_projections import InMemoryProjections
from eventstore_sa.types import JsonValueType, Projection

__all__ = ["InMemoryProjectionStorageAdapter", "SyncInMemoryProjectionStorageAdapter"]


class _Registering:
    """Registers the application's own filters, operators and functions."""

    evaluators: QueryEvaluators

    def register_filter(self, kind: type[CustomFilter], evaluator: FilterEvaluator) -> None:
        """Register what filters of a type of your own, and of its subclasses, mean.

        Args:
            kind: A subclass of `CustomFilter`.
            evaluator: Called with a filter and a projection, as plain JSON by field; returns whether it meets the filter.

        Raises:
            ConfigurationError: If it is not such a type.
        """
        self.evaluators.register_filter(kind, evaluator)

    def register_operator(self, operator: CustomOperator, evaluator: OperatorEvaluator) -> None:
        """Register what clauses with an operator of your own mean.

        Args:
            operator: The operator.
            evaluator: Called with what is stored (None where nothing is) and with the value of a clause, both plain JSON;
                returns whether the clause holds.

        Raises:
            ConfigurationError: If it is not a CustomOperator.
        """
        self.evaluators.register_operator(operator, evaluator)

    def register_function(self, kind: type[CustomFunction], evaluator: FunctionEvaluator) -> None:
        """Register what functions of a type of your own, and of its subclasses, return.

        Args:
            kind: A subclass of `CustomFunction`.
            evaluator: Called with a function and a projection, as plain JSON by field; returns a number, text or None.

        Raises:
            ConfigurationError: If it is not such a type.
        """
        self.evaluators.register_function(kind, evaluator)


class SyncInMemoryProjectionStorageAdapter(_Registering, SyncProjectionStorageAdapter):
    """Keeps projections in memory, for stores without asyncio.

    Args:
        projections: Where they are kept, such as the `projections` of an in-memory event store's adapter; by default
            apart from all others.
    """

    def __init__(self, projections: InMemoryProjections | None = None) -> None:
        self._projections = InMemoryProjections() if projections is None else projections
        self.evaluators: QueryEvaluators = QueryConverters()

    @classmethod
    def of_store(cls, store: SyncEventStore) -> Self:
        """Return an adapter for the projections beside the events of a store in memory.

        Raises:
            ConfigurationError: If the store does not keep its events in memory.
        """
        if not isinstance(store.adapter, SyncInMemoryEventStorageAdapter):
            raise nothing_beside(store.adapter)
        return cls(store.adapter.projections)

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        expected = None if expected_version is None else checked_expectation(expected_version)
        return self._projections.save([record_of(projection)], expected)[0]

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._projections.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._projections.delete(name, id)

    def find_one(
        self,
        *,
        lookup: Lookup,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        return typed_projection(one_at_most(self._found(search_for_two(lookup))), state_type, metadata_type)

    def find_many(
        self,
        *,
        search: Search,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        found = [record.projection() for record in self._found(search)]
        return typed_projections(found, state_type, metadata_type)

    def count(self, *, search: Search) -> int:
        return len(self._found(Search(filters=search.filters)))

    def name_page(self, *, after: str | None = None, size: int) -> Sequence[str]:
        names = {record.name for record in self._projections.all()}
        return sorted(name for name in names if after is None or name > after)[:size]

    def record_page(self, *, name: str, after: str | None = None, size: int) -> tuple[Sequence[ProjectionRecord], bool]:
        found = sorted(
            (each for each in self._projections.all() if each.name == name and (after is None or each.id > after)),
            key=lambda record: record.id,
        )
        return found[:size], len(found) > size

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._projections.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._projections.save_batch(records)

    def drop_schema(self) -> None:
        self._projections.clear()

    def _found(self, search: Search) -> list[ProjectionRecord]:
        return Evaluation(self.evaluators).found(self._projections.all(), search, ProjectionRecord.document)


class InMemoryProjectionStorageAdapter(
    _Registering, AwaitableProjectionStorageAdapter[SyncInMemoryProjectionStorageAdapter]
):
    """Keeps projections in memory; serves both kinds of stores, see `sync_adapter`.

    Args:
        projections: Where they are kept, such as the `projections` of an in-memory event store's adapter; by default
            apart from all others.
    """

    def __init__(self, projections: InMemoryProjections | None = None) -> None:
        super().__init__(SyncInMemoryProjectionStorageAdapter(projections))
        self.evaluators: QueryEvaluators = self.sync_adapter.evaluators

    @classmethod
    def of_store(cls, store: EventStore) -> Self:
        """Return an adapter for the projections beside the events of a store in memory.

        Raises:
            ConfigurationError: If the store does not keep its events in memory.
        """
        if not isinstance(store.adapter, InMemoryEventStorageAdapter):
            raise nothing_beside(store.adapter)
        return cls(store.adapter.projections)
