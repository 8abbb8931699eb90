"""Students who enrol in courses from many processes that are killed: `python -m tests.enrolling URL PLAN`.

A course has so many places, and a student so many courses: a rule across streams, decided on by tags. Each enrolment is an
event in a stream of its own, so that nothing but the condition on the decision keeps the rule. `illegal` replays the
committed log in the order of numbers; every event must have been allowed at its place.

It goes on until enough has happened. Prints how many processes were
killed, and how often a decision was refused because it was out of date.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal
from uuid import uuid4

from msgspec import Struct
from msgspec.json import decode
from msgspec.structs import replace
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.orm import Session

from eventstore_sa import EventQuery, NewEvent, Projector, SyncEventStore
from eventstore_sa.errors import EventStoreError, UnmetWriteConditionError
from eventstore_sa.store import Decision
from eventstore_sa.types import AnyStoredEvent

__all__ = ["EnrolmentPlan", "illegal"]

_DONE: Final = b"+"
_REFUSED: Final = b"-"

Course = str
Student = str


class EnrolmentPlan(Struct, frozen=True):
    """What is done.

    Attributes:
        processes: How many enrol at the same time.
        least: How many publishes are stored, at least, and how many are refused, one for twenty of those.
        courses: How many courses there are.
        places: How many students a course takes.
        students: How many students there are.
        most: How many courses a student may take.
        seed: Where the chances begin.
        mistake: How the clerks get the conditions of their decisions wrong: with "one number" for all items, or by "paged
            reads", of which the last page is younger than the first.
    """

    processes: int
    least: int
    courses: int
    places: int
    students: int
    most: int
    seed: int
    mistake: Literal["one number", "paged reads"] | None = None


class Enrolments(Projector[EventQuery, list[tuple[Course, Student]], None]):
    """Who takes which course, as far as the events tell."""

    def initial_state_factory(self) -> list[tuple[Course, Student]]:
        return []

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: list[tuple[Course, Student]], source: EventQuery) -> str:
        return "enrolments"

    def enrolled(self, state: list[tuple[Course, Student]], event: Any) -> list[tuple[Course, Student]]:
        return [*state, tuple(event.payload)]

    def left(self, state: list[tuple[Course, Student]], event: Any) -> list[tuple[Course, Student]]:
        return [each for each in state if each != tuple(event.payload)]


def illegal(events: Iterable[AnyStoredEvent], plan: EnrolmentPlan) -> list[str]:
    """Replay the log; return the events that should not have been stored at their places."""
    of_course: defaultdict[Course, set[Student]] = defaultdict(set)
    of_student: defaultdict[Student, set[Course]] = defaultdict(set)
    wrong: list[str] = []
    for event in events:
        course, student = event.payload
        students, courses = of_course[course], of_student[student]
        if event.name == "left":
            if student not in students:
                wrong.append(f"{event.sequence_number}: {student} left {course}, but was not there")
            students.discard(student)
            courses.discard(course)
            continue
        if student in students or len(students) >= plan.places or len(courses) >= plan.most:
            wrong.append(
                f"{event.sequence_number}: {student} joined {course} of {len(students)}, having {len(courses)}"
            )
        students.add(student)
        courses.add(course)
    return wrong


class _Clerk:
    """Enrols students; made before the fork, so that no process has to compile its statements anew."""

    def __init__(self, url: str, plan: EnrolmentPlan) -> None:
        self._plan = plan
        self._chance = random.Random(plan.seed)
        self._engine = create_engine(url, pool_size=2)
        self._store = SyncEventStore(self._engine)
        self._ways = (self._at_once, self._at_once, self._within, self._staged, self._in_savepoint, self._twice)
        for way in self._ways:
            with suppress(EventStoreError):
                way()
        self._engine.dispose()

    def work(self, seed: int, note: Callable[[bytes], object]) -> None:
        """Enrol for ever, in one way or another, and note what is refused and what is not."""
        self._chance.seed(seed)
        while True:
            with suppress(EventStoreError):
                try:
                    self._chance.choice(self._ways)()
                    note(_DONE)
                except UnmetWriteConditionError:
                    note(_REFUSED)

    def _at_once(self) -> None:
        self._enrol(self._store)

    def _within(self) -> None:
        with Session(self._engine) as session:
            self._enrol(self._store.within(session))
            self._end(session)

    def _twice(self) -> None:
        with Session(self._engine) as session:
            for _ in range(2):
                self._enrol(self._store.within(session))
            self._end(session)

    def _staged(self) -> None:
        with Session(self._engine) as session:
            self._enrol(self._store.within(session), staged=True)
            self._enrol(self._store.within(session), staged=True)
            self._end(session)

    def _in_savepoint(self) -> None:
        with Session(self._engine) as session:
            store = self._store.within(session)
            savepoint = session.begin_nested()
            course, student = self._pick()
            decision = self._decide(store, course, student)
            self._publish(store, decision, course, student)
            again = self._decide(store, course, student)
            self._chance.choice((savepoint.rollback, savepoint.commit))()
            self._publish(store, again, course, student)
            self._end(session)

    def _end(self, session: Session) -> None:
        self._hesitate()
        self._chance.choice((session.commit, session.commit, session.commit, session.rollback))()

    def _hesitate(self) -> None:
        time.sleep(self._chance.choice((0, 0, 0.002, 0.02)))

    def _pick(self) -> tuple[Course, Student]:
        course, student = self._chance.randrange(self._plan.courses), self._chance.randrange(self._plan.students)
        # Those of another run are others: their histories are no part of this one.
        return f"course:{self._plan.seed}-{course}", f"student:{self._plan.seed}-{student}"

    def _enrol(self, store: SyncEventStore, *, staged: bool = False) -> None:
        course, student = self._pick()
        self._publish(store, self._decide(store, course, student), course, student, staged=staged)

    def _decide(self, store: SyncEventStore, course: Course, student: Student) -> Decision[Any]:
        models = {tag: (EventQuery.tagged(tag), Enrolments()) for tag in (course, student)}
        decision = store.decide(models)
        match self._plan.mistake:
            case "one number":
                last = max(decision.items, key=lambda item: item.after)
                items = [replace(item, after=last.after, last_id=last.last_id) for item in decision.items]
                return Decision(decision.state, tuple(items))
            case "paged reads":
                self._hesitate()
                return Decision(decision.state, store.decide(models).items)
            case None:
                return decision

    def _publish(
        self, store: SyncEventStore, decision: Decision[Any], course: Course, student: Student, *, staged: bool = False
    ) -> None:
        in_course, of_student = decision.state[course], decision.state[student]
        if (course, student) in in_course:
            name = "left"
        elif len(in_course) < self._plan.places and len(of_student) < self._plan.most:
            name = "enrolled"
        else:
            return
        self._hesitate()
        event = NewEvent(name=name, payload=[course, student], tags=[course, student])
        condition = decision.unchanged()
        stream = store.stream(category="enrolments", stream=str(uuid4()))
        (stream.stage if staged else stream.publish)(events=[event], condition=condition)


def _start(clerk: _Clerk, chance: random.Random, writing: int) -> int:
    seed = chance.getrandbits(32)
    child = os.fork()
    if child == 0:
        try:
            clerk.work(seed, partial(os.write, writing))
        finally:
            os._exit(1)
    return child


def main(url: str, encoded: str) -> None:
    """Let processes enrol, and kill one of them every now and then."""
    plan = decode(encoded, type=EnrolmentPlan)
    # Transactions that enrol twice, in any order, deadlock; that is soon noticed.
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} SET deadlock_timeout = '20ms'"))
    chance = random.Random(plan.seed)
    clerk = _Clerk(url, plan)
    reading, writing = os.pipe()
    children = [_start(clerk, chance, writing) for _ in range(plan.processes)]
    noted: Counter[int] = Counter()
    killed = 0
    while noted[_DONE[0]] < plan.least or noted[_REFUSED[0]] * 20 < plan.least or killed < plan.processes:
        # Each lives for as long as it takes all of them to do something.
        for _ in range(plan.processes):
            noted.update(os.read(reading, 16))
        victim = chance.randrange(len(children))
        _kill([children[victim]])
        killed += 1
        children[victim] = _start(clerk, chance, writing)
    _kill(children)
    print(killed, noted[_REFUSED[0]])


def _kill(children: Sequence[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
