"""Inline projections: what a store asks of a projection that its publishes update, and what it gives to it.

The store knows no projector. It calls whatever fits `InlineProjection`, and hands it the place where it may write.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, EventStoreError, StorageError
from eventstore_sa.publishing import as_read, own_copy
from eventstore_sa.types import AnyStoredEvent

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = [
    "InlineProjection",
    "KeyTakenError",
    "LostRace",
    "Projections",
    "PublishPlace",
    "apply_projections",
    "combined",
]


class PublishPlace(Protocol):
    """The transaction of a publish: its events are stored in it, and it is still open."""

    def session(self) -> Session:
        """Return a session in the transaction.

        It is the host's own session when the publish is part of one, and otherwise a session on the connection of the
        publish, the same one for all projections. It is flushed after the last of them, and must be neither committed,
        rolled back nor closed.

        Raises:
            ConfigurationError: The store keeps its events in memory.
        """
        ...

    def guard(self, name: str, ids: Collection[str]) -> None:
        """Keep all other publishes from ids of a name that they guard too, until the end of the transaction.

        At most one statement, and none where there is a single writer. It is needed where publishes to different streams
        may create the same thing, for what is not there yet cannot be locked; and before anything of that is locked.
        Locks are taken in one order, whatever the order of the ids.
        """
        ...

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        """Return the stored projections of a name by id, those that are there; nobody else changes them until the commit.

        One statement, which does what `guard` does if it is asked for.
        """
        ...

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        """Save projections that were loaded here, each with the version that it had, or 0; one statement.

        Raises:
            ConcurrencyError: Another transaction has created one of them meanwhile.
        """
        ...


class InlineProjection(Protocol):
    """A projection that publishes update; `Projector` is one.

    `apply_inline` is called once for each publish that has stored events: after its event locks were taken and its events
    inserted, in the same transaction, before the commit. That is a transaction of the store's own; or, within a session or
    connection of the host's, a savepoint of its transaction (a savepoint of the session itself when `needs_session`). For
    staged publishes it is called once for all of them, while the session commits, after its flush. It is not called for
    publishes that store nothing: empty ones, failed ones, and repetitions of what is stored. The events come in the order
    of their sequence numbers, and as a read would return them. All projections of a store are called in the order of
    their names, so that all publishers lock projection rows in one order, after the event locks. What it raises rolls all
    of the publish back (to the savepoint, so that the host's session stays usable) and comes out of `publish` or `commit`;
    with ConcurrencyError, a lost race, all of the publish is done again first, a few times. It may therefore be called
    several times for events of which only one attempt is committed, and should do nothing that a rollback does not undo.
    It is synchronous, and runs in a greenlet of SQLAlchemy's where the store is used with asyncio.
    """

    @property
    def name(self) -> str:
        """Its name, by which the projections of a store differ, and in the order of which they are called."""
        ...

    @property
    def needs_session(self) -> bool:
        """Whether it works on `place.session()`; such a projection is refused by a store in memory."""
        ...

    def check_inline(self) -> None:
        """Refuse to be inline; called by `with_projections`.

        Raises:
            ConfigurationError: It cannot be, say because a handler is a coroutine function.
        """
        ...

    def apply_inline(self, place: PublishPlace, events: Sequence[AnyStoredEvent]) -> None:
        """Update the projection by the new events of a publish; those that do not concern it among them."""
        ...


class KeyTakenError(ConcurrencyError):
    """New rows were refused because one of their primary keys is taken by a row that was not there when they were loaded.

    Attributes:
        row_class: The name of the class of the rows.
        keys: The keys of the new rows.
    """

    def __init__(self, row_class: str, keys: Collection[Hashable]) -> None:
        super().__init__(
            f"another transaction has just created a row of {row_class} with the same primary key: make the call again, or "
            "run all of the transaction again"
        )
        self.row_class: str = row_class
        self.keys: frozenset[Hashable] = frozenset(keys)

    def lasting(self, earlier: Exception | None) -> StorageError | None:
        """Return the error to raise when the same new rows were refused before, and so were not found this time either.

        Then the row in the way is none that another transaction has just created, and trying again would not help.
        """
        if not isinstance(earlier, KeyTakenError) or (self.row_class, self.keys) != (earlier.row_class, earlier.keys):
            return None
        return StorageError(
            f"new rows of {self.row_class} were refused because a row that cannot be loaded as a {self.row_class}, or "
            "another of the new rows, has the same primary key: return other keys from key(event); see the driver's error, "
            "which is the __cause__"
        )


class LostRace(Exception):  # noqa: N818 - it is caught by the publish
    """Takes what a projection has raised out of a transaction, which is rolled back on the way."""

    def __init__(self, error: EventStoreError) -> None:
        super().__init__()
        self.error = error

    def check_passing(self, before: LostRace | None) -> None:
        """Raise what tells of a lasting fault, when it is one: the race before was lost to the same row.

        Raises:
            StorageError: It is.
        """
        error = self.error
        lasting = error.lasting(before.error) if before is not None and isinstance(error, KeyTakenError) else None
        if lasting is not None:
            for note in getattr(error, "__notes__", ()):
                lasting.add_note(note)
            raise lasting from error.__cause__


Projections: TypeAlias = tuple[InlineProjection, ...]
"""Inline projections that differ in their names, in the order of these."""


def combined(projections: Iterable[InlineProjection]) -> Projections:
    """Put inline projections in order.

    Raises:
        ConfigurationError: One is no projection or cannot be inline, or two have the same name.
    """
    by_name: dict[str, InlineProjection] = {}
    for projection in projections:
        _check_projection(projection)
        projection.check_inline()
        if by_name.setdefault(projection.name, projection) is not projection:
            raise ConfigurationError(
                f"two projections of this store are called {projection.name!r}: they would write to the same rows; give "
                "one of them another name"
            )
    return tuple(by_name[name] for name in sorted(by_name))


def _check_projection(given: object) -> None:
    if isinstance(given, type):
        raise ConfigurationError(f"{given.__name__} is a class: pass an instance, {given.__name__}()")
    if not hasattr(given, "check_inline"):
        raise ConfigurationError(
            f"publishes update projectors and table projections; got a {type(given).__name__}, which is neither"
        )


def apply_projections(
    place: PublishPlace,
    projections: Sequence[Projections],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply what a publish has stored to the projections of its parts: each once, with the events of all parts.

    Args:
        place: Where.
        projections: Those of each part.
        results: The stored events of each part.
    """
    by_name: dict[str, tuple[InlineProjection, list[AnyStoredEvent]]] = {}
    for wanted, events in zip(projections, results, strict=True):
        if wanted and events:
            read = [as_read(event) for event in events]
            for number, projection in enumerate(wanted):
                # A handler may make the payload its state, and change it with the next event.
                events_of_its_own = map(own_copy, read) if number else read
                by_name.setdefault(projection.name, (projection, []))[1].extend(events_of_its_own)
    for _, (projection, events) in sorted(by_name.items(), key=lambda item: item[0]):
        projection.apply_inline(place, events)
