"""The event stores that are compared, each in a module: ours, the raw driver, and the peers that are installed.

A peer is configured as its documentation recommends, without tuning; what it gives up for that is said beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from msgspec import Struct

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.raw import RawDriver
from benchmarks.databases import Database, Setting, database

__all__ = ["PEERS", "Peer", "opened_contenders"]


class Peer(Struct, frozen=True):
    """A peer that is measured if it is installed.

    Attributes:
        module: Its module in this package.
        distributions: What has to be installed; the first one gives the version.
        contenders: The names of its classes in the module.
    """

    module: str
    distributions: Sequence[str]
    contenders: Sequence[str]

    @property
    def missing(self) -> str | None:
        """What is not installed; None if the peer can take part."""
        if not self.distributions:
            return import_module(f"benchmarks.contenders.{self.module}").missing()
        for distribution in self.distributions:
            try:
                version(distribution)
            except PackageNotFoundError:
                return f"{distribution} is not installed"
        return None

    def classes(self) -> list[type[Contender]]:
        """Import its contenders."""
        module = import_module(f"benchmarks.contenders.{self.module}")
        return [getattr(module, name) for name in self.contenders]


PEERS: Final[Mapping[str, Peer]] = {
    "message-db": Peer("message_db", (), ("MessageDb",)),
    "eventsourcing": Peer(
        "eventsourcing_", ("eventsourcing", "psycopg", "psycopg-pool"), ("EventSourcing", "EventSourcingDcb")
    ),
    "eventsourcing-sqlalchemy": Peer(
        "eventsourcing_sqlalchemy_",
        ("eventsourcing-sqlalchemy", "psycopg", "psycopg-pool"),
        ("EventSourcingSqlAlchemy",),
    ),
    "python-event-sourcery": Peer("event_sourcery_", ("python-event-sourcery",), ("EventSourcery",)),
    "eventsource-py": Peer("eventsource_", ("eventsource-py",), ("EventSourcePy",)),
    "logicblocks-event-store": Peer("logicblocks_", ("logicblocks.event.store",), ("Logicblocks",)),
}
"""What is compared with, by name."""


@asynccontextmanager
async def opened_contenders(setting: Setting, *, connections: int) -> AsyncIterator[list[Contender]]:
    """Open all contenders, each on a database of its own; only ours and the raw driver share one."""
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(database(setting))
        opened: list[tuple[type[Contender], Database]] = [(Ours, shared), (RawDriver, shared)]
        for peer in PEERS.values() if setting.with_peers else ():
            if peer.missing is None:
                opened += [
                    (contender, await stack.enter_async_context(database(setting))) for contender in peer.classes()
                ]
        contenders: list[Contender] = []
        for contender, db in opened:
            contenders.append(await stack.enter_async_context(contender.opened(db, connections)))
            contenders[-1].db = db
        yield contenders
