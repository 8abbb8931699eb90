"""Table projections of rows that are mapped in all the ways there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, TypeDecorator, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    mapped_column,
    object_session,
    registry,
    relationship,
)

from eventstore_sa.errors import ConfigurationError, StorageError
from eventstore_sa.projection import TableProjection, project
from tests.awaiting import settled
from tests.hosts import Host, each_driver, new_event, statements_of
from tests.tables import AnyEvent, applied, committing, project_all, rows, stored

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")
one_driver = each_driver("sqlite")


class Base(DeclarativeBase):
    pass


class DataclassRow(MappedAsDataclass, Base):
    __tablename__ = "dataclass_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class DemandingRow(MappedAsDataclass, Base):
    __tablename__ = "demanding_rows"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    label: Mapped[str]
    count: Mapped[int] = mapped_column(default=0)


class VersionedRow(Base):
    __tablename__ = "versioned_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column()

    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": version}


class RenamedRow(Base):
    __tablename__ = "renamed_rows"

    number: Mapped[int] = mapped_column("id", primary_key=True)
    count: Mapped[int] = mapped_column("times", default=0)


class Lettered(TypeDecorator[str]):
    """Integers in the database, and texts such as A-7 in Python."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return int(value.removeprefix("A-"))

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return f"A-{value}"


class LetteredRow(Base):
    __tablename__ = "lettered_rows"

    id: Mapped[str] = mapped_column(Lettered, primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class Vehicle(Base):
    __tablename__ = "vehicles"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()
    count: Mapped[int] = mapped_column(default=0)

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": kind, "polymorphic_identity": "vehicle"}


class Bicycle(Vehicle):
    gears: Mapped[int | None]

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "bicycle"}


class Person(Base):
    __tablename__ = "persons"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column()
    count: Mapped[int] = mapped_column(default=0)

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": kind, "polymorphic_identity": "person"}


class Manager(Person):
    __tablename__ = "managers"

    id: Mapped[int] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    meetings: Mapped[int] = mapped_column(default=0)

    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "manager", "polymorphic_load": "inline"}


class Basket(Base):
    __tablename__ = "baskets"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    items: Mapped[list[Item]] = relationship(lazy="joined", order_by="Item.id")


class Item(Base):
    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    basket_id: Mapped[int] = mapped_column(ForeignKey("baskets.id"))


class CountProjection(TableProjection):
    def counted(self, row: Any, event: AnyEvent) -> None:
        row.count += 1


@pytest.fixture
def tables(host: Host) -> Iterator[None]:
    """Make the tables of this module for the length of a test."""
    Base.metadata.create_all(host.ground.outside, checkfirst=False)
    yield
    Base.metadata.drop_all(host.ground.outside)


pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.keeps_connections]


@some_drivers
@pytest.mark.parametrize("row_class", [DataclassRow, VersionedRow, RenamedRow, Basket])
async def test_rows_are_counted_whatever_the_mapping(host: Host, row_class: type[Any]) -> None:
    projection = project(row_class)(CountProjection)()

    for _ in range(2):
        await project_all(host, projection, *(stored("counted", name) for name in "121"))

    assert [row.count for row in rows(host, row_class)] == [4, 2]


@some_drivers
async def test_keys_of_types_of_your_own_are_left_as_they_are(host: Host) -> None:
    projection = project(LetteredRow)(CountProjection)()

    for _ in range(2):
        await project_all(host, projection, stored("counted", "A-7"), stored("counted", "A-12"))

    assert [(row.id, row.count) for row in rows(host, LetteredRow)] == [("A-7", 2), ("A-12", 2)]


@some_drivers
async def test_row_of_a_demanding_class_is_made_by_create(host: Host) -> None:
    @project(DemandingRow)
    class Demanding(CountProjection):
        pass

    class Satisfied(Demanding):
        def create(self, key: Any, event: AnyEvent) -> DemandingRow:
            return DemandingRow(label=f"number {key}")

    with pytest.raises(ConfigurationError, match=r"from its key alone .*: define create\(self, key, event\)"):
        await project_all(host, Demanding(), stored("counted", "7"))
    for _ in range(2):
        await project_all(host, Satisfied(), stored("counted", "7"))

    assert [(row.id, row.label, row.count) for row in rows(host, DemandingRow)] == [(7, "number 7", 2)]


