"""Rebuilding the projections of an in-memory store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.contracts.rebuilds import ApplyLast, RebuildProgressRecord, RebuildTarget, rebuild_taken_over
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.store.adapters.memory_projections import InMemoryRebuild
from eventstore_sa.store.adapters.memory_storage import InMemoryEventStorage

__all__ = ["InMemoryRebuildStorage"]


class InMemoryRebuildStorage:
    """The rebuild of the projections of one name in memory; see `RebuildStorage`."""

    def __init__(self, storage: InMemoryEventStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._rebuild: InMemoryRebuild | None = None

    def begin(self, plan: str) -> RebuildProgressRecord:
        self._rebuild = self._storage.projections.begin_rebuild(self._name, plan)
        return self._rebuild.progress

    def load(self, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        records = self._begun.records
        return {each: records[each] for each in ids if each in records}

    def save(self, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int) -> RebuildProgressRecord:
        rebuild = self._begun
        before = rebuild.progress
        progress = replace(before, sequence_number=sequence_number, events=before.events + events)
        if not self._storage.projections.save_rebuilt(self._name, rebuild, records, progress):
            raise rebuild_taken_over(self._name)
        return progress

    def finish(self, target: RebuildTarget, apply: ApplyLast | None, *, page_size: int, timeout_s: float) -> int:
        if apply is None:
            self._swap()
            return len(self._begun.records)
        while True:
            length = self._storage.length
            self._catch_up(target, apply, page_size)
            # Unless there was a publish meanwhile; there is none before it is done.
            if self._storage.if_unchanged(length, self._swap):
                return len(self._begun.records)

    def _catch_up(self, target: RebuildTarget, apply: ApplyLast, page_size: int) -> None:
        after = frozenset({sequence_number_after(self._begun.progress.sequence_number)})
        events = self._storage.scan(target=target, constraints=after, limit=None, backwards=False)
        while page := list(islice(events, page_size)):
            self.save(apply(page, self.load), sequence_number=page[-1].sequence_number, events=len(page))

    def _swap(self) -> None:
        if not self._storage.projections.finish_rebuild(self._name, self._begun):
            raise rebuild_taken_over(self._name)
        self._storage.subscriptions.set_back(self._name, self._begun.progress.sequence_number)

    @property
    def _begun(self) -> InMemoryRebuild:
        if self._rebuild is None:
            raise TypeError("begin comes first")
        return self._rebuild
