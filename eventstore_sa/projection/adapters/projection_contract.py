"""The contract of storage adapters for projections, with asyncio and without, and what all implementations check alike.

The asyncio adapter over a synchronous one is here too. Third parties implement the contract and run the shipped cases over
their adapter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from typing_extensions import TypeVar

from eventstore_sa.contracts.projection_records import ProjectionRecord, record_of
from eventstore_sa.errors import ConfigurationError, QueryError
from eventstore_sa.query import FilterExpression, Lookup, OffsetPagingClause, Search, SortClause
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter, StorageAdapter, SyncStorageAdapter
from eventstore_sa.types import JsonValue, JsonValueType, Projection, deserialise_projection

__all__ = [
    "AnyProjection",
    "AwaitableProjectionStorageAdapter",
    "JsonProjection",
    "ProjectionStorageAdapter",
    "SyncProjectionStorageAdapter",
    "checked_expectation",
    "distinct_records",
    "nothing_beside",
    "one_at_most",
    "search_for_two",
    "typed_projection",
    "typed_projections",
]

AnyProjection: TypeAlias = Projection[Any, Any]
JsonProjection: TypeAlias = Projection[JsonValue, JsonValue]

State = TypeVar("State", default=JsonValue)
Metadata = TypeVar("Metadata", default=JsonValue)

_NO_LISTS: Final = "{} cannot list the projections that it keeps"
_NO_BATCHES = "{} cannot apply events to its projections: it lacks load_batch and save_batch"


class ProjectionStorageAdapter(StorageAdapter):
    """Keeps projections; used with asyncio.

    Saving a key (name and id) again replaces state and metadata; the source stays, and so does the position among results
    without a sort. Projections are returned with their version.
    """

    @abstractmethod
    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        """Save a projection; return its new version, which is 1 for a new one and then counts up.

        Args:
            projection: The projection; its own version is ignored.
            expected_version: Save only over this version; 0: only if there is none; None: in any case.

        Raises:
            ProjectionVersionError: If another version is stored. Nothing is saved then.
            SerialisationError: If a value cannot be stored exactly. Nothing is saved then.
        """

    @abstractmethod
    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        """Save projections, all or none; return their new versions in the same order.

        Raises:
            ConfigurationError: If a key is given twice. Nothing is saved then.
            SerialisationError: If a value cannot be stored exactly. Nothing is saved then.
        """

    @abstractmethod
    async def delete(self, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""

    @abstractmethod
    async def find_one(
        self,
        *,
        lookup: Lookup,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection that meets all filters; None if there is none.

        Args:
            lookup: The filters.
            state_type: The type to convert the state to, as `typed_projection` does; JSON by default.
            metadata_type: The type to convert the metadata to; JSON by default.

        Raises:
            QueryError: If there are several, or a filter cannot be evaluated.
            SerialisationError: If state or metadata are not of these types.
        """

    @abstractmethod
    async def find_many(
        self,
        *,
        search: Search,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        """Return the projections that a search finds: filtered, then sorted, then one page of them.

        Args:
            search: What to find.
            state_type: As for `find_one`.
            metadata_type: As for `find_one`.

        Raises:
            QueryError: If the search cannot be answered.
            SerialisationError: If a state or metadata are not of these types.
        """

    async def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> AsyncIterator[JsonProjection]:
        """Iterate over all projections that meet the filters, sorted as `find_many` does.

        An adapter for a database fetches them in pages, each from a snapshot of its own, and holds no connection in between.

        Raises:
            QueryError: If the search cannot be answered.
        """
        for projection in await self.find_many(search=Search(filters=filters, sort=sort)):
            yield projection

    @abstractmethod
    async def count(self, *, search: Search) -> int:
        """Count the projections that meet all filters, whatever the paging.

        Raises:
            QueryError: If a filter cannot be evaluated.
        """

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return the stored projections of a name by id, in the form that `save_batch` takes.

        Raises:
            ConfigurationError: If this storage cannot apply events to projections.
        """
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with, or 0; return how many were saved.

        Each is saved on its own: those that another writer has saved meanwhile are left alone.

        Raises:
            ConfigurationError: If this storage cannot apply events to projections.
        """
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))


