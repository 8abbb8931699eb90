"""Inline projections: the interface between a store and the projections that its publishes update.

The store does not depend on projectors. It calls anything that implements `InlineProjection`, and passes it the
`PublishPlace` to work on.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from msgspec import Struct

from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, EventStoreError, StorageError
from eventstore_sa.publishing import StreamPublication, as_read, own_copy
from eventstore_sa.types import AnyStoredEvent, EventTypes, StreamIdentifier

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
    "known_ids",
    "typed_projections",
]


class PublishPlace(Protocol):
    """The transaction of a publish, after its events are stored and before it is committed."""

    def session(self) -> Session:
        """Return a session in the transaction.

        If the publish is part of a session, it is that session. Otherwise it is a session on the connection of the publish,
        the same one for all projections. It is flushed after the last projection, and must not be committed, rolled back or
        closed.

        Raises:
            ConfigurationError: If the store keeps its events in memory.
        """
        ...

    def guard(self, name: str, ids: Collection[str]) -> None:
        """Lock ids of a name until the end of the transaction, against all publishes that guard the same ids.

        It takes at most one statement, and none if the database has a single writer. It is required if publishes to
        different streams can create the same row, because a row that does not exist yet cannot be locked. Call it before
        locking any such row. Locks are acquired in a fixed order, whatever the order of the ids.
        """
        ...

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        """Return the stored projections of a name that exist, by id, locked until the end of the transaction.

        It takes one statement at most. If `guarded` is true, the statement locks the ids as `guard` does.
        """
        ...

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        """Save projections, each with the version that was loaded, or 0 if it is new.

        They are saved together with those of the projections that follow, in one statement before the commit, or before the
        next statement of one of them.

        Raises:
            ConcurrencyError: If another transaction has created one of them in the meantime; now, or when they are saved.
        """
        ...


class InlineProjection(Protocol):
    """A projection that is updated by publishes; `Projector` implements it.

    `apply_inline` is called once for each publish that has stored events: in the same transaction, after the event locks
    were acquired and the events inserted, and before the commit. The transaction is the store's own or, within a session or
    connection of the host, a savepoint of the host's transaction (a savepoint of the session itself if `needs_session`). For
    staged publishes it is called once for all of them, while the session commits, after its flush. It is not called for
    publishes that store nothing: empty publishes, failed publishes, and repetitions of stored ones. The events are in the
    order of their sequence numbers, and as a read would return them. The projections of a store are called in the order of
    their names, so that all publishers lock projection rows in the same order, after the event locks.

    An exception rolls back the whole publish (to the savepoint, so that the host's session stays usable) and is raised by
    `publish` or `commit`. After a ConcurrencyError, a lost race, the whole publish is first retried a few times. The method
    may therefore be called several times for events of which only one attempt is committed, and should not do anything that
    a rollback does not undo. It is synchronous, and runs in a greenlet of SQLAlchemy if the store is used with asyncio.
    """

    @property
    def name(self) -> str:
        """The name, which is unique among the projections of a store. They are called in the order of their names."""
        ...

    @property
    def needs_session(self) -> bool:
        """Whether it uses `place.session()`; an in-memory store refuses such a projection."""
        ...

    def check_inline(self) -> None:
        """Check that the projection can be used inline; called by `with_projections`.

        Raises:
            ConfigurationError: If it cannot, for example because a handler is a coroutine function.
        """
        ...

    def inline_id(self, stream: StreamIdentifier, names: Collection[str]) -> str | None:
        """Return the id of the one projection that new events of a stream affect, if that is known before they are stored.

        The statement that stores the events then loads the projection, too, so that `place.load` needs none. Return None if
        there is none or it is not known, or if `apply_inline` locks other rows before it loads the projection.

        Args:
            stream: The stream.
            names: The names of the events.
        """
        ...

    def apply_inline(self, place: PublishPlace, events: Sequence[AnyStoredEvent]) -> None:
        """Update the projection with the new events of a publish, which include events that it does not handle."""
        ...


class KeyTakenError(ConcurrencyError):
    """New rows were refused because a row that did not exist when they were loaded has one of their primary keys.

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
        """Return the error to raise if the same new rows were refused by the earlier attempt.

        Then the conflicting row was not just created by another transaction, and a retry would not help.
        """
        if not isinstance(earlier, KeyTakenError) or (self.row_class, self.keys) != (earlier.row_class, earlier.keys):
            return None
        return StorageError(
            f"new rows of {self.row_class} were refused because a row that cannot be loaded as {self.row_class}, or "
            "another of the new rows, has the same primary key: return other keys from key(event); see the driver's error, "
            "which is the __cause__"
        )


class LostRace(Exception):  # noqa: N818 - it is caught by the publish
    """Carries an exception of a projection out of the transaction, which is rolled back."""

    def __init__(self, error: EventStoreError) -> None:
        super().__init__()
        self.error = error

    def check_passing(self, before: LostRace | None) -> None:
        """Check that a retry can help, which it cannot if the previous attempt has failed because of the same row.

        Raises:
            StorageError: If it cannot.
        """
        error = self.error
        lasting = error.lasting(before.error) if before is not None and isinstance(error, KeyTakenError) else None
        if lasting is not None:
            for note in getattr(error, "__notes__", ()):
                lasting.add_note(note)
            raise lasting from error.__cause__


Projections: TypeAlias = tuple[InlineProjection, ...]
"""Inline projections with different names, in the order of their names."""


def combined(projections: Iterable[InlineProjection]) -> Projections:
    """Check inline projections, and return them in the order of their names.

    Raises:
        ConfigurationError: If one is not a projection or cannot be used inline, or if two have the same name.
    """
    by_name: dict[str, InlineProjection] = {}
    for projection in projections:
        _check_projection(projection)
        projection.check_inline()
        if by_name.setdefault(projection.name, projection) != projection:
            raise ConfigurationError(
                f"two projections of this store are called {projection.name!r} and would write to the same rows: rename one "
                "of them"
            )
    return tuple(by_name[name] for name in sorted(by_name))


class _TypedProjection(Struct, frozen=True):
    """An inline projection that is given the events as a store with event types reads them."""

    projection: InlineProjection
    types: EventTypes[Any]

    @property
    def name(self) -> str:
        return self.projection.name

    @property
    def needs_session(self) -> bool:
        return self.projection.needs_session

    def check_inline(self) -> None:
        self.projection.check_inline()

    def inline_id(self, stream: StreamIdentifier, names: Collection[str]) -> str | None:
        # Under an alias, too, an event is passed on by the name of its type.
        return self.projection.inline_id(stream, self.types.all_names(names))

    def apply_inline(self, place: PublishPlace, events: Sequence[AnyStoredEvent]) -> None:
        typed = self.types.all_read(events)
        if typed:
            self.projection.apply_inline(place, typed)


def typed_projections(
    projections: Sequence[InlineProjection], types: EventTypes[Any] | None
) -> Sequence[InlineProjection]:
    """Return projections that receive typed events; the same if there are no types.

    Raises:
        ConfigurationError: If one is not a projection.
    """
    if types is None:
        return projections
    for projection in projections:
        _check_projection(projection)
    return [_TypedProjection(projection, types) for projection in projections]


def _check_projection(given: object) -> None:
    if isinstance(given, type):
        raise ConfigurationError(f"{given.__name__} is a class: pass an instance, {given.__name__}()")
    if not hasattr(given, "check_inline"):
        raise ConfigurationError(
            f"an inline projection must be a projector or table projection, not {type(given).__name__!r}"
        )


def known_ids(projections: Projections, part: StreamPublication) -> dict[str, str]:
    """Return the id that each of the first projections loads for a publish to one stream, by name, as far as it is known.

    It ends with the first one whose id is not known: projections are locked in the order of their names.
    """
    ids: dict[str, str] = {}
    names = {event.name for event in part.prepared}
    for projection in projections if names else ():
        key = projection.inline_id(part.stream, names)
        if key is None:
            break
        ids[projection.name] = key
    return ids


def apply_projections(
    place: PublishPlace,
    projections: Sequence[Projections],
    parts: Sequence[StreamPublication],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply the events of a publish to the projections of its parts: each once, with the events of all parts.

    Args:
        place: The transaction of the publish.
        projections: The projections of each part.
        parts: The publish.
        results: The stored events of each part.
    """
    by_name: dict[str, tuple[InlineProjection, list[AnyStoredEvent]]] = {}
    for wanted, part, events in zip(projections, parts, results, strict=True):
        if wanted and events:
            read = list(map(as_read, events, part.prepared))
            for number, projection in enumerate(wanted):
                # A handler may use the payload as its state, and change it with the next event.
                events_of_its_own = map(own_copy, read) if number else read
                by_name.setdefault(projection.name, (projection, []))[1].extend(events_of_its_own)
    for _, (projection, events) in sorted(by_name.items(), key=lambda item: item[0]):
        projection.apply_inline(place, events)
