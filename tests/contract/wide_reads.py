"""An adapter with a guarantee below LOG, made fit for cases that look at the log and at categories.

What is wider than the guarantee has to be refused. Then it is read all the same, through a connection, as ordinary SQL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee
from eventstore_sa.store.adapters import EventStorageAdapter
from eventstore_sa.types import (
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    LogIdentifier,
    LogPartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
)

__all__ = ["WideReads"]

_LOG = (LogIdentifier, LogPartitionIdentifier)
_CATEGORY = (CategoryIdentifier, CategoryPartitionIdentifier, StreamNamePrefixPartitionIdentifier)
_REFUSED: dict[EventSerialisationGuarantee, tuple[type[Any], ...]] = {
    EventSerialisationGuarantee.LOG: (),
    EventSerialisationGuarantee.CATEGORY: _LOG,
    EventSerialisationGuarantee.STREAM: _LOG + _CATEGORY,
}


class WideReads(EventStorageAdapter):
    """Pass everything on; demand a refusal where there has to be one, and then ask `wide`."""

    def __init__(
        self, adapter: EventStorageAdapter, wide: EventStorageAdapter, guarantee: EventSerialisationGuarantee
    ) -> None:
        self._adapter = adapter
        self._wide = wide
        self._refused = _REFUSED[guarantee]

    async def save(self, **arguments: Any) -> Any:
        return await self._adapter.save(**arguments)

    async def latest(self, *, target: Any) -> Any:
        if not isinstance(target, self._refused):
            return await self._adapter.latest(target=target)
        with pytest.raises(ConfigurationError, match="serialisation_guarantee"):
            await self._adapter.latest(target=target)
        return await self._wide.latest(target=target)

    async def scan(self, *, target: Any = LogIdentifier(), **arguments: Any) -> AsyncIterator[Any]:  # noqa: B008
        reader = self._adapter
        # A limit is looked at before anything else.
        if isinstance(target, self._refused) and (limit := arguments.get("limit")) != 0 and (limit or 0) >= 0:
            with pytest.raises(ConfigurationError, match="serialisation_guarantee"):
                await anext(self._adapter.scan(target=target, **arguments))
            reader = self._wide
        async for event in reader.scan(target=target, **arguments):
            yield event

    async def streams(self, **arguments: Any) -> AsyncIterator[StreamIdentifier]:
        async for stream in self._adapter.streams(**arguments):
            yield stream

    async def categories(self) -> AsyncIterator[CategoryIdentifier]:
        async for category in self._adapter.categories():
            yield category

    async def watermark(self) -> Any:
        return await self._adapter.watermark()

    async def add_tags(self, added: Any) -> int:
        return await self._adapter.add_tags(added)

    async def tags_epoch(self, *, current: bool = False) -> str:
        return await self._adapter.tags_epoch(current=current)

    async def create_schema(self) -> None:
        await self._adapter.create_schema()
