"""Writers that all decide on one tag, as threads of one process: `python -m tests.deciding URL WRITERS DECISIONS`.

Prints how many tries each decision took. Its queue is as patient as tests are, however slow the machine is.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine

from eventstore_sa import EventQuery, NewEvent, Projector, StreamIdentifier, SyncEventStore
from eventstore_sa.store import turns
from tests.patience import PATIENCE_S

__all__ = ["TAG", "Count"]

TAG = "course:c1"


class Count(Projector[EventQuery, int, None]):
    """Counts events."""

    def initial_state_factory(self) -> int:
        return 0

    def initial_metadata_factory(self) -> None:
        return None

    def joined(self, state: int, event: Any) -> int:
        return state + 1


def decide_often(store: SyncEventStore, decisions: int) -> list[int]:
    """Make decisions one after the other, each with the default retries; return how many tries each took."""
    all_tries: list[int] = []
    for _ in range(decisions):
        tries: list[int] = []

        def decide(state: int, tries: list[int] = tries) -> Any:
            tries.append(state)
            event = NewEvent(name="joined", payload=state, tags=[TAG, f"student:{uuid4()}"])
            return {StreamIdentifier("enrolments", str(uuid4())): {"events": [event]}}

        store.update_decision(EventQuery.tagged(TAG), Count(), decide=decide)
        all_tries.append(len(tries))
    return all_tries


def main(url: str, writers: int, decisions: int) -> None:
    vars(turns)["_PATIENCE_S"] = PATIENCE_S
    engine = create_engine(url, pool_size=2 * writers)
    store = SyncEventStore(engine)
    with ThreadPoolExecutor(writers) as threads:
        futures = [threads.submit(decide_often, store, decisions) for _ in range(writers)]
        print(*(tries for future in futures for tries in future.result()))
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
