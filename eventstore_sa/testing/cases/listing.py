"""Cases: which streams and categories there are, in code-point order."""

from __future__ import annotations

from typing import Any

import pytest

from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.testing.cases.setting import LOG, EventStorageSetting, new_events, stored_in, stream
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import CategoryIdentifier, LogPartitionIdentifier, StreamIdentifier

__all__ = ["ListingCases"]

# Languages order these otherwise, and UTF-16 puts the last one before the one before.
NAMES = ["\x01", " ", "%", "1", "10", "2", "A", "B", "a", "a ", "a b", "ab", "b", "z", "ä", "日本", "\uffee", "🎉"]


async def streams_of(adapter: EventStorageAdapter, category: str | None = None) -> list[StreamIdentifier]:
    """List the streams of a category, or all."""
    target = LOG if category is None else CategoryIdentifier(category)
    return [found async for found in adapter.streams(target=target)]


async def categories_of(adapter: EventStorageAdapter) -> list[str]:
    """List the names of the categories."""
    return [found.category async for found in adapter.categories()]


class ListingCases(EventStorageSetting):
    """What is listed."""

    async def test_an_empty_store_has_no_streams_and_no_categories(self, adapter: EventStorageAdapter) -> None:
        await adapter.save(target=stream(), events=[])

        assert await categories_of(adapter) == []
        assert await streams_of(adapter) == []
        assert await streams_of(adapter, "orders") == []

    async def test_streams_and_categories_are_listed_once_in_code_point_order(
        self, adapter: EventStorageAdapter
    ) -> None:
        streams = [StreamIdentifier(category, name) for category in NAMES for name in NAMES[::5]]
        streams += [StreamIdentifier("b", name) for name in NAMES]
        definitions: Any = {name: {"events": new_events(2)} for name in reversed(streams)}
        await adapter.save(target=LOG, streams=definitions)
        await stored_in(adapter, *streams[::7])

        assert await categories_of(adapter) == NAMES
        assert await streams_of(adapter) == sorted(set(streams))
        assert await streams_of(adapter, "b") == [StreamIdentifier("b", name) for name in NAMES]
        assert await streams_of(adapter, "ä") == [StreamIdentifier("ä", name) for name in NAMES[::5]]
        assert await streams_of(adapter, "c") == []

    async def test_a_listing_without_a_target_is_of_the_log(self, adapter: EventStorageAdapter) -> None:
        await stored_in(adapter, stream("b"), stream("a"))

        assert [found async for found in adapter.streams()] == [stream("a"), stream("b")]

    @in_turn("target", [None, "orders", stream(), LogPartitionIdentifier(0, 2)])
    async def test_a_listing_of_what_is_neither_log_nor_category_is_refused(
        self, adapter: EventStorageAdapter, target: Any
    ) -> None:
        await stored_in(adapter, stream())

        with pytest.raises(ValueError, match="target"):
            _ = [found async for found in adapter.streams(target=target)]

    async def test_thousands_of_streams_and_categories_are_listed(self, adapter: EventStorageAdapter) -> None:
        few = [StreamIdentifier("a", f"{number}") for number in range(30)]
        many = [StreamIdentifier("b", f"{number}") for number in range(1050)]
        single = [StreamIdentifier(f"c-{number}", "1") for number in range(1050)]
        definitions: Any = {name: {"events": new_events(1)} for name in few + many + single}
        await adapter.save(target=LOG, streams=definitions)

        assert await streams_of(adapter) == sorted(few + many + single)
        assert await streams_of(adapter, "b") == sorted(many)
        assert await categories_of(adapter) == sorted({name.category for name in few + many + single})
