"""Updating inline projections in the transaction of a publish: the place that they write to, and the order of things."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from eventstore_sa.contracts.inline_projections import LostRace, Projections, apply_projections
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConcurrencyError
from eventstore_sa.persistence.projections.batches import ProjectionBatches, projection_batches
from eventstore_sa.persistence.projections.locks import LockOn
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.binds import ConnectionScope
from eventstore_sa.persistence.transactions.failures import OutOfTurnError
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.types import AnyStoredEvent

__all__ = ["SQLPublishPlace", "is_session_of_publish", "update_projections"]

# Longer than a publish of its own holds a projection; if those who hold some themselves wait longer, all come to a halt.
_PATIENCE_S: Final = 0.05

_OF_PUBLISH: Final = "eventstore_sa.of_publish"


def update_projections(
    scope: ConnectionScope,
    schema: EventStoreSchema,
    projections: Sequence[Projections],
    parts: Sequence[StreamPublication],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply what a publish has stored, in its transaction.

    Args:
        scope: Where it was stored.
        schema: The tables.
        projections: Those of each part of the publish.
        parts: The publish.
        results: The stored events of each part.

    Raises:
        LostRace: Another transaction was faster; when all of the publish is done again, it may work.
    """
    place = SQLPublishPlace(scope.connection, schema, scope.session, hosted=scope.in_transaction)
    try:
        apply_projections(place, projections, parts, results)
        place.finish()
    except ConcurrencyError as error:
        raise LostRace(error) from error
    except OutOfTurnError as error:
        # Raised by what handlers have staged. Only a transaction of our own gives back what it holds when it is done again.
        if scope.in_transaction:
            raise
        raise LostRace(error) from error
    finally:
        place.close()


def is_session_of_publish(session: Session) -> bool:
    """Tell whether it is one of our own, for the projections of a publish: all that it did is undone if that fails."""
    return _OF_PUBLISH in session.info


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
