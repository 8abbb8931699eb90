"""What is said of each kind of failure, and that a message never contradicts the error that it is in."""

from __future__ import annotations

from itertools import product

import pytest

from eventstore_sa.errors import ConnectionLostError, EventStoreError, TransactionError
from eventstore_sa.persistence.transactions.failures import Aftermath, Failure, FailureKind, error_of


def errors() -> list[tuple[str, Aftermath, EventStoreError]]:
    return [
        (
            f"{kind.name}, publishing={publishing}, {aftermath.name}",
            aftermath,
            error_of(Failure(kind, "what {the} server said"), publishing=publishing, aftermath=aftermath),
        )
        for kind, publishing, aftermath in product(FailureKind, (True, False), Aftermath)
    ]


def test_message_and_attribute_tell_the_same_of_rolling_back() -> None:
    for of_what, aftermath, error in errors():
        assert error.must_roll_back is (aftermath is Aftermath.BROKEN), of_what
        assert ("roll back" in str(error)) is error.must_roll_back, of_what


def test_message_says_what_to_do_exactly_where_it_may_help() -> None:
    for of_what, aftermath, error in errors():
        retryable = getattr(error, "retryable", isinstance(error, ConnectionLostError))
        again = "again" in str(error)
        assert again is retryable or "publish again to learn which" in str(error), of_what
        if aftermath is Aftermath.BROKEN and retryable:
            assert "roll back, then run all of the transaction again" in str(error), of_what


def test_words_of_the_server_are_passed_on_as_they_are() -> None:
    said = [str(error) for _, _, error in errors() if "{the}" in str(error)]

    assert said
    assert all("what {the} server said" in message for message in said)


def test_that_it_is_unknown_what_became_of_a_publish_is_said_of_our_own_transactions_alone() -> None:
    unknown = [of_what for of_what, _, error in errors() if "not known" in str(error)]

    assert sorted(unknown) == ["DISCONNECTED, publishing=True, OWN", "TIMED_OUT, publishing=True, OWN"]


@pytest.mark.parametrize("kind", [EventStoreError, TransactionError])
def test_errors_that_are_raised_before_anything_is_sent_ask_for_no_rollback(kind: type[EventStoreError]) -> None:
    assert kind("message").must_roll_back is False
