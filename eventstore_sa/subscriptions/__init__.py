"""Subscriptions: hand the events of a source to a handler, in order, for ever, in any number of processes."""

from eventstore_sa.contracts.subscriptions import ParkedEvent, ParkedState, PartitionState
from eventstore_sa.errors import SubscriptionError
from eventstore_sa.subscriptions.failures import Consequence, FailurePolicy
from eventstore_sa.subscriptions.notifying import Notifier, SyncNotifier
from eventstore_sa.subscriptions.running import (
    SubscriptionRunner,
    SyncSubscriptionRunner,
    catch_up,
    catch_up_sync,
    run,
)
from eventstore_sa.subscriptions.sources import SubscribableSource, SyncSubscribableSource
from eventstore_sa.subscriptions.status import PartitionStatus, SubscriptionProgress
from eventstore_sa.subscriptions.subscription import Start, Subscription, SyncSubscription

__all__ = [
    "Consequence",
    "FailurePolicy",
    "Notifier",
    "ParkedEvent",
    "ParkedState",
    "PartitionState",
    "PartitionStatus",
    "Start",
    "SubscribableSource",
    "Subscription",
    "SubscriptionError",
    "SubscriptionProgress",
    "SubscriptionRunner",
    "SyncNotifier",
    "SyncSubscribableSource",
    "SyncSubscription",
    "SyncSubscriptionRunner",
    "catch_up",
    "catch_up_sync",
    "run",
]
