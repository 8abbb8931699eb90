"""Storage of projections in memory: for tests, and as the measure of what the query language means."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from msgspec.structs import replace

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
from eventstore_sa.query.records import ProjectionRecord, record_of, unexpected_version

__all__ = ["InMemoryProjectionStorageAdapter", "SyncInMemoryProjectionStorageAdapter"]


class _Projections:
    """Projections by their keys, in the order in which they were first saved; safe from several threads."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], ProjectionRecord] = {}
        self._lock = Lock()

    def save(self, records: Sequence[ProjectionRecord], expected: int | None = None) -> list[int]:
        with self._lock:
            return [self._save(record, expected) for record in records]

    def _save(self, record: ProjectionRecord, expected: int | None) -> int:
        key = (record.name, record.id)
        stored = self._records.get(key)
        version = stored.version if stored is not None else 0
        if expected is not None and expected != version:
            raise unexpected_version(record, expected=expected, actual=version)
        source = stored.source if stored is not None else record.source
        self._records[key] = replace(record, source=source, version=version + 1)
        return version + 1

    def delete(self, name: str, id: str) -> bool:
        with self._lock:
            return self._records.pop((name, id), None) is not None

    def all(self) -> list[ProjectionRecord]:
        with self._lock:
            return list(self._records.values())

    def clear(self) -> None:
        with self._lock:
            self._records.clear()


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
    """Keeps projections in memory, for stores without asyncio."""

    def __init__(self) -> None:
        self._projections = _Projections()
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

    def drop_schema(self) -> None:
        self._projections.clear()

    def _found(self, search: Search) -> list[ProjectionRecord]:
        return Evaluation(self.evaluators).found(self._projections.all(), search, ProjectionRecord.document)


class InMemoryProjectionStorageAdapter(_Registering, ProjectionStorageAdapter):
    """Keeps projections in memory; serves both kinds of stores, see `sync_adapter`."""

    def __init__(self) -> None:
        self.sync_adapter: SyncInMemoryProjectionStorageAdapter = SyncInMemoryProjectionStorageAdapter()
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

    async def drop_schema(self) -> None:
        self.sync_adapter.drop_schema()