@one_driver
async def test_imperative_mapping_may_be_made_after_the_projection(host: Host) -> None:
    class Plain:
        count: int

    metadata = MetaData()
    table = Table(
        "plain_rows", metadata, Column("id", String, primary_key=True), Column("count", Integer, default=lambda: 5)
    )

    @project(Plain)
    class Counting(TableProjection):
        def counted(self, row: Plain, event: AnyEvent) -> None:
            row.count = (row.count or 0) + 1

    with pytest.raises(ConfigurationError, match=r"@project\(Plain\) needs a mapped class"):
        await project_all(host, Counting(), stored("counted", "a"))
    registry(metadata=metadata).map_imperatively(Plain, table)
    metadata.create_all(host.ground.outside)
    for _ in range(2):
        await project_all(host, Counting(), stored("counted", "a"))

    assert [row.count for row in rows(host, Plain)] == [2]


@some_drivers
async def test_rows_of_subclasses_in_one_table_are_found_by_their_base(host: Host) -> None:
    @project(Vehicle)
    class Vehicles(CountProjection):
        def create(self, key: Any, event: AnyEvent) -> Vehicle:
            return Bicycle(count=0, gears=3) if event.payload == "bicycle" else Vehicle(count=0)

    for _ in range(2):
        await project_all(host, Vehicles(), stored("counted", "1", "bicycle"), stored("counted", "2"))

    assert [(type(row), row.count) for row in rows(host, Vehicle)] == [(Bicycle, 2), (Vehicle, 2)]


@some_drivers
async def test_rows_of_joined_subclasses_are_found_by_their_base_and_by_themselves(host: Host) -> None:
    class Meeting(CountProjection):
        def create(self, key: Any, event: AnyEvent) -> Person:
            return Manager(count=0, meetings=0) if event.payload == "manager" else Person(count=0)

        def met(self, row: Any, event: AnyEvent) -> None:
            row.meetings += 1

    persons, managers = project(Person)(Meeting)(), project(Manager)(CountProjection)()
    for _ in range(2):
        await project_all(host, project(Person)(Meeting)(), stored("counted", "1", "manager"), stored("counted", "2"))
    await project_all(host, persons, stored("met", "1"))
    await project_all(host, managers, stored("counted", "1"), stored("counted", "3"))

    found = rows(host, Person)
    assert [(type(row), row.count) for row in found] == [(Manager, 3), (Person, 2), (Manager, 1)]
    assert [row.meetings for row in found if isinstance(row, Manager)] == [1, 0]


@some_drivers
@pytest.mark.parametrize(("base", "subclass"), [(Vehicle, Bicycle), (Person, Manager)])
async def test_row_of_another_class_in_the_way_is_a_lasting_fault(
    host: Host, base: type[Any], subclass: type[Any]
) -> None:
    async with committing(host) as session:
        session.add(base(id=1))
    projection = project(subclass)(CountProjection)()
    store = host.store.with_projections(projection)

    with (
        statements_of(host.engine) as statements,
        pytest.raises(
            ConfigurationError, match=f"no {subclass.__name__} can be created with the primary key 1"
        ) as caught,
    ):
        await settled(store.stream(category="orders", stream="1").publish(events=[new_event("counted")]))

    assert "projector 'count' was at event 'counted'" in caught.value.__notes__[0]
    assert len(statements) <= 6
    with pytest.raises(ConfigurationError, match="None for such events"):
        await project_all(host, projection, stored("counted", "2"), stored("counted", "1"))
    await project_all(host, projection, stored("counted", "2"))
    assert [row.id for row in rows(host, subclass)] == [2]
    assert host.ground.names() == []


