"""What the world does to writers and readers meanwhile.

Connections are cut, processes killed, and a transaction manager decides about prepared transactions.
"""

from __future__ import annotations

import time
from random import Random
from typing import Final

from sqlalchemy import Engine, text

from tests.soak.journal import Decided, Journal
from tests.soak.plan import PREFIX_OF_READERS, PREFIX_OF_WRITERS
from tests.soak.processes import Processes

__all__ = ["Chaos", "decide_prepared", "wait_until_nobody_writes"]

_CUT = text(
    """
    SELECT pg_terminate_backend(pid) FROM (
      SELECT pid FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE :application || '%'
        AND (state <> 'idle' OR random() < 0.1)
      ORDER BY random() LIMIT 1
    ) victim
    """
)
_PREPARED = text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
_WRITERS_LEFT = text(
    """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE :application || '%'
    """
)
_BETWEEN_BACKENDS_S: Final = 0.3
_BETWEEN_PROCESSES_S: Final = 8.0


class Chaos:
    """Strikes now and then, when `tick` is called often enough."""

    def __init__(self, engine: Engine, writers: Processes, journal: Journal, random: Random) -> None:
        self._engine = engine
        self._writers = writers
        self._journal = journal
        self._random = random
        self._cut_at = self._in(_BETWEEN_BACKENDS_S)
        self._kill_at = self._in(_BETWEEN_PROCESSES_S)

    def tick(self) -> None:
        """Strike, if it is time."""
        now = time.monotonic()
        if now >= self._cut_at:
            self._cut_at = self._in(_BETWEEN_BACKENDS_S)
            application = PREFIX_OF_READERS if self._random.random() < 0.1 else PREFIX_OF_WRITERS
            with self._engine.connect() as connection:
                if connection.execute(_CUT, {"application": application}).all():
                    self._journal.count("backend killed")
        if now >= self._kill_at:
            self._kill_at = self._in(_BETWEEN_PROCESSES_S)
            self._writers.kill_one(self._random)
            self._journal.count("process killed")
        if self._random.random() < 0.3:
            decide_prepared(self._engine, self._journal, self._random)

    def _in(self, seconds: float) -> float:
        return time.monotonic() + seconds * (0.5 + self._random.random())


def decide_prepared(engine: Engine, journal: Journal, random: Random) -> None:
    """Commit most of the prepared transactions, and roll the others back."""
    with engine.connect() as connection:
        for gid in connection.execute(_PREPARED).scalars().all():
            committed = random.random() < 0.8
            connection.execute(text(f"{'COMMIT' if committed else 'ROLLBACK'} PREPARED '{gid}'"))
            journal.write(Decided(gid, committed))


def wait_until_nobody_writes(engine: Engine, timeout_s: float = 600.0) -> None:
    """Wait until the server has noticed that the writers are gone."""
    deadline = time.monotonic() + timeout_s
    with engine.connect() as connection:
        while connection.execute(_WRITERS_LEFT, {"application": PREFIX_OF_WRITERS}).scalar_one():
            if time.monotonic() > deadline:
                raise TimeoutError(f"writers are still connected {timeout_s} s after their processes ended")
            time.sleep(0.02)
