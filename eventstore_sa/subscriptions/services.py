"""Services: what an application runs side by side for as long as it lives.

What is done about their errors is decided in `error_handlers.py`, whose names are public here. A subscription handles its
failures itself (`failures.py`); this is for what runs beside it, and for the process as a whole. All of it is for asyncio,
on one event loop, and knows no database.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

from msgspec import Struct

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.subscriptions.error_handlers import (
    ContinueErrorHandler,
    ContinueErrorHandlerDecision,
    ErrorHandler,
    ErrorHandlerDecision,
    ExitErrorHandler,
    ExitErrorHandlerDecision,
    RaiseErrorHandler,
    RaiseErrorHandlerDecision,
    RetryErrorHandler,
    RetryErrorHandlerDecision,
    TypeMappingErrorHandler,
)
from eventstore_sa.subscriptions.running import run
from eventstore_sa.subscriptions.subscription import Subscription

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
    "ServiceStatus",
    "SubscriptionService",
    "TypeMappingErrorHandler",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_HEALTHY_S: Final = 60.0

_log = logging.getLogger("eventstore_sa.subscriptions")


class ProcessStatus(StrEnum):
    """What a service is doing."""

    INITIALISED = "initialised"
    """It has not been started."""

    RUNNING = "running"
    """It is being executed."""

    WAITING = "waiting"
    """It has failed, and waits to be executed again."""

    STOPPED = "stopped"
    """It has ended, or was stopped."""

    ERRORED = "errored"
    """It has failed for good."""


class Service(ABC, Generic[T_co]):
    """Something that runs, for a while or for ever."""

    @abstractmethod
    async def execute(self) -> T_co:
        """Run; end when cancelled."""


class CallableService(Service[T]):
    """Calls a function once.

    Args:
        callable: A coroutine function without arguments.
    """

    def __init__(self, callable: Callable[[], Awaitable[T]]) -> None:
        self._callable = callable

    async def execute(self) -> T:
        """Call it, and return what it returns."""
        return await self._callable()


class PollingService(Service[NoReturn]):
    """Calls a function again and again, with a pause after each call.

    Args:
        callable: A coroutine function without arguments.
        poll_interval: How long to pause.

    Raises:
        ConfigurationError: If the pause is negative.
    """

    def __init__(
        self, callable: Callable[[], Awaitable[object]], poll_interval: timedelta = timedelta(seconds=1)
    ) -> None:
        if poll_interval < timedelta(0):
            raise ConfigurationError(f"poll_interval must not be negative; got {poll_interval}")
        self._callable = callable
        self._pause_s = poll_interval.total_seconds()

    async def execute(self) -> NoReturn:
        """Call it until this is cancelled, or it raises."""
        while True:
            await self._callable()
            await asyncio.sleep(self._pause_s)


class SubscriptionService(Service[None]):
    """Runs subscriptions: `run`, as a service.

    Args:
        subscriptions: As for `run`.
        options: As for `run`.
    """

    def __init__(self, subscriptions: Sequence[Subscription], **options: Any) -> None:
        self._subscriptions = tuple(subscriptions)
        self._options = options

    async def execute(self) -> None:
        """Run them until this is cancelled; current events are handled to their end."""
        await run(self._subscriptions, **self._options)


class ErrorHandlingService(Service[T]):
    """Executes another service, and has a handler decide about its errors.

    Failures count as in a row if the service has run for less than a minute in between.

    Args:
        service: The other service.
        error_handler: The handler.

    Attributes:
        status: What the service is doing.
        last_error: What it has raised last; None if it never has.
        failures: How often it has failed in a row.
    """

    def __init__(self, service: Service[T], error_handler: ErrorHandler) -> None:
        self.status: ProcessStatus = ProcessStatus.INITIALISED
        self.last_error: Exception | None = None
        self.failures: int = 0
        self._service = service
        self._error_handler = error_handler

    async def execute(self) -> T:
        """Execute it until it ends; return what it returns, or what the handler says in its place.

        Raises:
            SystemExit: If the handler has the process ended.
        """
        try:
            value = await self._execute()
        except asyncio.CancelledError:
            self.status = ProcessStatus.STOPPED
            raise
        except BaseException:
            self.status = ProcessStatus.ERRORED
            raise
        self.status = ProcessStatus.STOPPED
        return value

    async def _execute(self) -> T:
        while True:
            self.status, began = ProcessStatus.RUNNING, time.monotonic()
            try:
                return await self._service.execute()
            except Exception as error:
                self.failures = 1 if time.monotonic() - began > _HEALTHY_S else self.failures + 1
                self.last_error = error
                decision = self._error_handler.handle(error, self.failures)
                match decision:
                    case RaiseErrorHandlerDecision(exception):
                        if exception is error:
                            raise
                        raise exception from error
                    case ExitErrorHandlerDecision(exit_code):
                        _log.exception("a service has failed, and the process ends")
                        raise SystemExit(exit_code) from error
                    case ContinueErrorHandlerDecision(value):
                        _log.exception("a service has failed, and is not executed again")
                        result: T = value
                        return result
                    case RetryErrorHandlerDecision(pause_s):
                        _log.exception("a service has failed, and is executed again in %.1f s", pause_s)
                        self.status = ProcessStatus.WAITING
                        await asyncio.sleep(pause_s)


class ServiceStatus(Struct, frozen=True):
    """How a service is getting on.

    Attributes:
        name: Its name.
        status: What it is doing.
        failures: How often it has failed in a row.
        last_error: What it has raised last, as text; None if it never has.
    """

    name: str
    status: ProcessStatus
    failures: int
    last_error: str | None


class ServiceManager:
    """Runs services side by side, as an asynchronous context manager, or by `run`.

    If one of them fails for good, the others are stopped, and `wait` raises its exception; so does the end of the context,
    if nothing has raised it before.

    Example:
        manager = ServiceManager().register(SubscriptionService([billing])).stop_on([signal.SIGTERM])
        asyncio.run(manager.run())
    """

    def __init__(self) -> None:
        self._services: dict[str, ErrorHandlingService[Any]] = {}
        self._signals: list[int] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._failure: BaseException | None = None
        self._is_raised = False
        self._are_cancelled = False
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def register(
        self,
        service: Service[Any],
        *,
        name: str | None = None,
        error_handler: ErrorHandler = RaiseErrorHandler(),  # noqa: B008 - it has no state
    ) -> Self:
        """Add a service before the start; return the manager.

        Args:
            service: The service.
            name: Its name; by default that of its class.
            error_handler: Decides about its errors.

        Raises:
            ConfigurationError: If there is a service with this name, or the services are running.
        """
        if self._loop is not None:
            raise ConfigurationError("the services are running: register all of them before")
        called = name or type(service).__name__
        if called in self._services:
            raise ConfigurationError(f"there is a service {called!r} already: pass a name")
        self._services[called] = ErrorHandlingService(service, error_handler)
        return self

    def stop_on(self, signals: Sequence[int]) -> Self:
        """Have signals of the process stop the services; return the manager."""
        self._signals += signals
        return self

    def statuses(self) -> Sequence[ServiceStatus]:
        """Return how each service is getting on, in the order of their registration."""
        return [
            ServiceStatus(
                name,
                each.status,
                each.failures,
                None if each.last_error is None else f"{type(each.last_error).__name__}: {each.last_error}",
            )
            for name, each in self._services.items()
        ]

    async def run(self) -> None:
        """Run the services until all have ended, one has failed for good, or `stop` is called.

        Raises:
            SystemExit: If an error handler has the process ended.
            BaseException: What a service has raised.
        """
        async with self:
            await self.wait()

    async def wait(self) -> None:
        """Wait until all services have ended, one has failed for good, or `stop` is called; then all are stopped.

        Raises:
            SystemExit: If an error handler has the process ended.
            BaseException: What a service has raised.
        """
        if self._stopping is None:
            raise ConfigurationError("the services are not running: use `async with`, or run()")
        await self._stopping.wait()
        await self._end()
        if self._failure is not None:
            self._is_raised = True
            raise self._failure

    def stop(self) -> None:
        """Stop all services; from any thread."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise ConfigurationError("the services are running already")
        self._loop, self._stopping, self._failure = asyncio.get_running_loop(), asyncio.Event(), None
        self._is_raised = self._are_cancelled = False
        for each in self._signals:
            self._loop.add_signal_handler(each, self.stop)
        self._tasks = [asyncio.create_task(self._kept(service), name=name) for name, service in self._services.items()]
        for task in self._tasks:
            task.add_done_callback(self._note_end)
        if not self._tasks:
            self._stopping.set()
        return self

    async def __aexit__(self, _: object, raised: BaseException | None, *__: object) -> None:
        loop = self._loop
        try:
            await self._end()
        finally:
            if loop is not None:
                for each in self._signals:
                    loop.remove_signal_handler(each)
            self._loop = self._stopping = None
        if self._failure is None or self._is_raised:
            return
        if raised is None:
            raise self._failure
        _log.error("a service has failed", exc_info=self._failure)

    async def _kept(self, service: ErrorHandlingService[Any]) -> None:
        try:
            await service.execute()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit too, which would tear the event loop down
            self._failure = self._failure or error

    def _note_end(self, _: asyncio.Task[Any]) -> None:
        if self._failure is not None:
            self._cancel()
        if self._stopping is not None and all(task.done() for task in self._tasks):
            self._stopping.set()

    def _cancel(self) -> None:
        """Cancel all services, once: a second time would interrupt the way in which they end."""
        if self._stopping is not None:
            self._stopping.set()
        if not self._are_cancelled:
            self._are_cancelled = True
            for task in self._tasks:
                task.cancel()

    async def _end(self) -> None:
        self._cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