@each_driver("sqlite", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
async def test_row_that_a_handler_adds_in_the_way_of_its_own_is_a_lasting_fault(host: Host) -> None:
    class Adding(CountProjection):
        def counted(self, row: Any, event: AnyEvent) -> None:
            sessions[0].add(RenamedRow(number=1, count=0))

    @project(Session)
    class Remembering(TableProjection):
        name = "a"

        def counted(self, session: Session, event: AnyEvent) -> None:
            sessions[:] = [session]

    sessions: list[Session] = []
    await project_all(host, project(RenamedRow)(CountProjection)(), stored("counted", "1"))
    store = host.store.with_projections(project(RenamedRow)(Adding)(), Remembering())

    with statements_of(host.engine) as statements, pytest.raises(StorageError) as caught:
        await settled(store.stream(category="orders", stream="2").publish(events=[new_event("counted")]))

    assert not getattr(caught.value, "retryable", False)
    assert caught.value.__cause__ is not None
    assert len(statements) < 20
    assert [row.number for row in rows(host, RenamedRow)] == [1]


@some_drivers
async def test_what_is_loaded_along_with_a_row_is_there(host: Host) -> None:
    @project(Basket)
    class Baskets(TableProjection):
        def counted(self, row: Basket, event: AnyEvent) -> None:
            row.count = len(row.items)

    async with committing(host) as session:
        session.add(Basket(id=1, items=[Item(), Item()]))
    await project_all(host, Baskets(), stored("counted", "1"))

    assert [basket.count for basket in _unique(host)] == [2]


@some_drivers
async def test_related_rows_can_be_loaded_and_added_by_handlers(host: Host) -> None:
    @project(Basket)
    class Filling(TableProjection):
        def item_added(self, row: Basket, event: AnyEvent) -> None:
            row.items.append(Item())

    for _ in range(2):
        await project_all(host, Filling(), stored("item-added", "1"), stored("item-added", "1"))

    assert [len(basket.items) for basket in _unique(host)] == [4]


def _unique(host: Host) -> list[Basket]:
    with Session(host.ground.outside, expire_on_commit=False) as session:
        return list(session.query(Basket))


@some_drivers
async def test_tables_are_found_through_a_schema_translate_map(host: Host) -> None:
    metadata = MetaData()
    table = Table("moved_rows", metadata, Column("id", Integer, primary_key=True), Column("count", Integer, default=0))

    class Moved:
        count: int

    registry(metadata=metadata).map_imperatively(Moved, table)
    schema = "elsewhere" if host.postgres else "main"
    outside = host.ground.outside.execution_options(schema_translate_map={None: schema})
    with outside.begin() as connection:
        if host.postgres:
            connection.execute(text("CREATE SCHEMA elsewhere"))
        metadata.create_all(connection)
    projection = project(Moved)(CountProjection)()

    engine = host.engine.execution_options(schema_translate_map={None: schema})
    with statements_of(engine) as statements:
        for _ in range(2):
            session = host.session(engine)
            await applied(session, projection, [stored("counted", "1")])
            result = session.commit()
            if result is not None:
                await result
            closed = session.close()
            if closed is not None:
                await closed

    assert all(f"{schema}.moved_rows" in statement for statement in statements if "moved_rows" in statement)
    with outside.begin() as connection:
        assert connection.scalar(table.select().with_only_columns(table.c.count)) == 2
        metadata.drop_all(connection)
        if host.postgres:
            connection.execute(text("DROP SCHEMA elsewhere"))


@one_driver
async def test_handlers_of_plain_classes_keep_state_super_and_identity(host: Host) -> None:
    class Mixin:
        def step(self) -> int:
            return 2

    @project(DataclassRow)
    class Plain(Mixin):
        """Counts in steps."""

        def __init__(self, factor: int) -> None:
            self.factor = factor

        def counted(self, row: DataclassRow, event: AnyEvent) -> None:
            assert object_session(row) is None
            row.count += self.factor * super().step()

    plain: Any = Plain(3)
    await project_all(host, plain, stored("counted", "1"))

    assert [row.count for row in rows(host, DataclassRow)] == [6]
    assert (Plain.__name__, Plain.__doc__, Plain.__module__) == ("Plain", "Counts in steps.", __name__)
    assert isinstance(plain, TableProjection)
    assert isinstance(plain, Plain)
