"""Updating inline projections in the transaction of a publish."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

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

# Characters of JSON. What can be saved alone must not become too large by being saved with others.
_TOGETHER: Final = 1_000_000

_OF_PUBLISH: Final = "eventstore_sa.of_publish"


def update_projections(
    place: SQLPublishPlace,
    projections: Sequence[Projections],
    parts: Sequence[StreamPublication],
    results: Sequence[Sequence[AnyStoredEvent]],
) -> None:
    """Apply the events of a publish to its inline projections, in its transaction.

    Args:
        place: The transaction.
        projections: The projections of each part of the publish.
        parts: The publish.
        results: The stored events of each part.

    Raises:
        LostRace: If another transaction was faster; the publish may succeed when it is repeated.
    """
    try:
        apply_projections(place, projections, parts, results)
        place.finish()
    except ConcurrencyError as error:
        raise LostRace(error) from error
    except OutOfTurnError as error:
        # Raised by events that handlers have staged. Only our own transaction releases its locks when it is repeated.
        if place.in_transaction:
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
        scope: Where the events were stored.
        schema: The tables.

    Attributes:
        in_transaction: Whether the transaction is the host's, and may contain other publishes.
    """

    def __init__(self, scope: ConnectionScope, schema: EventStoreSchema) -> None:
        self.in_transaction: bool = scope.in_transaction
        self._connection = scope.connection
        self._schema = schema
        self._session = scope.session
        self._own_session: Session | None = None
        self._loaded: dict[tuple[str, str], ProjectionRecord | None] = {}
        self._unsaved: list[ProjectionRecord] = []
        # Whether earlier publishes in the transaction have locked projections; None if unknown.
        self._holds_others: bool | None = None if scope.in_transaction else False

    def keep(self, wanted: Mapping[str, str], loaded: Sequence[ProjectionRecord]) -> None:
        """Keep what was loaded and locked when the events were stored, until it is asked for.

        Args:
            wanted: The id that was looked for, by name.
            loaded: Those that exist.
        """
        self._loaded = dict.fromkeys(wanted.items())
        self._loaded.update(((record.name, record.id), record) for record in loaded)

    def session(self) -> Session:
        """Return the host's session, or a session of the library on the connection."""
        self._save_all()
        if self._session is None:
            self._session = self._own_session = Session(
                self._connection,
                join_transaction_mode="rollback_only",
                expire_on_commit=False,
                info={_OF_PUBLISH: True},
            )
        return self._session

    def guard(self, name: str, ids: Collection[str]) -> None:
        self._save_all()
        self._await_turn(name, ids)
        self._repository.dialect.lock(self._connection, name, ids)

    def load(self, name: str, ids: Collection[str], *, guarded: bool) -> Mapping[str, ProjectionRecord]:
        keys = [(name, key) for key in ids]
        if not guarded and all(key in self._loaded for key in keys):
            # Only once: what is asked for again may have changed.
            kept = [self._loaded.pop(key) for key in keys]
            return {record.id: record for record in kept if record is not None}
        self._save_all()
        lock = LockOn.IDS if guarded else LockOn.NAME
        if guarded:
            self._await_turn(name, ids)
        return self._repository.load(self._connection, name, ids, lock=lock)

    def save(self, records: Sequence[ProjectionRecord]) -> None:
        if sum(len(record.state) + len(record.metadata) for record in (*self._unsaved, *records)) > _TOGETHER:
            self._save_all()
        self._unsaved.extend(records)

    def _save_all(self) -> None:
        records, self._unsaved = self._unsaved, []
        if records and (saved := self._repository.save_loaded(self._connection, records)) < len(records):
            names = ", ".join(map(repr, sorted({record.name for record in records})))
            raise ConcurrencyError(
                f"other transactions have just saved {len(records) - saved} of the projections {names}: make the call "
                "again, or run all of the transaction again"
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
        """Save what is not saved yet, and flush the library's session; the host's session is flushed by its savepoint.

        It is committed, but has only joined the transaction of the publish, which stays open. So events that handlers have
        staged or recorded are stored in that transaction too.
        """
        self._save_all()
        if self._own_session is not None:
            self._own_session.commit()

    def close(self) -> None:
        """Close the library's session; what it has written is in the transaction."""
        if self._own_session is not None:
            self._own_session.close()
