"""What is done about the error of a service: handlers that decide, and their decisions.

`services.py` carries the decisions out. Nothing is run here, and no services are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from eventstore_sa.attempts import Backoff
from eventstore_sa.types.numbers import checked_count

__all__ = [
    "ContinueErrorHandler",
    "ContinueErrorHandlerDecision",
    "ErrorHandler",
    "ErrorHandlerDecision",
    "ExitErrorHandler",
    "ExitErrorHandlerDecision",
    "RaiseErrorHandler",
    "RaiseErrorHandlerDecision",
    "RetryErrorHandler",
    "RetryErrorHandlerDecision",
    "TypeMappingErrorHandler",
]


class RaiseErrorHandlerDecision(Struct, frozen=True):
    """Raise an exception."""

    exception: BaseException


class ExitErrorHandlerDecision(Struct, frozen=True):
    """End the process with an exit code."""

    exit_code: int


class ContinueErrorHandlerDecision(Struct, frozen=True):
    """Go on as if the service had ended with a value."""

    value: Any


class RetryErrorHandlerDecision(Struct, frozen=True):
    """Execute the service again, after so many seconds."""

    wait_before_retry_s: float


ErrorHandlerDecision: TypeAlias = (
    RaiseErrorHandlerDecision | ExitErrorHandlerDecision | ContinueErrorHandlerDecision | RetryErrorHandlerDecision
)
"""What is done about an error of a service."""


class ErrorHandler(Protocol):
    """Decides what is done about an error of a service."""

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide.

        Args:
            exception: What it has raised. Cancellation and other exceptions that are not an Exception always end it.
            failures: How often it has failed in a row, this time included.
        """
        ...


class RaiseErrorHandler:
    """Has the exception raised, or another one in its place.

    Args:
        exception_factory: Makes the exception to raise.
    """

    def __init__(self, exception_factory: Callable[[Exception], BaseException] = lambda exception: exception) -> None:
        self._exception_factory = exception_factory

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide; see `ErrorHandler.handle`."""
        return RaiseErrorHandlerDecision(self._exception_factory(exception))


class ExitErrorHandler:
    """Has the process ended.

    Args:
        exit_code_factory: Returns the exit code; by default it is 1.
    """

    def __init__(self, exit_code_factory: Callable[[Exception], int] = lambda _: 1) -> None:
        self._exit_code_factory = exit_code_factory

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide; see `ErrorHandler.handle`."""
        return ExitErrorHandlerDecision(self._exit_code_factory(exception))


class ContinueErrorHandler:
    """Has the error logged, and the service counted as ended.

    Args:
        value_factory: Returns what the service is to have returned; by default None.
    """

    def __init__(self, value_factory: Callable[[Exception], Any] = lambda _: None) -> None:
        self._value_factory = value_factory

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide; see `ErrorHandler.handle`."""
        return ContinueErrorHandlerDecision(self._value_factory(exception))


class RetryErrorHandler:
    """Has the service executed again.

    Args:
        retries: How often in a row; None: for ever.
        backoff: How long to pause before that.
        then: Decides when it has failed more often.

    Raises:
        ConfigurationError: If `retries` is negative.
    """

    def __init__(
        self,
        retries: int | None = None,
        *,
        backoff: Backoff = Backoff(first_s=0.2, longest_s=30.0),  # noqa: B008 - an immutable value
        then: ErrorHandler = RaiseErrorHandler(),  # noqa: B008 - it has no state
    ) -> None:
        self._retries = None if retries is None else checked_count("retries", retries, least=0)
        self._backoff = backoff
        self._then = then

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide; see `ErrorHandler.handle`."""
        if self._retries is not None and failures > self._retries:
            return self._then.handle(exception, failures)
        return RetryErrorHandlerDecision(self._backoff.pause_s(failures))


class TypeMappingErrorHandler:
    """Asks another handler, by the type of the exception.

    Args:
        type_mappings: The handlers, by types; that of the closest base class decides.
        default: Decides about all others.
    """

    def __init__(
        self,
        type_mappings: Mapping[type[Exception], ErrorHandler],
        default: ErrorHandler = RaiseErrorHandler(),  # noqa: B008 - it has no state
    ) -> None:
        self._type_mappings = dict(type_mappings)
        self._default = default

    def handle(self, exception: Exception, failures: int) -> ErrorHandlerDecision:
        """Decide; see `ErrorHandler.handle`."""
        for each in type(exception).__mro__:
            if each in self._type_mappings:
                return self._type_mappings[each].handle(exception, failures)
        return self._default.handle(exception, failures)
