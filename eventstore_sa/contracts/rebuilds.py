"""Rebuilding the projections of one name, step by step: what whoever drives a rebuild asks of a storage."""

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
"""Takes events, and what loads rebuilt projections by their ids; returns the projections that have changed."""


class RebuildProgressRecord(Struct, frozen=True):
    """How far a rebuild is.

    Attributes:
        plan: What is rebuilt, from what: another plan is another rebuild.
        sequence_number: That of the last event that was applied; 0: none.
        events: How many events were applied.
    """

    plan: str
    sequence_number: int = 0
    events: int = 0


class RebuildStorage(Protocol):
    """The rebuild of the projections of one name, step by step."""

    def begin(self, plan: str) -> RebuildProgressRecord:
        """Go on with a rebuild of the same plan, or begin one; return how far it is. Whoever was at it gives up."""
        ...

    def load(self, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        """Return what is rebuilt of projections already, by id."""
        ...

    def save(self, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int) -> RebuildProgressRecord:
        """Save what has changed, and how far the rebuild is now; return that.

        Raises:
            ConcurrencyError: Another rebuild has begun.
        """
        ...

    def finish(self, target: RebuildTarget, apply: ApplyLast | None, *, page_size: int, timeout_s: float) -> int:
        """Apply the last events, and put what was rebuilt in the place of the old; return how many projections there are.

        Publishes that update these projections wait meanwhile: those before are visible, those after find the new rows.

        Args:
            target: Where events are read from.
            apply: Applies the last events; None: there are none to be applied.
            page_size: How many events are applied at a time.
            timeout_s: How long to wait for publishes that are under way.

        Raises:
            LockTimeoutError: They did not come to an end; the next call resumes.
            ConcurrencyError: Another rebuild has begun.
        """
        ...


def rebuild_taken_over(name: str) -> ConcurrencyError:
    """Say that there is another rebuild."""
    return ConcurrencyError(
        f"another rebuild of the projections {name!r} has begun and takes the place of this one: wait for it to end"
    )
