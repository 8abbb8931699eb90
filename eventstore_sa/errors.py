"""Every exception that eventstore_sa raises on purpose.

    EventStoreError
    |-- UnmetWriteConditionError     the stream is not in the state that the publish asked for
    |-- DuplicateEventError          an event with that id is already stored
    |-- SerialisationError           a value cannot be stored exactly (also a ValueError)
    |   `-- UnreadableEventError     a stored event cannot be read
    |       |-- UnknownEventTypeError  the store's event types have no such name or version
    |       |-- InvalidPayloadError  the payload does not fit its event type
    |       `-- PayloadKeyError      the key that a field was encrypted with is missing, or another one
    |-- ConfigurationError           the store was put together or called in a way that cannot work
    |-- SchemaError                  the tables are missing, older or newer than the library
    |-- TransactionError             the call cannot be made in this transaction; see `retryable`
    |   |-- ConcurrencyError         a concurrent transaction got in the way: deadlock, lost race, stale snapshot
    |   `-- LockTimeoutError         a lock could not be acquired in time
    |-- StorageError                 the database failed for another reason
    |   `-- ConnectionLostError      the connection broke
    |-- ProjectionVersionError       a stored projection has another version than the save expected
    |-- QueryError                   a search or lookup is invalid or cannot be answered (also a ValueError)
    |-- WaitTimeoutError             a read waited for an event and timed out
    |-- SubscriptionError            a subscription is stopped, or has not handled an event
    |-- BrokenExportError            an export is not complete, or not what was exported
    `-- MissingProjectionHandlerError  a projector has no handler for an event

There is one warning, `DroppedEventsWarning`.

A message says what happened, with which values, and what to do. Messages never contain payloads, metadata or passwords.
`must_roll_back` tells whether the caller's transaction is still usable after the error.
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
    "BrokenExportError",
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectionLostError",
    "DroppedEventsWarning",
    "DuplicateEventError",
    "EventStoreError",
    "InvalidPayloadError",
    "LockTimeoutError",
    "MissingProjectionHandlerError",
    "PayloadKeyError",
    "ProjectionVersionError",
    "QueryError",
    "SchemaError",
    "SerialisationError",
    "StorageError",
    "SubscriptionError",
    "TransactionError",
    "UnknownEventTypeError",
    "UnmetWriteConditionError",
    "UnreadableEventError",
    "WaitTimeoutError",
]


class EventStoreError(Exception):
    """The base of every error that the library raises on purpose.

    Attributes:
        message: What happened, and what to do.
        must_roll_back: Whether the caller's transaction, which the call was part of, can only be rolled back; the message
            says so too. If False, that transaction is as it was before the call and still usable; or the call had a
            transaction of its own, which has been rolled back.
    """

    must_roll_back: bool = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnmetWriteConditionError(EventStoreError):
    """The stream was not in the state that the publish asked for; nothing was stored.

    Attributes:
        stream: The stream whose condition was not met; None if a third-party adapter did not report it.
        condition: The condition as it was passed; None if a third-party adapter did not report it.
        actual_position: The position of the last event of the stream; None if the stream is empty.
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
    """Some of the event ids are already stored, and the publish is not an exact repetition; nothing was stored.

    Publishing exactly the same ids to the same stream again is not an error: it returns the stored events.

    Attributes:
        event_ids: The ids that are already stored, in the order of the publish.
    """

    def __init__(self, message: str, *, event_ids: Sequence[UUID] = ()) -> None:
        super().__init__(message)
        self.event_ids: tuple[UUID, ...] = tuple(event_ids)


class SerialisationError(EventStoreError, ValueError):
    """A value cannot be stored exactly: NaN, NUL, a lone surrogate, a type that no codec knows, ..."""


