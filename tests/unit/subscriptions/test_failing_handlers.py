"""What a policy says, and which errors are not the handler's."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from eventstore_sa.attempts import Backoff
from eventstore_sa.errors import (
    ConcurrencyError,
    ConfigurationError,
    ConnectionLostError,
    LockTimeoutError,
    SerialisationError,
)
from eventstore_sa.store import SyncEventStore
from eventstore_sa.store.adapters import SyncInMemoryEventStorageAdapter
from eventstore_sa.subscriptions import FailurePolicy, SyncSubscription, SyncSubscriptionRunner
from eventstore_sa.subscriptions.failures import described, is_outage, traceable
from eventstore_sa.testing.builders import StoredEventBuilder
from eventstore_sa.testing.cases.tables import in_turn

EVENT = StoredEventBuilder().build()


class Refused(Exception):
    """An error of a driver for PostgreSQL."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("refused")
        self.sqlstate = sqlstate


def test_a_policy_tries_again_as_often_as_it_says() -> None:
    policy = FailurePolicy(retries=2)
    assert [policy.tries_again(ValueError(), failures) for failures in (1, 2, 3)] == [True, True, False]
    assert FailurePolicy(retries=0).tries_again(ValueError(), 1) is False
    assert FailurePolicy(retry_on=OSError).tries_again(ValueError(), 1) is False
    assert FailurePolicy(retry_on=lambda error: "again" in str(error)).tries_again(ValueError("again"), 1) is True


def test_a_policy_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="retries is an integer from 0"):
        FailurePolicy(retries=-1)
    with pytest.raises(ConfigurationError, match="'stop', 'skip', 'park'; got None"):
        FailurePolicy(then=lambda error, event: None).consequence(ValueError(), EVENT)  # type: ignore[arg-type,return-value]
    assert FailurePolicy(backoff=Backoff(first_s=0, longest_s=0)).backoff.pause_s(3) == 0


def subscribed(handler: Any = lambda event: None, *, name: str = "mails", **options: Any) -> SyncSubscription:
    return SyncSubscription(name, SyncEventStore(SyncInMemoryEventStorageAdapter()).log(), handler, **options)


@in_turn(
    "options, error, message",
    [
        ({"handler": lambda: None}, ConfigurationError, "takes 0 arguments: define it as `handler"),
        ({"handler": lambda a, b, c: None}, ConfigurationError, "takes 3 arguments: define it as `handler"),
        ({"on_failure": "park"}, ConfigurationError, r"FailurePolicy\(then='park'\); got 'park'"),
        ({"name": ""}, SerialisationError, "the subscription name must not be empty$"),
    ],
)
def test_what_cannot_be_subscribed_says_what_can(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        subscribed(**options)


def test_a_single_subscription_is_run_as_a_list() -> None:
    given: Any = subscribed()

    with pytest.raises(ConfigurationError, match=r"even a single one: \[subscription\]; got SyncSubscription"):
        SyncSubscriptionRunner(given)


class InternalClientError(Exception):
    """As asyncpg's, of a connection that is lost while it is busy."""


@in_turn(
    "error",
    {
        "lost": ConnectionLostError("lost"),
        "race": ConcurrencyError("race"),
        "shut down": DBAPIError("SELECT", {}, Refused("57P01")),
        "confused by a lost connection": DBAPIError("SELECT", {}, InternalClientError()),
        "deadlock": DBAPIError("SELECT", {}, Refused("40P01")),
        "invalidated": OperationalError("SELECT", {}, Refused(""), connection_invalidated=True),
    },
)
def test_what_is_not_the_fault_of_a_handler(error: Exception) -> None:
    assert is_outage(error)


@in_turn(
    "error",
    {
        "its own": ValueError("no"),
        "another service": ConnectionRefusedError("no"),
        "constraint": DBAPIError("INSERT", {}, Refused("23505")),
        "lock": LockTimeoutError("it may wait for itself"),
    },
)
def test_what_is(error: Exception) -> None:
    assert not is_outage(error)


def test_errors_are_described_without_parameters_and_can_be_stored() -> None:
    error = DBAPIError("INSERT", {"secret": "payload"}, Refused("23505"))

    assert described(error) == "DBAPIError: refused"
    assert described(ValueError("a\0b\ud800")) == "ValueError: a\\0b\\ud800"
    assert len(described(ValueError("x" * 10_000))) == 2000


def test_tracebacks_with_parameters_are_not_logged() -> None:
    shown, hidden = ValueError("no"), KeyError("no")
    hidden.__cause__ = DBAPIError("INSERT", {"secret": "payload"}, Refused("23505"))

    assert traceable(shown) is shown
    assert traceable(hidden) is None
