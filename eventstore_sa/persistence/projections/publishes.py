"""Updating inline projections in the transaction of a publish."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from eventstore_sa.contracts.inline_projections import LostRace, Projections, apply_projections
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import ConcurrencyError
from eventstore_sa.persistence.projections.dialects.base import LockOn
from eventstore_sa.persistence.projections.repository import ProjectionRepository
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.schema import made_once
from eventstore_sa.persistence.transactions.binds import ConnectionScope
from eventstore_sa.persistence.transactions.failures import OutOfTurnError
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.types import AnyStoredEvent

__all__ = ["SQLPublishPlace", "is_session_of_publish", "update_projections"]

# Longer than a publish in its own transaction holds a projection; if transactions that hold some waited longer, all would
# stall.
_PATIENCE_S: Final = 0.05

_OF_PUBLISH: Final = "eventstore_sa.of_publish"


def update_projections(
    scope: ConnectionScope,
    schema: EventStoreSchema,
    projections: Sequence[Projections],
    parts: Sequence[StreamPublication],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply the events of a publish to its inline projections, in its transaction.

    Args:
        scope: Where they were stored.
        schema: The tables.
        projections: The projections of each part of the publish.
        parts: The publish.
        results: The stored events of each part.

    Raises:
        LostRace: If another transaction was faster; the publish may succeed when it is repeated.
    """
    place = SQLPublishPlace(scope.connection, schema, scope.session, in_transaction=scope.in_transaction)
    try:
        apply_projections(place, projections, parts, results)
        place.finish()
    except ConcurrencyError as error:
        raise LostRace(error) from error
    except OutOfTurnError as error:
        # Raised by events that handlers have staged. Only our own transaction releases its locks when it is repeated.
        if scope.in_transaction:
            raise
        raise LostRace(error) from error
    finally:
        place.close()


def is_session_of_publish(session: Session) -> bool:
    """Return whether it is a session that the library has opened for a publish: its work is undone if the publish fails."""
    return _OF_PUBLISH in session.info


class SQLPublishPlace:
    """The transaction of a publish in a database; see `PublishPlace`.

    Args:
        connection: The connection of the publish.
        schema: The tables.
        session: The host's session whose transaction it is, if there is one.
        in_transaction: Whether the transaction is the host's, and may contain other publishes.
    """

    def __init__(
        self, connection: Connection, schema: EventStoreSchema, session: Session | None, *, in_transaction: bool
    ) -> None:
        self._connection = connection
        self._schema = schema
        self._session = session
        self._own_session: Session | None = None
        # Whether earlier publishes in the transaction have locked projections; None if unknown.
        self._holds_others: bool | None = None if in_transaction else False

    def session(self) -> Session:
        """Return the host's session, or a session of the library on the connection."""
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
        self._repository.dialect.lock(self._connection, name, ids)

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        lock = LockOn.IDS if guarded else LockOn.NAME
        if guarded:
            self._await_turn(name, ids)
        return self._repository.load(self._connection, name, ids, lock=lock)

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        saved = self._repository.save_loaded(self._connection, records)
        if saved < len(records):
            raise ConcurrencyError(
                f"other transactions have just created {len(records) - saved} projections {records[0].name!r}: make the "
                "call again, or run all of the transaction again"
            )

    def _await_turn(self, name: str, ids: Collection[str]) -> None:
        # Before this publish has locked any: it locks its own in the order of their names, so it can wait for these.
        if self._holds_others is not False:
            self._holds_others = self._repository.dialect.lock_in_turn(
                self._connection, name, ids, patience_s=_PATIENCE_S
            )

    @property
    def _repository(self) -> ProjectionRepository:
        return made_once(ProjectionRepository, self._schema, self._connection.dialect.name)

    def finish(self) -> None:
        """Flush the library's session; the host's session is flushed by its savepoint.

        It is committed, but has only joined the transaction of the publish, which stays open. So events that handlers have
        staged or recorded are stored in that transaction too.
        """
        if self._own_session is not None:
            self._own_session.commit()

    def close(self) -> None:
        """Close the library's session; what it has written is in the transaction."""
        if self._own_session is not None:
            self._own_session.close()
