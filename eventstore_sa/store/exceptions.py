"""The exceptions of `eventstore_sa.errors` again, where users of a store look for them."""

from eventstore_sa.errors import (
    ConcurrencyError,
    ConfigurationError,
    ConnectionLostError,
    DuplicateEventError,
    EventStoreError,
    LockTimeoutError,
    SchemaError,
    SerialisationError,
    StorageError,
    TransactionError,
    UnmetWriteConditionError,
    WaitTimeoutError,
)

__all__ = [
    "ConcurrencyError",
    "ConfigurationError",
    "ConnectionLostError",
    "DuplicateEventError",
    "EventStoreError",
    "LockTimeoutError",
    "SchemaError",
    "SerialisationError",
    "StorageError",
    "TransactionError",
    "UnmetWriteConditionError",
    "WaitTimeoutError",
]
