"""Two transactions that apply events to the same rows, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from eventstore_sa.errors import ConcurrencyError
from eventstore_sa.projection import TableProjection, project
from tests.blocking import wait_for_waiting
from tests.hosts import Host, each_driver
from tests.patience import PATIENCE_S
from tests.tables import AnyEvent, rows, stored

postgresql = each_driver("postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "race_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column(unique=True)
    count: Mapped[int] = mapped_column(default=0)
    marks: Mapped[list[Mark]] = relationship(lazy="select")


class Mark(Base):
    __tablename__ = "race_marks"

    id: Mapped[int] = mapped_column(primary_key=True)
    counter: Mapped[int] = mapped_column(ForeignKey("race_counters.id"))


class Person(Base):
    __tablename__ = "race_persons"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": kind, "polymorphic_identity": "person"}


class Manager(Person):
    __tablename__ = "race_managers"

    id: Mapped[int] = mapped_column(ForeignKey("race_persons.id"), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)

    __mapper_args__: ClassVar[dict[str, Any]] = {
        "polymorphic_identity": "manager",
        "polymorphic_load": "inline",
    }


class EagerCounter(Base):
    __table__ = Counter.__table__
    marks: Mapped[list[Mark]] = relationship(lazy="joined", viewonly=True)


class CountProjection(TableProjection):
    def counted(self, row: Any, event: AnyEvent) -> None:
        row.count += 1


CountedProjection = project(Counter)(CountProjection)


@pytest.fixture
def tables(host: Host) -> Iterator[None]:
    """Make the tables of this module for the length of a test."""
    Base.metadata.create_all(host.ground.outside, checkfirst=False)
    yield
    Base.metadata.drop_all(host.ground.outside)


@pytest.fixture
def background() -> Iterator[Callable[..., Future[None]]]:
    """Start something that is going to wait."""
    with ThreadPoolExecutor(2) as threads:
        yield threads.submit


pytestmark = pytest.mark.usefixtures("tables")


def counted(host: Host, projection: Any, *names: str) -> None:
    with host.session() as session:
        projection.apply(session, [stored("counted", name) for name in names])
        session.commit()


@postgresql
@pytest.mark.parametrize("row_class", [Counter, EagerCounter, Person, Manager])
def test_second_transaction_waits_and_counts_on_from_what_the_first_has_stored(
    host: Host, background: Any, row_class: type[Any]
) -> None:
    class Counting(CountProjection):
        def create(self, key: Any, event: AnyEvent) -> Any:
            return Manager(count=0) if issubclass(row_class, Person) else row_class(count=0)

    projection = project(row_class)(Counting)()
    counted(host, projection, "1")
    with host.session() as first:
        projection.apply(first, [stored("counted", "1")])
        second = background(counted, host, projection, "1")
        wait_for_waiting(host.ground)
        first.commit()
    second.result()

    assert [row.count for row in rows(host, row_class)] == [3]


@postgresql
def test_row_that_is_created_twice_at_once_is_a_lost_race(host: Host, background: Any) -> None:
    with host.session() as first:
        CountedProjection().apply(first, [stored("counted", "1")])
        second = background(counted, host, CountedProjection(), "1", "2")
        wait_for_waiting(host.ground)
        first.commit()

    with pytest.raises(ConcurrencyError, match="created a row of Counter with the same primary key") as caught:
        second.result()
    assert caught.value.retryable
    assert "projector 'count' was at 2 events" in caught.value.__notes__[0]
    counted(host, CountedProjection(), "1", "2")
    assert [row.count for row in rows(host, Counter)] == [2, 1]


@postgresql
def test_row_of_a_joined_subclass_that_another_has_just_created_is_a_lost_race(host: Host) -> None:
    """It is there before the keys are looked for that rows of other classes have."""

    @project(Manager)
    class Faster(CountProjection):
        pass

    @project(Manager)
    class Losing(CountProjection):
        def create(self, key: Any, event: AnyEvent) -> Any:
            counted(host, Faster(), "1")
            return super().create(key, event)

    with pytest.raises(ConcurrencyError, match="created a row of Manager with the same primary key"):
        counted(host, Losing(), "1")

    assert [row.count for row in rows(host, Manager)] == [1]


@postgresql
def test_other_unique_keys_are_no_lost_race(host: Host) -> None:
    class Labelled(CountedProjection):
        def counted(self, row: Any, event: AnyEvent) -> None:
            row.label = "the same"

    counted(host, Labelled(), "1")

    with pytest.raises(Exception, match="race_counters_label_key"):
        counted(host, Labelled(), "2")


@postgresql
def test_transactions_that_create_the_same_rows_in_opposite_order_do_not_deadlock(host: Host, background: Any) -> None:
    with host.session() as first:
        CountedProjection().apply(first, [stored("counted", "1")])
        second = background(counted, host, CountedProjection(), "3", "2", "1")
        wait_for_waiting(host.ground)
        CountedProjection().apply(first, [stored("counted", "3"), stored("counted", "2")])
        first.commit()

    with pytest.raises(ConcurrencyError, match="same primary key"):
        second.result()


@postgresql
def test_rows_that_refer_to_a_locked_one_can_be_stored_meanwhile(host: Host) -> None:
    counted(host, CountedProjection(), "1")
    with host.session() as first:
        CountedProjection().apply(first, [stored("counted", "1")])
        with Session(host.ground.outside) as second:
            second.execute(text(f"SET LOCAL lock_timeout = '{PATIENCE_S:.0f}s'"))
            second.add(Mark(counter=1))
            second.commit()
        first.commit()

    assert [row.count for row in rows(host, Counter)] == [2]
