"""Doing something while somebody waits for a lock: what waits is found in the server's own list, never slept for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from sqlalchemy import text

from eventstore_sa.errors import EventStoreError
from tests.hosts import Ground
from tests.patience import wait_until

__all__ = ["outcome_while_waiting", "terminate_others", "terminate_waiting", "wait_for_waiting"]

_WAITING: Final = (
    "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE NOT l.granted AND a.datname = current_database()"
)
_TERMINATE_WAITING: Final = (
    "SELECT pg_terminate_backend(l.pid, 10000) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE NOT l.granted AND a.datname = current_database()"
)
_TERMINATE_OTHERS: Final = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


def wait_for_waiting(ground: Ground, waiters: int = 1) -> None:
    """Wait until so many connections to the database wait for locks."""
    with ground.outside.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        wait_until(lambda: connection.scalar(text(_WAITING)) >= waiters, f"{waiters} connections wait for locks")


def terminate_waiting(ground: Ground) -> None:
    """Wait until a connection waits for a lock, and take it away."""
    wait_for_waiting(ground)
    with ground.outside.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(_TERMINATE_WAITING))


def terminate_others(ground: Ground) -> None:
    """Take away all connections of others to the database."""
    ground.outside.dispose()
    with ground.outside.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(_TERMINATE_OTHERS))


async def outcome_while_waiting(host_work: Callable[[], Awaitable[Any]], meanwhile: Callable[[], object]) -> Any:
    """Start something that is going to wait, and do something meanwhile in a thread; return what comes of the former."""
    with ThreadPoolExecutor(1) as threads:
        doing: Future[object] = threads.submit(meanwhile)
        try:
            return await host_work()
        except EventStoreError as error:
            return error
        finally:
            await asyncio.wrap_future(doing)
