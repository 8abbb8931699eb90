"""Updating inline projections in the transaction of a publish: the place that they write to, and the order of things."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from eventstore_sa.errors import ConcurrencyError, ConfigurationError
from eventstore_sa.persistence.binds import Workplace
from eventstore_sa.persistence.inline import InlineProjection, KeyTakenError, PublishPlace
from eventstore_sa.persistence.problems import OutOfTurnError
from eventstore_sa.persistence.repositories.projection_batches import ProjectionBatches, projection_batches
from eventstore_sa.persistence.repositories.projection_locks import LockOn
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.publishing import AnyStoredEvent, as_read, own_copy
from eventstore_sa.query.records import ProjectionRecord

__all__ = [
    "LostRace",
    "Projections",
    "SQLPublishPlace",
    "apply_projections",
    "combined",
    "is_session_of_publish",
    "update_projections",
]

# Longer than a publish of its own holds a projection; if those who hold some themselves wait longer, all come to a halt.
_PATIENCE_S: Final = 0.05

_OF_PUBLISH: Final = "eventstore_sa.of_publish"

Projections = tuple[InlineProjection, ...]
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
        raise ConfigurationError(f"{given.__name__} is a class: give an instance of it, {given.__name__}()")
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


def update_projections(
    workplace: Workplace,
    schema: EventStoreSchema,
    projections: Sequence[Projections],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply what a publish has stored, in its transaction.

    Args:
        workplace: Where it was stored.
        schema: The tables.
        projections: Those of each part of the publish.
        results: The stored events of each part.

    Raises:
        LostRace: Another transaction was faster; when all of the publish is done again, it may work.
    """
    place = SQLPublishPlace(workplace.connection, schema, workplace.session, hosted=workplace.hosted)
    try:
        apply_projections(place, projections, results)
        place.finish()
    except ConcurrencyError as error:
        raise LostRace(error) from error
    except OutOfTurnError as error:
        # Raised by what handlers have staged. Only a transaction of our own gives back what it holds when it is done again.
        if workplace.hosted:
            raise
        raise LostRace(error) from error
    finally:
        place.close()


def is_session_of_publish(session: Session) -> bool:
    """Tell whether it is one of our own, for the projections of a publish: all that it did is undone if that fails."""
    return _OF_PUBLISH in session.info


class LostRace(Exception):  # noqa: N818 - it is caught by the publish
    """Takes what a projection has raised out of a transaction, which is rolled back on the way."""

    def __init__(self, error: ConcurrencyError | OutOfTurnError) -> None:
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


class SQLPublishPlace:
    """The transaction of a publish in a database; see `PublishPlace`.

    Args:
        connection: The connection of the publish.
        schema: The tables.
        session: The session of the host's whose transaction it is, if there is one.
        hosted: Whether the transaction is the host's, and may have other publishes in it.
    """

    def __init__(
        self, connection: Connection, schema: EventStoreSchema, session: Session | None, *, hosted: bool
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._session = session
        self._own_session: Session | None = None
        # Whether earlier publishes of the transaction have locked projections; None: not known.
        self._holds_others: bool | None = None if hosted else False

    def session(self) -> Session:
        """Return the host's session, or one of our own on the connection."""
        if self._session is None:
            self._session = self._own_session = Session(
                self._connection,
                join_transaction_mode="rollback_only",
                expire_on_commit=False,
                info={_OF_PUBLISH: True},
            )
        return self._session

    def guard(self, name: str, ids: Collection[str]) -> None:
        self._await_turn(name, ids)
        self._batches.lock(self._connection, name, ids)

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        lock = LockOn.IDS if guarded else LockOn.NAME
        if guarded:
            self._await_turn(name, ids)
        return self._batches.load(self._connection, name, ids, lock=lock)

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        saved = self._batches.save(self._connection, records)
        if saved < len(records):
            raise ConcurrencyError(
                f"other transactions have just created {len(records) - saved} projections {records[0].name!r}: make the "
                "call again, or run all of the transaction again"
            )

    def _await_turn(self, name: str, ids: Collection[str]) -> None:
        # Asked before this publish has locked any: its own come in the order of their names, and may be waited for.
        if self._holds_others is not False:
            self._holds_others = self._batches.lock_in_turn(self._connection, name, ids, patience_s=_PATIENCE_S)

    @property
    def _batches(self) -> ProjectionBatches:
        return projection_batches(self._schema, self._connection.dialect.name)

    def finish(self) -> None:
        """Write what is waiting in a session of our own; one of the host's is flushed by its savepoint.

        It commits, but has only joined the transaction of the publish, which stays open: so what handlers have staged or
        recorded is stored there too.
        """
        if self._own_session is not None:
            self._own_session.commit()

    def close(self) -> None:
        """Give up a session of our own; what it has written is in the transaction."""
        if self._own_session is not None:
            self._own_session.close()
