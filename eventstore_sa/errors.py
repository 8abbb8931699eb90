"""Every exception that eventstore_sa raises on purpose.

    EventStoreError
    |-- UnmetWriteConditionError     the stream is not in the state that the publish asked for
    |-- DuplicateEventError          an event with that id is already stored
    |-- SerialisationError           a value cannot be stored exactly (also a ValueError)
    |   `-- UnreadableEventError     a stored event, inserted by other SQL, cannot be read
    |-- ConfigurationError           the store was put together or called in a way that cannot work
    |-- SchemaError                  the tables are missing, older or newer than the library
    |-- TransactionError             the transaction cannot go on as it is; see `retryable`
    |   |-- ConcurrencyError         a concurrent transaction got in the way: deadlock, lost race, stale snapshot
    |   `-- LockTimeoutError         a lock could not be acquired in time
    |-- StorageError                 the database refused for a reason of its own
    |   `-- ConnectionLostError      the connection broke
    |-- ProjectionVersionError       a stored projection has another version than the save expected
    |-- QueryError                   a search or lookup makes no sense, or cannot be answered (also a ValueError)
    |-- WaitTimeoutError             a read waited for an event and its time ran out
    `-- MissingProjectionHandlerError  a projector met an event that it has no handler for

One thing is warned of, see `DroppedEventsWarning`.

A message says what happened, with which values, and what to do. Messages never hold payloads, metadata or passwords.
What is left of a transaction of the caller's after any of them is told by `must_roll_back`.
This module imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from eventstore_sa.conditions import WriteCondition
    from eventstore_sa.types import StreamIdentifier

__all__ = [
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectionLostError",
    "DroppedEventsWarning",
    "DuplicateEventError",
    "EventStoreError",
    "LockTimeoutError",
    "MissingProjectionHandlerError",
    "ProjectionVersionError",
    "QueryError",
    "SchemaError",
    "SerialisationError",
    "StorageError",
    "TransactionError",
    "UnmetWriteConditionError",
    "UnreadableEventError",
    "WaitTimeoutError",
]


class EventStoreError(Exception):
    """The base of every error that the library raises on purpose.

    Attributes:
        message: What happened, and what to do.
        must_roll_back: Whether the caller's transaction, which the call was part of, can only be rolled back; the message
            says so too. If not, that transaction is as it was before the call: its earlier work is in place and it can go
            on; or the call had a transaction of its own, of which there is nothing left to do away with.
    """

    must_roll_back: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnmetWriteConditionError(EventStoreError):
    """The stream was not in the state that the publish asked for; nothing was stored.

    Attributes:
        stream: The stream whose condition failed; None when a third-party adapter did not say.
        condition: The condition as it was given; None when a third-party adapter did not say.
        actual_position: The position of the last event of the stream, None when the stream is empty.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: StreamIdentifier | None = None,
        condition: WriteCondition | None = None,
        actual_position: int | None = None,
    ) -> None:
        super().__init__(message)
        self.stream = stream
        self.condition = condition
        self.actual_position = actual_position


class DuplicateEventError(EventStoreError):
    """Some of the event ids are already stored, and the publish is no exact repetition; nothing was stored.

    Publishing the very same ids to the same stream again is no error: it returns the stored events.

    Attributes:
        event_ids: The ids that are already stored, in the order of the publish.
    """

    def __init__(self, message: str, *, event_ids: Sequence[UUID] = ()) -> None:
        super().__init__(message)
        self.event_ids: tuple[UUID, ...] = tuple(event_ids)


class SerialisationError(EventStoreError, ValueError):
    """A value cannot be stored exactly: NaN, NUL, a lone surrogate, a type that no codec knows, ..."""


class UnreadableEventError(SerialisationError):
    """An event is stored that cannot be read: other SQL has inserted it, with values that publishing refuses.

    The events in front of it have been read. A read of what is behind it begins with `sequence_number_after` (or ends with
    `sequence_number_before`) its number.

    Attributes:
        sequence_number: Its place in the log.
        position: Its place in its stream; None where that is no number.
        stream: Its stream; None where the names cannot be read.
    """

    def __init__(
        self, message: str, *, sequence_number: int, position: int | None, stream: StreamIdentifier | None
    ) -> None:
        super().__init__(message)
        self.sequence_number = sequence_number
        self.position = position
        self.stream = stream


class ConfigurationError(EventStoreError):
    """The store was put together, or called, in a way that cannot work."""


class SchemaError(EventStoreError):
    """The tables of the event store are missing, or do not fit this version of the library."""


class TransactionError(EventStoreError):
    """The publish or read cannot be done in this transaction.

    Attributes:
        retryable: Whether the same call may succeed in a new transaction. Whether the old one has to be rolled back first,
            or may as well go on without the call, is told by `must_roll_back`.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ConcurrencyError(TransactionError):
    """A concurrent transaction got in the way: a deadlock, a lost race, a stale snapshot; nothing was stored.

    Always retryable. Publishes in transactions of their own are run again a few times before this is raised.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class LockTimeoutError(TransactionError):
    """A lock could not be acquired in time; nothing was stored. Always retryable."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class StorageError(EventStoreError):
    """The database refused for a reason of its own; the driver's error, if it raised one, is the `__cause__`."""


class ConnectionLostError(StorageError):
    """The connection to the database broke.

    In a transaction of the caller's (`must_roll_back`), all of it is lost, and nothing was stored: roll back, then run all
    of it again. Of a publish in a transaction of its own, it is not known whether its events were stored; publishing the
    same events again, with the same ids, is safe: it stores them once. Publishes in transactions of their own, and reads,
    do that a few times before this is raised.
    """


class ProjectionVersionError(EventStoreError):
    """The stored projection has another version than the save expected: another writer was faster; nothing was saved.

    Attributes:
        expected_version: The version that the save expected; 0: no projection.
        actual_version: The version that is stored; 0: there is none.
    """

    def __init__(self, message: str, *, expected_version: int, actual_version: int) -> None:
        super().__init__(message)
        self.expected_version = expected_version
        self.actual_version = actual_version


class QueryError(EventStoreError, ValueError):
    """A search or lookup makes no sense, or cannot be answered: page 0, a bad regular expression, two matches for one."""


class WaitTimeoutError(EventStoreError, TimeoutError):
    """A read with `wait_for` did not see that event in time, because an open transaction holds the log back."""


class MissingProjectionHandlerError(EventStoreError):
    """A projector has no handler for an event, and its missing handler behaviour is RAISE."""

    def __init__(self, message: str, *, projector: str, event_name: str) -> None:
        super().__init__(message)
        self.projector = projector
        self.event_name = event_name


class DroppedEventsWarning(UserWarning):
    """Staged or recorded events were dropped, although rows that were written with them may be committed."""
