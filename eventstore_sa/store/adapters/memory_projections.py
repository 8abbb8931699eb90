"""The projections of an in-memory store: kept beside its events, so that a publish can store both at once.

The storage adapters of `eventstore_sa.projection` give them their face.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import RLock

from msgspec import Struct, field
from msgspec.structs import replace
from sqlalchemy.orm import Session

from eventstore_sa.contracts.projection_records import ProjectionRecord, unexpected_version
from eventstore_sa.contracts.rebuilds import RebuildProgressRecord
from eventstore_sa.errors import ConfigurationError

__all__ = ["InMemoryProjections", "InMemoryPublishPlace", "InMemoryRebuild"]


class InMemoryRebuild(Struct):
    """What there is of a rebuild.

    Attributes:
        progress: How far it is.
        records: The projections, by id.
    """

    progress: RebuildProgressRecord
    records: dict[str, ProjectionRecord] = field(default_factory=dict[str, ProjectionRecord])


class InMemoryProjections:
    """Projections by their keys, in the order in which they were first saved; safe from several threads."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], ProjectionRecord] = {}
        self._rebuilds: dict[str, InMemoryRebuild] = {}
        self._lock = RLock()

    def all(self) -> list[ProjectionRecord]:
        """Return all projections."""
        with self._lock:
            return list(self._records.values())

    def save(self, records: Sequence[ProjectionRecord], expected: int | None = None) -> list[int]:
        """Insert or replace projections, by hand; return their new versions.

        Raises:
            ProjectionVersionError: If one is not at the expected version.
        """
        with self._lock:
            return [self._save(record, expected) for record in records]

    def delete(self, name: str, id: str) -> bool:
        """Delete a projection; return whether there was one."""
        with self._lock:
            return self._records.pop((name, id), None) is not None

    def clear(self) -> None:
        """Forget all projections."""
        with self._lock:
            self._records.clear()
            self._rebuilds.clear()

    def load_batch(self, name: str, ids: Collection[str]) -> dict[str, ProjectionRecord]:
        """Return the projections of a name that are there, by id."""
        with self._lock:
            return {each: self._records[name, each] for each in ids if (name, each) in self._records}

    def save_batch(self, records: Sequence[ProjectionRecord]) -> int:
        """Save projections over the versions that they were loaded with, each on its own; return how many were saved."""
        with self._lock:
            fitting = [record for record in records if self._version(record) == record.version]
            self._put(fitting)
            return len(fitting)

    def save_all_or_none(self, records: Sequence[ProjectionRecord]) -> bool:
        """Save projections over the versions that they were loaded with; return False if one has another version now."""
        with self._lock:
            unchanged = all(self._version(record) == record.version for record in records)
            if unchanged:
                self._put(records)
            return unchanged

    def begin_rebuild(self, name: str, plan: str) -> InMemoryRebuild:
        """Resume the rebuild of the same plan, or begin one; an earlier run of it can no longer save."""
        with self._lock:
            found = self._rebuilds.get(name)
            begun = InMemoryRebuild(RebuildProgressRecord(plan))
            if found is not None and found.progress.plan == plan:
                begun = InMemoryRebuild(found.progress, dict(found.records))
            self._rebuilds[name] = begun
            return begun

    def save_rebuilt(
        self, name: str, rebuild: InMemoryRebuild, records: Sequence[ProjectionRecord], progress: RebuildProgressRecord
    ) -> bool:
        """Save what has changed in a rebuild, and how far it is, unless another has begun; return whether it was done."""
        with self._lock:
            if self._rebuilds.get(name) is not rebuild:
                return False
            rebuild.records.update((record.id, replace(record, version=record.version + 1)) for record in records)
            rebuild.progress = progress
            return True

    def finish_rebuild(self, name: str, rebuild: InMemoryRebuild) -> bool:
        """Replace the projections of a name by the rebuilt ones; return False if another rebuild has begun."""
        with self._lock:
            if self._rebuilds.get(name) is not rebuild:
                return False
            rebuilt = self._rebuilds.pop(name).records
            for key in [key for key in self._records if key[0] == name and key[1] not in rebuilt]:
                del self._records[key]
            self._put([replace(record, version=self._version(record)) for record in rebuilt.values()])
            return True

    def _version(self, record: ProjectionRecord) -> int:
        stored = self._records.get((record.name, record.id))
        return 0 if stored is None else stored.version

    def _put(self, records: Sequence[ProjectionRecord]) -> None:
        self._records.update(
            ((record.name, record.id), replace(record, version=record.version + 1)) for record in records
        )

    def _save(self, record: ProjectionRecord, expected: int | None) -> int:
        key = (record.name, record.id)
        stored = self._records.get(key)
        if stored is None:
            stored = replace(record, version=0)
        if expected is not None and expected != stored.version:
            raise unexpected_version(record, expected=expected, actual=stored.version)
        version = stored.version + 1
        self._records[key] = replace(stored, state=record.state, metadata=record.metadata, version=version)
        return version


class InMemoryPublishPlace:
    """What a publish in memory is about to change of the projections; see `PublishPlace`.

    Nothing is visible to others before `commit`.
    """

    def __init__(self, projections: InMemoryProjections) -> None:
        self._projections = projections
        self._changed: dict[tuple[str, str], ProjectionRecord] = {}

    def session(self) -> Session:
        raise ConfigurationError(
            "this store keeps its events in memory and has no session: projections to rows need a store on a "
            "SQLAlchemy bind"
        )

    def guard(self, name: str, ids: Collection[str]) -> None:
        pass

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        return self._projections.load_batch(name, ids)

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        self._changed.update(((record.name, record.id), record) for record in records)

    def commit(self) -> bool:
        """Save what was changed, all or nothing; return False if another writer has changed some of it meanwhile."""
        return self._projections.save_all_or_none(list(self._changed.values()))
