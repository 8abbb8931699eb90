"""The errors of a store, under the name that the store's users look for them."""

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
