"""What counts something is an integer within bounds, wherever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventstore_sa import EventStore, SyncEventStore, retry_transaction_sync
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.adapters import (
    SQLAlchemyProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.store import retry_on_error
from eventstore_sa.store.adapters import (
    InMemoryEventStorageAdapter,
    SQLAlchemyEventStorageAdapter,
    SyncSQLAlchemyEventStorageAdapter,
)
from eventstore_sa.types.numbers import LARGEST_NUMBER, checked_count
from tests.projectors import OrderProjector

_ASYNC, _SYNC = "sqlite+aiosqlite://", "sqlite://"

COUNTS: dict[str, tuple[int, Callable[[Any], object]]] = {
    "page_size": (1, lambda count: SQLAlchemyEventStorageAdapter(_ASYNC, page_size=count)),
    "page_size, sync": (1, lambda count: SyncSQLAlchemyEventStorageAdapter(_SYNC, page_size=count)),
    "page_size of projections": (1, lambda count: SQLAlchemyProjectionStorageAdapter(_ASYNC, page_size=count)),
    "page_size of projections, sync": (1, lambda count: SyncSQLAlchemyProjectionStorageAdapter(_SYNC, page_size=count)),
    "tries": (1, retry_on_error),
    "retries": (0, lambda count: retry_transaction_sync(_no_session, lambda _: None, retries=count)),
    "retries of update": (
        0,
        lambda count: (
            SyncEventStore(InMemoryEventStorageAdapter())
            .stream(category="orders", stream="1")
            .update(OrderProjector(), lambda _: [], retries=count)
        ),
    ),
}


def _no_session() -> Any:
    raise AssertionError("numbers are looked at first")


@pytest.mark.parametrize("where", COUNTS)
def test_what_is_no_count_is_refused(where: str) -> None:
    least, use = COUNTS[where]

    for count in (least - 1, -(2**63), LARGEST_NUMBER + 1, 10**30, True, 2.0, "2", None, float("nan")):
        with pytest.raises(ConfigurationError, match=rf"is an integer from {least} to 9223372036854775807; got"):
            use(count)


async def test_retries_of_an_update_with_asyncio_are_counted() -> None:
    stream = EventStore(InMemoryEventStorageAdapter()).stream(category="orders", stream="1")

    with pytest.raises(ConfigurationError, match="retries is an integer from 0"):
        await stream.update(OrderProjector(), lambda _: [], retries=-1)


def test_counts_within_bounds_are_taken() -> None:
    assert [checked_count("n", count) for count in (1, 2, LARGEST_NUMBER)] == [1, 2, LARGEST_NUMBER]
    assert checked_count("n", 0, least=0) == 0
