"""Services: errors are handled as their handler decides, and several run side by side."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from eventstore_sa import EventStore, NewEvent
from eventstore_sa.attempts import Backoff
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.store.adapters import InMemoryEventStorageAdapter
from eventstore_sa.subscriptions import Subscription
from eventstore_sa.subscriptions.services import (
    CallableService,
    ContinueErrorHandler,
    ErrorHandlingService,
    ExitErrorHandler,
    PollingService,
    ProcessStatus,
    RaiseErrorHandler,
    RetryErrorHandler,
    ServiceManager,
    SubscriptionService,
    TypeMappingErrorHandler,
)

AT_ONCE = Backoff(first_s=0, longest_s=0)


def failing(*errors: Exception) -> Callable[[], Any]:
    """Return a function that raises these, and then returns how often it was called."""
    left = list(errors)
    calls = 0

    async def call() -> int:
        nonlocal calls
        calls += 1
        if left:
            raise left.pop(0)
        return calls

    return call


async def for_ever() -> None:
    await asyncio.Event().wait()


async def outcome(handler: Any, *errors: Exception) -> Any:
    service = ErrorHandlingService(CallableService(failing(*errors)), handler)
    try:
        return await service.execute(), service.status
    except (Exception, SystemExit) as error:
        return error, service.status


async def test_handlers_decide_what_becomes_of_an_error() -> None:
    error, other = ValueError("no"), KeyError("other")
    assert await outcome(RaiseErrorHandler(), error) == (error, ProcessStatus.ERRORED)
    assert await outcome(RaiseErrorHandler(lambda _: other), error) == (other, ProcessStatus.ERRORED)
    assert await outcome(ContinueErrorHandler(str), error) == ("no", ProcessStatus.STOPPED)
    left, status = await outcome(ExitErrorHandler(lambda _: 7), error)
    assert (type(left), left.code, status) == (SystemExit, 7, ProcessStatus.ERRORED)
    assert await outcome(RetryErrorHandler(backoff=AT_ONCE), error, error) == (3, ProcessStatus.STOPPED)
    assert await outcome(RetryErrorHandler(1, backoff=AT_ONCE), error, other) == (other, ProcessStatus.ERRORED)
    then = RetryErrorHandler(0, then=ContinueErrorHandler())
    assert await outcome(then, error) == (None, ProcessStatus.STOPPED)


async def test_the_closest_base_class_decides() -> None:
    handler = TypeMappingErrorHandler(
        {LookupError: ContinueErrorHandler(lambda _: "lookup"), KeyError: ContinueErrorHandler(lambda _: "key")},
        ContinueErrorHandler(lambda _: "other"),
    )
    for error, value in ((KeyError(), "key"), (IndexError(), "lookup"), (ValueError(), "other")):
        assert (await outcome(handler, error))[0] == value


async def test_services_run_side_by_side_until_they_are_stopped() -> None:
    polled = asyncio.Event()
    calls = 0

    async def poll() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            polled.set()

    manager = ServiceManager().register(CallableService(for_ever))
    manager.register(PollingService(poll, timedelta(0)), name="poller").register(
        CallableService(failing()), name="short"
    )
    assert {each.status for each in manager.statuses()} == {ProcessStatus.INITIALISED}
    async with manager:
        await polled.wait()
        assert [(each.name, each.status) for each in manager.statuses()] == [
            ("CallableService", ProcessStatus.RUNNING),
            ("poller", ProcessStatus.RUNNING),
            ("short", ProcessStatus.STOPPED),
        ]
        manager.stop()
        await manager.wait()
    assert {each.status for each in manager.statuses()} == {ProcessStatus.STOPPED}


async def test_a_failure_for_good_stops_the_others_and_is_raised() -> None:
    error = ValueError("no")
    manager = ServiceManager().register(CallableService(for_ever), name="first")
    manager.register(CallableService(failing(error)), name="second")
    with pytest.raises(ValueError, match="no"):
        await manager.run()
    assert [(each.status, each.last_error) for each in manager.statuses()] == [
        (ProcessStatus.STOPPED, None),
        (ProcessStatus.ERRORED, "ValueError: no"),
    ]

    ending = ServiceManager().register(CallableService(failing(error)), error_handler=ExitErrorHandler(lambda _: 3))
    with pytest.raises(SystemExit) as left:
        await ending.run()
    assert left.value.code == 3


async def test_a_failure_is_not_lost_if_nobody_waits_for_the_services() -> None:
    error, ended = ValueError("no"), asyncio.Event()

    async def until_cancelled() -> None:
        try:
            await for_ever()
        finally:
            ended.set()

    def failed() -> ServiceManager:
        return (
            ServiceManager()
            .register(CallableService(until_cancelled), name="first")
            .register(CallableService(failing(error)), name="second")
        )

    with pytest.raises(ValueError, match="no"):
        async with failed():
            await ended.wait()
    async with failed() as manager:
        with pytest.raises(ValueError, match="no"):
            await manager.wait()


async def test_a_failure_is_logged_if_something_else_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("no")

    async def raise_another() -> None:
        async with ServiceManager().register(CallableService(failing(error))):
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await raise_another()
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]


async def test_services_are_cancelled_once_and_end_as_they_like() -> None:
    cancellations = 0

    async def ends_slowly() -> None:
        nonlocal cancellations
        while cancellations == 0:
            try:
                await for_ever()
            except asyncio.CancelledError:
                cancellations += 1
        try:
            for _ in range(5):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancellations += 1

    manager = ServiceManager().register(CallableService(ends_slowly), name="first")
    manager.register(CallableService(failing(ValueError())), name="second")
    with pytest.raises(ValueError):  # noqa: PT011 - it says nothing
        await manager.run()
    assert cancellations == 1


async def test_all_may_end_and_signals_stop() -> None:
    await ServiceManager().run()
    await ServiceManager().register(CallableService(failing())).run()

    async def kill() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        await for_ever()

    await ServiceManager().register(CallableService(kill)).stop_on([signal.SIGUSR1]).run()


async def test_subscriptions_are_a_service() -> None:
    store = EventStore(InMemoryEventStorageAdapter())
    handled = asyncio.Event()
    subscription = Subscription("billing", store.log(), lambda _: handled.set())
    async with ServiceManager().register(SubscriptionService([subscription], lease_s=60.0)):
        await store.stream(category="orders", stream="1").publish(events=[NewEvent(name="placed", payload=1)])
        await handled.wait()


async def test_what_cannot_be_managed_is_refused() -> None:
    manager = ServiceManager().register(CallableService(for_ever))
    with pytest.raises(ConfigurationError, match="there is a service 'CallableService' already"):
        manager.register(CallableService(for_ever))
    with pytest.raises(ConfigurationError, match="are not running"):
        await manager.wait()
    async with manager:
        with pytest.raises(ConfigurationError, match="register all of them before"):
            manager.register(CallableService(for_ever), name="late")
        with pytest.raises(ConfigurationError, match="are running already"):
            await manager.run()
    with pytest.raises(ConfigurationError, match="must not be negative"):
        PollingService(for_ever, timedelta(-1))
    with pytest.raises(ConfigurationError, match="retries"):
        RetryErrorHandler(-1)
