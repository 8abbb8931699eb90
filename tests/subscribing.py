"""A node in a process of its own: `python -m tests.subscribing URL NAME PARTITIONS LEASE_S`.

It stores an effect for each event: its number, its stream, its position, and which process and which epoch handled it. It
prints a line when it has begun, and ends at SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from eventstore_sa import EventStore
from eventstore_sa.subscriptions import Subscription, SubscriptionRunner
from tests.preloaded import PreloadedProcess, start_preloaded

__all__ = ["CREATE_EFFECTS", "start_node"]

CREATE_EFFECTS = (
    "CREATE TABLE effects (number bigint NOT NULL, stream text NOT NULL, position bigint NOT NULL, node int NOT NULL, "
    "at timestamptz NOT NULL DEFAULT clock_timestamp())"
)

_INSERT = text("INSERT INTO effects (number, stream, position, node) VALUES (:number, :stream, :position, :node)")


async def _handle(event: Any, session: AsyncSession) -> None:
    values = {
        "number": event.sequence_number,
        "stream": event.stream,
        "position": event.position,
        "node": os.getpid(),
    }
    await session.execute(_INSERT, values)


async def main(url: str, name: str, partitions: str, lease_s: str) -> None:
    """Run until SIGTERM."""
    engine = create_async_engine(url)
    subscription = Subscription(
        name,
        EventStore(engine).category(category="orders"),
        _handle,
        sessions=async_sessionmaker(engine),
        partitions=int(partitions),
        batch_size=50,
        deadline_s=float(lease_s) / 4,
        commit_every_s=0.2,
    )
    async with SubscriptionRunner([subscription], lease_s=float(lease_s)) as runner:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.stop)
        print("begun", flush=True)
        await runner.wait()
    await engine.dispose()


def start_node(url: Any, name: str, *, partitions: int, lease_s: float) -> PreloadedProcess:
    """Start a node, and wait until it has begun."""
    address = url.render_as_string(hide_password=False)
    process = start_preloaded(
        "-m", "tests.subscribing", address, name, str(partitions), str(lease_s), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