class SyncProjectionStorageAdapter(SyncStorageAdapter):
    """Keeps projections; the twin of `ProjectionStorageAdapter` without asyncio."""

    @abstractmethod
    def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        """Save a projection; see `ProjectionStorageAdapter.save`."""

    @abstractmethod
    def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        """Save projections, all or none; see `ProjectionStorageAdapter.save_all`."""

    @abstractmethod
    def delete(self, *, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""

    @abstractmethod
    def find_one(
        self,
        *,
        lookup: Lookup,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        """Return the projection that meets all filters; see `ProjectionStorageAdapter.find_one`."""

    @abstractmethod
    def find_many(
        self,
        *,
        search: Search,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        """Return the projections that a search finds; see `ProjectionStorageAdapter.find_many`."""

    def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> Iterator[JsonProjection]:
        """Iterate over all projections that meet the filters; see `ProjectionStorageAdapter.scan`."""
        yield from self.find_many(search=Search(filters=filters, sort=sort))

    @abstractmethod
    def count(self, *, search: Search) -> int:
        """Count the projections that meet all filters, whatever the paging."""

    def name_page(self, *, after: str | None = None, size: int) -> Sequence[str]:
        """Return up to `size` names of projections in code-point order, those above `after`; for tools.

        Raises:
            ConfigurationError: If this storage cannot list them.
        """
        raise ConfigurationError(_NO_LISTS.format(type(self).__name__))

    def record_page(self, *, name: str, after: str | None = None, size: int) -> tuple[Sequence[ProjectionRecord], bool]:
        """Return up to `size` projections of a name in the order of their ids, those above `after`; for tools.

        Returns:
            The projections, fewer if they are large, and whether there may be more.

        Raises:
            ConfigurationError: If this storage cannot list them.
        """
        raise ConfigurationError(_NO_LISTS.format(type(self).__name__))

    def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return the projections of a name that are there, by id; see `ProjectionStorageAdapter.load_batch`."""
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))

    def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with; see `ProjectionStorageAdapter.save_batch`."""
        raise ConfigurationError(_NO_BATCHES.format(type(self).__name__))


S = TypeVar("S", bound=SyncProjectionStorageAdapter, default=SyncProjectionStorageAdapter)


class AwaitableProjectionStorageAdapter(AwaitableStorageAdapter[S], ProjectionStorageAdapter):
    """Storage of projections, used with asyncio, over a synchronous adapter that it owns."""

    async def save(self, *, projection: AnyProjection, expected_version: int | None = None) -> int:
        return await self._runner.run(self.sync_adapter.save, projection=projection, expected_version=expected_version)

    async def save_all(self, *, projections: Sequence[AnyProjection]) -> Sequence[int]:
        return await self._runner.run(self.sync_adapter.save_all, projections=projections)

    async def delete(self, *, name: str, id: str) -> bool:
        return await self._runner.run(self.sync_adapter.delete, name=name, id=id)

    async def find_one(
        self,
        *,
        lookup: Lookup,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Projection[State, Metadata] | None:
        return await self._runner.run(
            self.sync_adapter.find_one, lookup=lookup, state_type=state_type, metadata_type=metadata_type
        )

    async def find_many(
        self,
        *,
        search: Search,
        state_type: type[State] = JsonValueType,
        metadata_type: type[Metadata] = JsonValueType,
    ) -> Sequence[Projection[State, Metadata]]:
        return await self._runner.run(
            self.sync_adapter.find_many, search=search, state_type=state_type, metadata_type=metadata_type
        )

    def scan(
        self, *, filters: Collection[FilterExpression] = (), sort: SortClause | None = None
    ) -> AsyncIterator[JsonProjection]:
        return self._runner.iterate(self.sync_adapter.scan(filters=filters, sort=sort))

    async def count(self, *, search: Search) -> int:
        return await self._runner.run(self.sync_adapter.count, search=search)

    async def load_batch(self, *, name: str, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return await self._runner.run(self.sync_adapter.load_batch, name=name, ids=ids)

    async def save_batch(self, *, records: Sequence[ProjectionRecord]) -> int:
        return await self._runner.run(self.sync_adapter.save_batch, records=records)


def nothing_beside(adapter: object) -> ConfigurationError:
    """Return the error for a store whose adapter keeps no projections beside its events."""
    return ConfigurationError(
        f"no projections are kept beside the events of {type(adapter).__name__}: give the projection store a bind or an "
        "adapter of its own"
    )


def distinct_records(projections: Sequence[AnyProjection]) -> list[ProjectionRecord]:
    """Return what to store for projections.

    Raises:
        ConfigurationError: If a key is given twice.
        SerialisationError: If a value cannot be stored exactly.
    """
    records = [record_of(projection) for projection in projections]
    seen: set[tuple[str, str]] = set()
    for record in records:
        if (record.name, record.id) in seen:
            raise ConfigurationError(
                f"projection {record.name!r} with id {record.id!r} is given twice in one save: give only its last state"
            )
        seen.add((record.name, record.id))
    return records


def checked_expectation(version: object) -> int:
    """Return an expected version if it can be one.

    Raises:
        ConfigurationError: If it is not an integer of 0 or more.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ConfigurationError(f"expected_version is 0 (none stored yet) or a version from 1, not {version!r}")
    return version


def search_for_two(lookup: Lookup) -> Search:
    """Return the search that shows whether a lookup finds more than one."""
    return Search(filters=lookup.filters, paging=OffsetPagingClause(item_count=2))


def one_at_most(records: Sequence[ProjectionRecord]) -> JsonProjection | None:
    """Return what a lookup found.

    Raises:
        QueryError: If it found more than one.
    """
    if len(records) > 1:
        raise QueryError(
            "several projections meet the filters of a lookup, among them "
            f"{records[0].name!r} with id {records[0].id!r}: filter by name and id, or search"
        )
    return records[0].projection() if records else None


def typed_projection(
    projection: JsonProjection | None, state_type: type[State], metadata_type: type[Metadata]
) -> Projection[State, Metadata] | None:
    """Return a projection with its state and metadata made into the types that are asked for.

    Raises:
        SerialisationError: If they are not of these types.
    """
    return None if projection is None else typed_projections([projection], state_type, metadata_type)[0]


def typed_projections(
    projections: Sequence[JsonProjection], state_type: type[State], metadata_type: type[Metadata]
) -> Sequence[Projection[State, Metadata]]:
    """Return projections with their states and metadata made into the types that are asked for.

    Raises:
        SerialisationError: If they are not of these types.
    """
    if state_type is JsonValueType and metadata_type is JsonValueType:
        return cast("Sequence[Projection[State, Metadata]]", projections)
    return [deserialise_projection(projection, state_type, metadata_type) for projection in projections]
