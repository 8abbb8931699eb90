"""A process that runs a subscription for H5: it prints when it has begun, and the time of each event that it handles."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from eventstore_sa import EventStore
from eventstore_sa.subscriptions import Subscription, SubscriptionRunner


def _handle(_event: Any, _session: Any) -> None:
    print(time.time(), flush=True)


async def _main(url: str, name: str) -> None:
    engine = create_async_engine(url)
    subscription = Subscription(
        name, EventStore(engine).log(), _handle, sessions=async_sessionmaker(engine), start="now"
    )
    async with SubscriptionRunner([subscription], notifications=True) as runner:
        while (await subscription.status())[0].owner is None:  # noqa: ASYNC110 - it is the database that changes
            await asyncio.sleep(0.05)
        print("begun", flush=True)
        await runner.wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
