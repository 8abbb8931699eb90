"""The storage of a rebuild: rebuilding the projections of one name, step by step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConcurrencyError
from eventstore_sa.types import AnyStoredEvent, CategoryIdentifier, LogIdentifier

__all__ = ["ApplyLast", "Load", "RebuildProgressRecord", "RebuildStorage", "RebuildTarget", "rebuild_taken_over"]

RebuildTarget: TypeAlias = CategoryIdentifier | LogIdentifier
Load: TypeAlias = Callable[[Collection[str]], Mapping[str, ProjectionRecord]]
ApplyLast: TypeAlias = Callable[[Sequence[AnyStoredEvent], Load], Sequence[ProjectionRecord]]
"""Applies events, given a function that loads rebuilt projections by id; returns the projections that have changed."""


class RebuildProgressRecord(Struct, frozen=True):
    """The progress of a rebuild.

    Attributes:
        plan: What is rebuilt from which source. A rebuild with another plan starts from the beginning.
        sequence_number: The sequence number of the last event that was applied; 0 if none was.
        events: How many events were applied.
    """

    plan: str
    sequence_number: int = 0
    events: int = 0


class RebuildStorage(Protocol):
    """The rebuild of the projections of one name, step by step."""

    def begin(self, plan: str) -> RebuildProgressRecord:
        """Resume the rebuild of the same plan, or start a new one; return its progress. An earlier run gives up."""
        ...

    def load(self, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return the projections that have been rebuilt so far, by id."""
        ...

    def save(self, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int) -> RebuildProgressRecord:
        """Save the projections that have changed together with the progress of the rebuild, which is returned.

        Raises:
            ConcurrencyError: If another run has taken over the rebuild.
        """
        ...

    def finish(self, target: RebuildTarget, apply: ApplyLast | None, *, page_size: int, timeout_s: float) -> int:
        """Apply the last events, and replace the old projections by the rebuilt ones; return how many there are.

        Publishes that update these projections wait until this is done. Events of earlier publishes are applied here, and
        later publishes find the new projections.

        Args:
            target: The source of the events.
            apply: Applies the last events. None: there are none to apply.
            page_size: How many events are applied at a time.
            timeout_s: How long to wait for publishes in progress.

        Raises:
            LockTimeoutError: If they did not end in time; the next call resumes.
            ConcurrencyError: If another run has taken over the rebuild.
        """
        ...


def rebuild_taken_over(name: str) -> ConcurrencyError:
    """Return the error for a rebuild that another run has taken over."""
    return ConcurrencyError(
        f"another rebuild of the projections {name!r} has begun and has taken over from this one: wait for it to end"
    )
