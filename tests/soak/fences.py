"""The invariant of the fence, and a process that strains it: `python -m tests.soak.fences FOLDER NAME DRIVER`.

Every statement that inserts events is checked by the database itself, in all transactions, those that roll back included:
each number is above the fence of its transaction. A lost event is only the rare consequence of one that is not. The process
publishes batches of a thousand events and single ones beside them, and takes all of them back, as fast as it can.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from tests.soak.clients import trouble
from tests.soak.journal import Journal, Wrong
from tests.soak.plan import PREFIX_OF_WRITERS, Plan
from tests.soak.writer import end_with_stdin

__all__ = ["check_every_fence", "fences_checked"]

# How many events, and how often in one statement.
_BATCHES: Final = {1000: 4, 1: 200}

_CHECK: Final = """
CREATE FUNCTION soak_check_fence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  fence constant bigint := current_setting('eventstore_sa.fence_' || TG_RELID)::bigint;
  lowest bigint;
BEGIN
  SELECT min(sequence_number) INTO lowest FROM inserted;
  IF lowest <= fence THEN
    RAISE EXCEPTION 'the fence of a transaction is at %, and one of its numbers is %', fence, lowest;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER soak_check_fence AFTER INSERT ON es_events
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION soak_check_fence();

CREATE FUNCTION soak_take_back(stream text, events int, times int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  document constant jsonb := jsonb_build_array(jsonb_build_object('category', 'taken-back', 'stream', stream, 'events', (
    SELECT jsonb_agg(jsonb_build_object(
      'id', gen_random_uuid(), 'name', 'taken-back', 'payload', n, 'observed_at', now(), 'occurred_at', now()
    )) FROM generate_series(1, events) n
  )));
BEGIN
  FOR time IN 1..times LOOP
    BEGIN
      PERFORM es_append_v1(document, true);
      RAISE EXCEPTION USING ERRCODE = 'SK001';
    EXCEPTION WHEN SQLSTATE 'SK001' THEN
      NULL;
    END;
  END LOOP;
END $$;
"""

_TAKE_BACK: Final = text("SELECT soak_take_back(:stream, :events, :times)")


def check_every_fence(connection: Connection) -> None:
    """Let the database refuse every statement whose numbers are not above the fence of its transaction."""
    connection.exec_driver_sql(_CHECK.replace("%", "%%"))


def fences_checked(counts: Counter[str]) -> int:
    """Return how many fences of single events have been raised, of those that journals count."""
    return _BATCHES[1] * counts[_taken_back(1)]


def _taken_back(events: int) -> str:
    return f"{_BATCHES[events]} publishes of {events} taken back"


def _take_back(engine: Engine, journal: Journal, events: int, leisure: float, ended: threading.Event) -> None:
    """Publish and take back until the end; rest `leisure` times as long as that took."""
    parameters = {"stream": f"{events} at a time", "events": events, "times": _BATCHES[events]}
    while not ended.is_set():
        began = time.monotonic()
        try:
            with engine.begin() as connection:
                connection.execute(_TAKE_BACK, parameters)
            journal.count(_taken_back(events))
        except DBAPIError as error:
            expected = trouble(error)
            if expected:
                journal.count(expected)
            else:
                journal.write(Wrong(str(error.orig).splitlines()[0]))
        ended.wait((time.monotonic() - began) * leisure)


def main(folder: str, name: str, driver: str) -> None:
    """Run one thread for batches and one for single events."""
    plan = Plan.load(folder)
    ended = end_with_stdin()
    journal = Journal(Path(folder, f"{name}-{os.getpid()}.journal"))
    engine = create_engine(plan.urls[driver], connect_args={"application_name": f"{PREFIX_OF_WRITERS}-{name}"})
    threads = [
        threading.Thread(target=_take_back, args=(engine, journal, events, plan.leisure_of_fences, ended))
        for events in _BATCHES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    journal.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
