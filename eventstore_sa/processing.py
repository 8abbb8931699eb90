"""Where `logicblocks.event.store` has services, consumers and brokers.

Services are those of `eventstore_sa.subscriptions.services`. The work of consumers and brokers is done by subscriptions:
importing one of their names says what to use instead; docs/from-logicblocks.md shows how.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventstore_sa.replacements import replaced
from eventstore_sa.subscriptions.services import (
    CallableService,
    ContinueErrorHandler,
    ContinueErrorHandlerDecision,
    ErrorHandler,
    ErrorHandlerDecision,
    ErrorHandlingService,
    ExitErrorHandler,
    ExitErrorHandlerDecision,
    PollingService,
    ProcessStatus,
    RaiseErrorHandler,
    RaiseErrorHandlerDecision,
    RetryErrorHandler,
    RetryErrorHandlerDecision,
    Service,
    ServiceManager,
    TypeMappingErrorHandler,
)

__all__ = [
    "CallableService",
    "ContinueErrorHandler",
    "ContinueErrorHandlerDecision",
    "ErrorHandler",
    "ErrorHandlerDecision",
    "ErrorHandlingService",
    "ExitErrorHandler",
    "ExitErrorHandlerDecision",
    "PollingService",
    "ProcessStatus",
    "RaiseErrorHandler",
    "RaiseErrorHandlerDecision",
    "RetryErrorHandler",
    "RetryErrorHandlerDecision",
    "Service",
    "ServiceManager",
    "TypeMappingErrorHandler",
]

_SUBSCRIPTION: Final = "Subscription of eventstore_sa.subscriptions, which keeps its own position"
_RUN: Final = "run([...]) of eventstore_sa.subscriptions, which divides the work between processes"
_FAILURES: Final = "the FailurePolicy of a Subscription (eventstore_sa.subscriptions)"
_SERVICES: Final = "ServiceManager, which runs all services on one event loop"
_STATUS: Final = "status() of a Subscription (eventstore_sa.subscriptions)"
_LOCKS: Final = "Subscription, whose partitions are leased, or an advisory lock of the database"

_REPLACED: Final = {
    **dict.fromkeys(
        (
            "EventConsumer",
            "EventConsumerState",
            "EventConsumerStateConverter",
            "EventConsumerStateStore",
            "EventCount",
            "EventProcessor",
            "EventSourceConsumer",
            "EventSubscriber",
            "EventSubscriptionConsumer",
            "make_event_store_subscriber",
            "make_subscriber",
        ),
        _SUBSCRIPTION,
    ),
    "ProjectionEventProcessor": "Subscription with a projector as its handler (eventstore_sa.subscriptions)",
    **dict.fromkeys(
        (
            "DistributedEventBroker",
            "DistributedEventBrokerSettings",
            "DistributedEventBrokerTypeType",
            "EventBroker",
            "EventBrokerStorageType",
            "EventBrokerType",
            "InMemoryEventBrokerStorageTypeType",
            "PostgresEventBrokerStorageTypeType",
            "SingletonEventBroker",
            "SingletonEventBrokerSettings",
            "SingletonEventBrokerTypeType",
            "make_event_broker",
            "make_in_memory_event_broker",
            "make_postgres_event_broker",
        ),
        _RUN,
    ),
    **dict.fromkeys(
        (
            "ErrorHandlingServiceMixin",
            "continue_execution_type_mapping",
            "error_handler_type_mappings",
            "exit_fatally_type_mapping",
            "raise_exception_type_mapping",
            "retry_execution_type_mapping",
        ),
        _FAILURES,
    ),
    **dict.fromkeys(
        (
            "DeferredFuture",
            "ExecutionMode",
            "IsolationMode",
            "ManagedServiceState",
        ),
        _SERVICES,
    ),
    **dict.fromkeys(
        (
            "DelegateServiceStatusTrackingMixin",
            "EventSubscriberHealth",
            "HasProcessStatus",
            "Process",
            "StatusTrackingService",
            "determine_multi_process_status",
        ),
        _STATUS,
    ),
    **dict.fromkeys(("InMemoryLockManager", "Lock", "LockManager", "PostgresLockManager"), _LOCKS),
}

if not TYPE_CHECKING:
    __getattr__ = replaced(__name__, _REPLACED)
