"""The event store as seen from the transaction of a session: publishing there at once, or when it commits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from inspect import iscoroutinefunction
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from eventstore_sa.contracts.inline_projections import Projections
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.events.conditions import ConditionEvaluators
from eventstore_sa.persistence.events.constraints import ConstraintConverters
from eventstore_sa.persistence.events.storage import EventStorage
from eventstore_sa.persistence.projections.publishes import update_projections
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.binds import Bind, SessionBind
from eventstore_sa.persistence.transactions.databases import database_of
from eventstore_sa.publishing import StreamPublication, prepare
from eventstore_sa.session.after_commit import CommitCallback
from eventstore_sa.session.hooks import follow_sessions, staged_in, staging_of
from eventstore_sa.session.staged import Publish, StagedPublish
from eventstore_sa.session.staging import check_takes_events
from eventstore_sa.types import AnyStoredEvent

__all__ = ["SessionStorage"]

R = TypeVar("R")


class SessionStorage:
    """Storage of events in the transaction of a session; see `HostedStorage`."""

    def __init__(self, bind: SessionBind, storage: EventStorage) -> None:
        self._bind = bind
        self._storage = storage

    @classmethod
    def of(cls, bind: Bind, storage: EventStorage) -> SessionStorage | None:
        """Make one for the storage of an adapter; None when it is not bound to a session."""
        follow_sessions()
        return cls(bind, storage) if isinstance(bind, SessionBind) else None

    @classmethod
    def of_schema(cls, session: Session, schema: EventStoreSchema, projections: Projections = ()) -> SessionStorage:
        """Make one for events that come without a store."""
        bind = SessionBind(session, schema)
        storage = EventStorage(
            bind,
            schema,
            page_size=1,
            evaluators=ConditionEvaluators(),
            constraint_converters=ConstraintConverters(),
            update_projections=update_projections,
            projections=projections,
        )
        return cls(bind, storage)

    @property
    def asynchronous(self) -> bool:
        return self._bind.asynchronous

    @property
    def kind(self) -> Hashable:
        return self._storage.schema

    @property
    def knows_conditions(self) -> bool:
        return bool(self._storage.evaluators)

    @property
    def projections(self) -> Projections:
        return self._storage.projections

    def connection(self) -> Connection:
        return self._bind.connection()

    def check_transaction(self) -> None:
        connection = self.connection()
        database_of(connection).check_transaction(connection)

    def publish(
        self, parts: Sequence[StreamPublication], projections: Sequence[Projections]
    ) -> list[list[AnyStoredEvent]]:
        return self._storage.publish(parts, projections)

    def publish_at_once(self, parts: Sequence[StreamPublication]) -> list[list[AnyStoredEvent]]:
        """Store a publish now, and let those know who wait for the commit."""
        results = self._storage.publish(parts)
        session = self._bind.session
        staging = staged_in(session)
        if staging is not None:
            staging.take_note(session, self, results)
        return results

    def stage(
        self, parts: Sequence[StreamPublication], shape: Callable[[Sequence[Sequence[AnyStoredEvent]]], R]
    ) -> StagedPublish[R]:
        """Have a publish stored when the session commits.

        Raises:
            SerialisationError: An event cannot be stored exactly; nothing of the publish is staged.
            ConfigurationError: The session does not know where the events are.
        """
        for part in parts:
            for new in part.events:
                prepare(new)
        self._bind.check_routing()
        session = self._bind.session
        return StagedPublish(staging_of(session).stage(session, self, lambda: parts), shape)

    def record(
        self,
        parts: Callable[[], Sequence[StreamPublication]],
        *,
        before_write: Callable[[], object] | None,
        on_drop: Callable[[], object] | None,
        subject: object,
    ) -> Publish:
        """Have something stored when the session commits that is known only then."""
        session = self._bind.session
        staging = staging_of(session)
        return staging.stage(session, self, parts, before_write=before_write, on_drop=on_drop, subject=subject)

    def check_takes_events(self) -> None:
        """Refuse what could not be recorded now.

        Raises:
            TransactionError: The transaction takes no more events.
            ConfigurationError: The session does not know where the events are.
        """
        self._bind.check_routing()
        check_takes_events(self._bind.session)

    def flush(self) -> None:
        """Flush the session, and store what is staged in it."""
        session = self._bind.session
        staging = staged_in(session)
        if staging is not None:
            staging.write(session)

    def after_commit(self, callback: CommitCallback) -> None:
        """Have a function called with the stored events once the session's transaction is committed.

        Raises:
            ConfigurationError: It is no function, or an async one while the session is without asyncio.
        """
        if not callable(callback):
            raise ConfigurationError(f"after_commit takes a function of the stored events; got {callback!r}")
        if iscoroutinefunction(callback) and not self.asynchronous:
            raise ConfigurationError(
                "an async function cannot be awaited by a session without asyncio: give an ordinary one"
            )
        staging_of(self._bind.session).call_after_commit(callback)