class UnreadableEventError(SerialisationError):
    """A stored event cannot be read: other SQL has inserted it, with values that publishing refuses; or see the subclasses.

    The events before it have been read. To read the events beyond it, start with `sequence_number_after` its number, or read
    backwards with `sequence_number_before`.

    Attributes:
        sequence_number: Its sequence number.
        position: Its position in its stream; None if that is not a number.
        stream: Its stream; None if the names cannot be read.
        name: Its name; None if that was not read.
        version: The version of its type; None if that was not read.
    """

    def __init__(
        self,
        message: str,
        *,
        sequence_number: int,
        position: int | None,
        stream: StreamIdentifier | None,
        name: str | None = None,
        version: int | None = None,
    ) -> None:
        super().__init__(message)
        self.sequence_number = sequence_number
        self.position = position
        self.stream = stream
        self.name = name
        self.version = version


class UnknownEventTypeError(UnreadableEventError):
    """The event types of the store have none of the name of a stored event, or only one of an older version."""


class InvalidPayloadError(UnreadableEventError):
    """A stored payload does not fit its event type, cannot be brought up to its version, or is damaged."""


class PayloadKeyError(UnreadableEventError):
    """An encrypted field cannot be decrypted: its key is not in the key ring, or is another one than it was."""


class ConfigurationError(EventStoreError):
    """The store was put together, or called, in a way that cannot work."""


class SchemaError(EventStoreError):
    """The tables of the event store are missing, or do not fit this version of the library."""


class TransactionError(EventStoreError):
    """The publish or read cannot be done in this transaction.

    Attributes:
        retryable: Whether the same call may succeed in a new transaction. `must_roll_back` tells whether the current one
            has to be rolled back, or is still usable.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ConcurrencyError(TransactionError):
    """A concurrent transaction got in the way: a deadlock, a lost race, a stale snapshot; nothing was stored.

    Always retryable. Publishes in transactions of their own are retried a few times before this is raised.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class LockTimeoutError(TransactionError):
    """A lock could not be acquired in time; nothing was stored. Always retryable."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class StorageError(EventStoreError):
    """The database failed for another reason; the error of the driver, if there is one, is the `__cause__`."""


class ConnectionLostError(StorageError):
    """The connection to the database broke.

    A transaction of the caller's (`must_roll_back`) is lost, and nothing was stored: roll back, then run all of it again.
    After a publish in a transaction of its own, it is unknown whether its events were stored; publishing the same events
    again, with the same ids, is safe: it stores them once. Publishes in transactions of their own, and reads, are retried a
    few times before this is raised.
    """


class ProjectionVersionError(EventStoreError):
    """The stored projection has another version than the save expected: another writer was faster; nothing was saved.

    Attributes:
        expected_version: The version that the save expected; 0: none.
        actual_version: The version that is stored; 0: none.
    """

    def __init__(self, message: str, *, expected_version: int, actual_version: int) -> None:
        super().__init__(message)
        self.expected_version = expected_version
        self.actual_version = actual_version


class QueryError(EventStoreError, ValueError):
    """A search or lookup is invalid or cannot be answered: page 0, a bad regular expression, several matches for one."""


class WaitTimeoutError(EventStoreError, TimeoutError):
    """A read with `wait_for` did not see the event in time, or a subscription has not handled it in time."""


class SubscriptionError(EventStoreError):
    """A subscription is stopped or does not exist, or has parked or skipped the event that was waited for.

    Attributes:
        subscription: The name of the subscription.
    """

    def __init__(self, message: str, *, subscription: str) -> None:
        super().__init__(message)
        self.subscription = subscription


class BrokenExportError(EventStoreError):
    """An export of events is not complete, or not what was exported; no event of it was stored, if it was a file."""


class MissingProjectionHandlerError(EventStoreError):
    """A projector has no handler for an event, and its missing handler behaviour is RAISE."""

    def __init__(self, message: str, *, projector: str, event_name: str) -> None:
        super().__init__(message)
        self.projector = projector
        self.event_name = event_name


class DroppedEventsWarning(UserWarning):
    """Staged or recorded events were dropped, although rows that were written with them may be committed."""
