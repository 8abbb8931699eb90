"""UUIDs of version 7: their bits, their order, their uniqueness."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from eventstore_sa.types import uuid7

module: Any = sys.modules["eventstore_sa.types.uuid7"]  # the package's attribute of that name is the function


def test_they_are_uuids_of_version_7_with_the_time_in_front() -> None:
    before = time.time_ns() // 1_000_000
    new = uuid7()
    after = time.time_ns() // 1_000_000

    assert type(new) is UUID
    assert new.version == 7
    assert new.variant == RFC_4122
    assert before <= new.int >> 80 <= after + 1
    assert new == UUID(str(new)) == pickle.loads(pickle.dumps(new))
    assert new.is_safe == UUID(int=new.int).is_safe


def test_each_is_greater_than_those_before_it() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_threads_never_get_the_same_and_each_sees_them_rise() -> None:
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [uuid7() for _ in range(2000)], range(8)))
    assert all(batch == sorted(batch) for batch in batches)
    assert len({new for batch in batches for new in batch}) == 16_000


def test_they_rise_while_the_clock_stands_or_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = module._Generator()
    now = iter([5000, 5000, 4000, 6000])
    monkeypatch.setattr(module.time, "time_ns", lambda: next(now) * 1_000_000)

    made = [generator.next() for _ in range(4)]

    assert made == sorted(made)
    assert [new >> 80 for new in made] == [5000, 5000, 5000, 6000]


def test_a_full_counter_moves_on_to_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = module._Generator()
    monkeypatch.setattr(module.time, "time_ns", lambda: 5000 * 1_000_000)
    first = generator.next()
    generator._counter = module._COUNTER_LIMIT - 2

    last, overflown = generator.next(), generator.next()

    assert first < last < overflown
    assert (last >> 80, overflown >> 80) == (5000, 5001)
    assert UUID(int=last).version == UUID(int=overflown).version == 7


def test_two_generators_differ_within_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time_ns", lambda: 5000 * 1_000_000)
    assert len({module._Generator().next() >> 32 for _ in range(100)}) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_starts_afresh_even_when_the_lock_was_held() -> None:
    reader, writer = os.pipe()
    parent_counter = module._generator._counter
    with module._generator._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            os.write(writer, f"{module._generator._lock.locked()} {uuid7()}".encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    locked, _, text = os.read(reader, 100).decode().partition(" ")
    os.close(reader)

    assert locked == "False"
    assert UUID(text).version == 7
    assert module._generator._counter == parent_counter
