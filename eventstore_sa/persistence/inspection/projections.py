"""Which projections are stored, by name."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from sqlalchemy import Connection, func, select

from eventstore_sa.persistence.schema import EventStoreSchema

__all__ = ["ProjectionSummary", "stored_projections"]


class ProjectionSummary(Struct, frozen=True):
    """The stored projections of a name.

    Attributes:
        name: The name.
        projections: How many there are.
        last_sequence_number: The number of the last event that was applied to one; None if that is not known.
        rebuilt_up_to: Up to which number a rebuild has applied events that has not ended; None: there is none.
    """

    name: str
    projections: int
    last_sequence_number: int | None
    rebuilt_up_to: int | None


def stored_projections(connection: Connection, *, schema: EventStoreSchema) -> Sequence[ProjectionSummary]:
    """Count the stored projections of each name, by going through an index of them."""
    stored, rebuilds = schema.projections.c, schema.rebuilds.c
    rebuilding = {
        name: number or 0
        for name, number in connection.execute(select(rebuilds.name, rebuilds.sequence_number).where(rebuilds.id == ""))
    }
    counted = select(stored.name, func.count(), func.max(stored.sequence_number)).group_by(stored.name)
    found = {name: (count, last) for name, count, last in connection.execute(counted)}
    return [
        ProjectionSummary(name, *found.get(name, (0, None)), rebuilding.get(name))
        for name in sorted({*found, *rebuilding})
    ]
