"""A rebuild in a process that kills itself half-way: `python -m tests.rebuilding_killed URL EVENTS`."""

from __future__ import annotations

import os
import signal
import sys

from sqlalchemy import create_engine

from eventstore_sa import SyncEventStore, configure_sqlite
from eventstore_sa.projection import RebuildProgress, rebuild_sync
from tests.projectors import OrderProjector


def main(url: str, events: int) -> None:
    """Rebuild, and be gone after so many events."""
    engine = create_engine(url)
    configure_sqlite(engine)

    def die(progress: RebuildProgress) -> None:
        if progress.events >= events:
            os.kill(os.getpid(), signal.SIGKILL)

    rebuild_sync(OrderProjector(), store=SyncEventStore(engine), batch_size=2, progress=die)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
