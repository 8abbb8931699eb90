"""Storage of projections in memory: for tests, and as the measure of what the query language means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from eventstore_sa.contracts.projection_records import ProjectionRecord, record_of
from eventstore_sa.projection.adapters.base import (
    AnyProjection,
    JsonProjection,
    ProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    checked_expectation,
    distinct_records,
    one_at_most,
    search_for_two,
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
from eventstore_sa.store.adapters.memory_projections import InMemoryProjections

__all__ = ["InMemoryProjectionStorageAdapter", "SyncInMemoryProjectionStorageAdapter"]


class _Registering:
    """Registers what of queries is the application's own."""

    evaluators: QueryEvaluators

    def register_filter(self, kind: type[CustomFilter], evaluator: FilterEvaluator) -> None:
        """Say what filters of a type of your own, and of its subclasses, mean.

        Args:
            kind: A subclass of `CustomFilter`.
            evaluator: Called with a filter and a projection, as plain JSON by field; tells whether it meets the filter.

        Raises:
            ConfigurationError: It is no such type.
        """
        self.evaluators.register_filter(kind, evaluator)

    def register_operator(self, operator: CustomOperator, evaluator: OperatorEvaluator) -> None:
        """Say what clauses with an operator of your own mean.

        Args:
            operator: The operator.
            evaluator: Called with what is stored (None where nothing is) and with the value of a clause, both plain JSON;
                tells whether the clause holds.

        Raises:
            ConfigurationError: It is no CustomOperator.
        """
        self.evaluators.register_operator(operator, evaluator)

    def register_function(self, kind: type[CustomFunction], evaluator: FunctionEvaluator) -> None:
        """Say what functions of a type of your own, and of its subclasses, return.

        Args:
            kind: A subclass of `CustomFunction`.
            evaluator: Called with a function and a projection, as plain JSON by field; returns a number, text or None.

        Raises:
            ConfigurationError: It is no such type.
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

    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        expected = None if expected_version is None else checked_expectation(expected_version)
        return self._projections.save([record_of(projection)], expected)[0]

    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self._projections.save(distinct_records(projections))

    def delete(self, *, name: str, id: str) -> bool:
        return self._projections.delete(name, id)

    def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return one_at_most(self._found(search_for_two(lookup)))

    def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return [record.projection() for record in self._found(search)]

    def count(self, *, search: Search) -> int:
        return len(self._found(Search(filters=search.filters)))

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self._projections.load_batch(name, ids)

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self._projections.save_batch(records)

    def drop_schema(self) -> None:
        self._projections.clear()

    def _found(self, search: Search) -> list[ProjectionRecord]:
        return Evaluation(self.evaluators).found(self._projections.all(), search, ProjectionRecord.document)


class InMemoryProjectionStorageAdapter(_Registering, ProjectionStorageAdapter):
    """Keeps projections in memory; serves both kinds of stores, see `sync_adapter`.

    Args:
        projections: Where they are kept, such as the `projections` of an in-memory event store's adapter; by default
            apart from all others.
    """

    def __init__(self, projections: InMemoryProjections | None = None) -> None:
        self.sync_adapter: SyncInMemoryProjectionStorageAdapter = SyncInMemoryProjectionStorageAdapter(projections)
        """The same projections, for a `SyncProjectionStore`."""
        self.evaluators: QueryEvaluators = self.sync_adapter.evaluators

    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        return self.sync_adapter.save(projection=projection, expected_version=expected_version)

    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return self.sync_adapter.save_all(projections=projections)

    async def delete(self, *, name: str, id: str) -> bool:
        return self.sync_adapter.delete(name=name, id=id)

    async def find_one(self, *, lookup: Lookup) -> JsonProjection | None:
        return self.sync_adapter.find_one(lookup=lookup)

    async def find_many(self, *, search: Search) -> Sequence[JsonProjection]:
        return self.sync_adapter.find_many(search=search)

    async def count(self, *, search: Search) -> int:
        return self.sync_adapter.count(search=search)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return self.sync_adapter.load_batch(name=name, ids=ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return self.sync_adapter.save_batch(records=records)

    async def drop_schema(self) -> None:
        self.sync_adapter.drop_schema()
