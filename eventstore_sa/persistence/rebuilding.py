"""Rebuilding projections as whole operations: connections are opened and closed here, and each step is a transaction.

Synchronous; the asyncio face runs it in a greenlet. Events are read by whoever drives a rebuild, but for the last ones,
which are read and applied in the transaction that puts the results in place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final, Protocol, TypeAlias
from uuid import uuid4

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from eventstore_sa.errors import ConcurrencyError, ConfigurationError, LockTimeoutError
from eventstore_sa.persistence.binds import Bind
from eventstore_sa.persistence.document import publish_document
from eventstore_sa.persistence.lock_timeouts import limit_waits
from eventstore_sa.persistence.problems import ProblemKind
from eventstore_sa.persistence.queries import ConstraintConverters
from eventstore_sa.persistence.repositories.events import EventRepository
from eventstore_sa.persistence.repositories.projection_batches import projection_batches
from eventstore_sa.persistence.repositories.projection_locks import (
    lock_holders,
    lock_parameters,
    name_lock,
)
from eventstore_sa.persistence.repositories.projection_rebuilds import ProjectionRebuilds, RebuildProgressRecord
from eventstore_sa.persistence.repositories.reads import Wanted
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.workplaces import Workplaces
from eventstore_sa.publishing import AnyStoredEvent
from eventstore_sa.query.records import ProjectionRecord
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.types import CategoryIdentifier, LogIdentifier

__all__ = ["ApplyLast", "Load", "RebuildStorage", "RebuildTarget", "SQLRebuildStorage", "rebuild_taken_over"]

_FIRST_SLICE_S: Final = 0.02
_LONGEST_SLICE_S: Final = 0.64

RebuildTarget: TypeAlias = CategoryIdentifier | LogIdentifier
Load: TypeAlias = Callable[[Collection[str]], Mapping[str, ProjectionRecord]]
ApplyLast: TypeAlias = Callable[[Sequence[AnyStoredEvent], Load], Sequence[ProjectionRecord]]
"""Takes events, and what loads rebuilt projections by their ids; returns the projections that have changed."""


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


class SQLRebuildStorage:
    """The rebuild of the projections of one name in a database; see `RebuildStorage`.

    Args:
        bind: Where connections come from.
        schema: The tables.
        name: The name of the projections.

    Raises:
        ConfigurationError: Everything on the bind is part of one transaction.
    """

    def __init__(self, bind: Bind, schema: EventStoreSchema, name: str) -> None:
        if bind.engine is None:
            raise ConfigurationError(
                "a rebuild commits as it goes on, which it cannot within a transaction of somebody else's: give it a store "
                "on an engine"
            )
        self._bind = bind
        self._schema = schema
        self._name = name
        self._places = Workplaces(bind, schema, constraint_converters=ConstraintConverters())
        # A number of its own: whoever finds another one in the table knows that another run has begun.
        self._run = uuid4().int >> 65
        self._progress = RebuildProgressRecord("")

    def begin(self, plan: str) -> RebuildProgressRecord:
        with self._transaction() as (connection, _):
            self._progress = self._rebuilds(connection).begin(connection, self._name, plan, self._run)
        return self._progress

    def load(self, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        with self._places.enter(self._bind.reading(), checked=False) as (workplace, _):
            return self._load(workplace.connection, ids)

    def save(self, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int) -> RebuildProgressRecord:
        with self._transaction() as (connection, _):
            return self._save(connection, records, sequence_number=sequence_number, events=events)

    def finish(self, target: RebuildTarget, apply: ApplyLast | None, *, page_size: int, timeout_s: float) -> int:
        with self._transaction() as (connection, repository):
            self._exclude_publishes(connection, repository, timeout_s)
            while apply is not None:
                after = frozenset({sequence_number_after(self._progress.sequence_number)})
                page = repository.page(connection, Wanted(target, page_size, after)).checked_events()
                if not page:
                    break
                records = apply(page, lambda ids: self._load(connection, ids))
                self._save(connection, records, sequence_number=page[-1].sequence_number, events=len(page))
            if not self._rebuilds(connection).advance(connection, self._name, self._run, self._progress):
                raise rebuild_taken_over(self._name)
            return self._rebuilds(connection).swap(connection, self._name)

    @contextmanager
    def _transaction(self) -> Generator[tuple[Connection, EventRepository]]:
        with self._places.enter(self._bind.deciding(), checked=False) as (workplace, repository):
            yield workplace.connection, repository

    def _exclude_publishes(self, connection: Connection, repository: EventRepository, timeout_s: float) -> None:
        if connection.dialect.name != "postgresql":
            repository.dialect.lock(connection, publish_document(()))
            return
        deadline, slice_s = monotonic() + timeout_s, _FIRST_SLICE_S
        while not self._try_to_exclude(connection, repository, slice_s):
            if monotonic() >= deadline:
                holders = connection.scalar(lock_holders(), lock_parameters(connection, self._schema, self._name))
                raise LockTimeoutError(
                    f"publishes that update projections {self._name!r} did not come to an end in {timeout_s:g} s, those of "
                    f"{holders or 'a transaction that has just ended'}: call again to go on, or give it more time"
                )
            connection.execute(select(func.pg_catalog.pg_sleep(slice_s)))
            slice_s = min(slice_s * 2, _LONGEST_SLICE_S)
        limit_waits(connection, timeout_s)

    def _try_to_exclude(self, connection: Connection, repository: EventRepository, slice_s: float) -> bool:
        """Queue for the lock, but for a moment only: all publishes of these projections queue up behind."""
        try:
            with connection.begin_nested():
                limit_waits(connection, slice_s)
                connection.execute(select(name_lock()), lock_parameters(connection, self._schema, self._name))
        except DBAPIError as error:
            if repository.dialect.problem_of(error).kind is not ProblemKind.LOCK_TIMEOUT:
                raise
            return False
        return True

    def _load(self, connection: Connection, ids: Collection[str]) -> Mapping[str, ProjectionRecord]:
        return projection_batches(self._schema, connection.dialect.name, rebuilding=True).load(
            connection, self._name, ids
        )

    def _save(
        self, connection: Connection, records: Sequence[ProjectionRecord], *, sequence_number: int, events: int
    ) -> RebuildProgressRecord:
        before = self._progress
        after = RebuildProgressRecord(before.plan, sequence_number, before.events + events)
        batches = projection_batches(self._schema, connection.dialect.name, rebuilding=True)
        if not self._rebuilds(connection).advance(connection, self._name, self._run, after) or (
            records and batches.save(connection, records) < len(records)
        ):
            raise rebuild_taken_over(self._name)
        self._progress = after
        return after

    def _rebuilds(self, connection: Connection) -> ProjectionRebuilds:
        return ProjectionRebuilds(self._schema, connection.dialect.name)


def rebuild_taken_over(name: str) -> ConcurrencyError:
    """Say that there is another rebuild."""
    return ConcurrencyError(
        f"another rebuild of the projections {name!r} has begun and takes the place of this one: wait for it to end"
    )
