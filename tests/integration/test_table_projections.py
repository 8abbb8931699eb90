"""Table projections on their own: batches of events applied to rows of the host's, in a session of the host's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Column, MetaData, Numeric, String, Table, Uuid, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    object_session,
    registry,
)

from eventstore_sa.errors import ConfigurationError, MissingProjectionHandlerError
from eventstore_sa.projection import (
    DELETE,
    MissingHandlerBehaviour,
    RowDeletion,
    TableProjection,
    handles,
    project,
    row_keys,
)
from tests.awaiting import entered, settled
from tests.hosts import Host, each_driver, each_kind_of_driver, new_event, statements_of
from tests.tables import AnyEvent, applied, committing, project_all, rows, stored

some_drivers = each_driver("sqlite+aiosqlite", "sqlite", "postgresql+asyncpg", "postgresql+psycopg")
one_driver = each_driver("sqlite")
sqlite_and_postgresql = each_driver("sqlite", "postgresql+psycopg")


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "order_rows"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    total: Mapped[int] = mapped_column(default=0)
    note: Mapped[str | None]
    label: Mapped[str | None] = mapped_column(unique=True)
    sequence_number: Mapped[int | None]


class NumberedRow(Base):
    __tablename__ = "numbered_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class UuidRow(Base):
    __tablename__ = "uuid_rows"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class UuidTextRow(Base):
    __tablename__ = "uuid_text_rows"

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class Colour(Enum):
    RED = "red"


class DayRow(Base):
    __tablename__ = "day_rows"

    day: Mapped[date] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class AmountRow(Base):
    __tablename__ = "amount_rows"

    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class FlagRow(Base):
    __tablename__ = "flag_rows"

    flag: Mapped[bool] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class ColourRow(Base):
    __tablename__ = "colour_rows"

    colour: Mapped[Colour] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


KEYED_ROWS: dict[str, type[Any]] = {"day": DayRow, "amount": AmountRow, "flag": FlagRow, "colour": ColourRow}


class LineRow(Base):
    __tablename__ = "line_rows"

    order: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


@project(OrderRow)
class OrderProjection(TableProjection):
    def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
        row.state = "placed"
        row.total += event.payload

    def order_paid(self, row: OrderRow, event: AnyEvent) -> None:
        row.state = "paid"

    @handles("note/added")
    def annotate(self, row: OrderRow, event: AnyEvent) -> OrderRow:
        row.note = event.payload
        return row

    def order_cancelled(self, row: OrderRow, event: AnyEvent) -> RowDeletion:
        return DELETE


@project(OrderRow, sequence_number="sequence_number")
class NumberedOrderProjection(OrderProjection):
    pass


class CountProjection(TableProjection):
    def counted(self, row: Any, event: AnyEvent) -> None:
        row.count += 1


@pytest.fixture
def tables(host: Host) -> Iterator[None]:
    """Make the tables of this module for the length of a test."""
    Base.metadata.create_all(host.ground.outside, checkfirst=False)
    yield
    Base.metadata.drop_all(host.ground.outside)


def orders(host: Host) -> list[tuple[str, str, int, str | None]]:
    return [(row.id, row.state, row.total, row.note) for row in rows(host, OrderRow)]


pytestmark = [pytest.mark.usefixtures("tables"), pytest.mark.keeps_connections]


# What becomes of rows


@each_kind_of_driver()
async def test_rows_are_created_changed_and_deleted(host: Host) -> None:
    await project_all(
        host,
        OrderProjection(),
        stored("order-placed", "1", 5),
        stored("order-placed", "2", 7),
        stored("order-paid", "2"),
    )
    await project_all(
        host,
        OrderProjection(),
        stored("order-cancelled", "1"),
        stored("note/added", "2", "late"),
        stored("OrderPaid", "2"),
    )

    assert orders(host) == [("2", "paid", 7, "late")]


@some_drivers
async def test_one_statement_loads_all_rows_of_a_batch(host: Host) -> None:
    batch = [stored("order-placed", str(number % 40), 1) for number in range(200)]
    await project_all(host, OrderProjection(), *batch[:20])

    with statements_of(host.engine) as statements:
        await project_all(host, OrderProjection(), *batch)

    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) == 1
    assert ("FOR NO KEY UPDATE" in selects[0]) == host.postgres
    assert {row.total for row in rows(host, OrderRow)} == {5, 6}


@sqlite_and_postgresql
async def test_more_keys_than_a_statement_takes_are_loaded_by_several(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_keys, "_MOST_PARAMETERS", 4)
    batch = [stored("order-placed", str(number), 1) for number in range(9)]
    await project_all(host, OrderProjection(), *batch)

    with statements_of(host.engine) as statements:
        await project_all(host, OrderProjection(), *batch)

    assert len([statement for statement in statements if statement.startswith("SELECT")]) == 3
    assert [row.total for row in rows(host, OrderRow)] == [2] * 9


@some_drivers
async def test_an_event_counts_once_in_a_batch_and_in_its_order(host: Host) -> None:
    placed, noted, renoted = (
        stored("order-placed", payload=5),
        stored("note/added", payload="a"),
        stored("note/added", payload="b"),
    )

    await project_all(host, OrderProjection(), renoted, placed, noted, placed, renoted, noted)

    assert orders(host) == [("1", "placed", 5, "b")]


@one_driver
async def test_what_is_no_batch_of_stored_events_is_refused(host: Host) -> None:
    with host.session() as session:
        for mistake in (host.store.log(), None, "events", [new_event()]):
            with pytest.raises(ConfigurationError, match=r"events are applied in batches|only stored events"):
                OrderProjection().apply(session, mistake)


@one_driver
async def test_events_that_concern_nothing_send_no_statement(host: Host) -> None:
    class Deaf(OrderProjection):
        missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

        def key(self, event: AnyEvent) -> None:
            return None

    with statements_of(host.engine) as statements:
        await project_all(host, Deaf())
        await project_all(host, Deaf(), stored("unheard-of"), stored("order-placed"))

    assert statements == []


@some_drivers
async def test_deleted_and_recreated_row_has_nothing_of_the_former_one(host: Host) -> None:
    await project_all(host, OrderProjection(), stored("order-placed", "1", 5), stored("note/added", "1", "old"))

    await project_all(host, OrderProjection(), stored("order-cancelled"), stored("order-placed", "1", 2))

    assert orders(host) == [("1", "placed", 2, None)]


@sqlite_and_postgresql
async def test_deleted_row_makes_room_for_a_new_one_with_a_value_that_is_unique(host: Host) -> None:
    class Labelled(OrderProjection):
        def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
            row.state, row.label = "placed", event.payload

    await project_all(host, Labelled(), stored("order-placed", "1", "the only one"))
    await project_all(host, Labelled(), stored("order-cancelled", "1"), stored("order-placed", "2", "the only one"))

    assert [(row.id, row.label) for row in rows(host, OrderRow)] == [("2", "the only one")]


@sqlite_and_postgresql
async def test_row_that_comes_and_goes_in_one_batch_is_never_written(host: Host) -> None:
    with statements_of(host.engine) as statements:
        await project_all(
            host,
            OrderProjection(),
            stored("order-placed", "1", 5),
            stored("order-cancelled"),
            stored("order-cancelled"),
        )

    assert [statement.split()[0] for statement in statements] in (["SELECT"], ["BEGIN", "SELECT"])
    assert orders(host) == []


@sqlite_and_postgresql
async def test_incomplete_row_is_not_written_by_a_query_of_a_handler(host: Host) -> None:
    class Curious(OrderProjection):
        def order_paid(self, row: OrderRow, event: AnyEvent) -> None:
            session = object_session(row)
            assert session is not None
            row.total = len(session.scalars(select(OrderRow)).all())

        def nothing_known(self, row: OrderRow, event: AnyEvent) -> None:
            assert object_session(row) is None

    await project_all(host, Curious(), stored("order-placed", "1", 5))
    await project_all(
        host,
        Curious(),
        stored("nothing-known", "2"),
        stored("order-paid", "1"),
        stored("order-placed", "2", 5),
    )

    assert orders(host) == [("1", "placed", 1, None), ("2", "placed", 5, None)]


@one_driver
async def test_what_a_handler_returns_by_mistake_is_refused(host: Host) -> None:
    class Reducer(OrderProjection):
        def order_placed(self, row: OrderRow, event: AnyEvent) -> Any:
            return {"state": "placed"}

    with pytest.raises(ConfigurationError, match="a handler returned dict: change the row"):
        await project_all(host, Reducer(), stored("order-placed"))


# Keys


_UUID = UUID("9f1c2c36-6a1f-4c7e-9d3c-1f6a1a6f0c11")


@some_drivers
async def test_names_of_streams_become_integers_and_uuids(host: Host) -> None:
    for row_class, names in ((NumberedRow, ["42", "-7", "42"]), (UuidRow, [str(_UUID)]), (UuidTextRow, [str(_UUID)])):
        projection = project(row_class)(CountProjection)()
        await project_all(host, projection, *(stored("counted", name) for name in names))
        await project_all(host, projection, stored("counted", names[0]))

    assert [(row.id, row.count) for row in rows(host, NumberedRow)] == [(-7, 1), (42, 3)]
    assert [(row.id, row.count) for row in rows(host, UuidRow)] == [(_UUID, 2)]
    assert [(row.id, row.count) for row in rows(host, UuidTextRow)] == [(str(_UUID), 2)]


@some_drivers
async def test_other_spellings_of_a_key_are_refused(host: Host) -> None:
    integers = ["042", "+42", " 42", "42 ", "4_2", "\uff14\uff12", "-0"]
    uuids = [_UUID.hex, str(_UUID).upper(), f"{{{_UUID}}}", f"urn:uuid:{_UUID}", f"{_UUID}"[:-1] + "\uff11"]
    for row_class, names in ((NumberedRow, integers), (UuidRow, uuids), (UuidTextRow, uuids)):
        projection = project(row_class)(CountProjection)()
        for name in names:
            with pytest.raises(ConfigurationError, match="is not the usual spelling of ") as caught:
                await project_all(host, projection, stored("counted", name))
            assert repr(name) in str(caught.value)
            assert f"of stream 'orders/{name}'" in caught.value.__notes__[0]
        assert rows(host, row_class) == []


@one_driver
async def test_name_that_is_no_key_is_refused(host: Host) -> None:
    for row_class, name in ((NumberedRow, "x"), (NumberedRow, str(2**63)), (NumberedRow, "9" * 5000), (UuidRow, "42")):
        projection = project(row_class)(CountProjection)()
        with pytest.raises(ConfigurationError, match="name streams after the keys of their rows, or return those"):
            await project_all(host, projection, stored("counted", name))


@sqlite_and_postgresql
async def test_text_is_no_key_where_a_value_has_several_spellings(host: Host) -> None:
    names = {"day": "2024-02-29", "amount": "7.0", "flag": "true", "colour": "RED"}
    keys: dict[str, Any] = {"day": date(2024, 2, 29), "amount": Decimal("7.00"), "flag": True, "colour": Colour.RED}
    for attribute, row_class in KEYED_ROWS.items():
        with pytest.raises(ConfigurationError, match=f"is not of type .*, which .*Row.{attribute} holds"):
            await project_all(host, project(row_class)(CountProjection)(), stored("counted", names[attribute]))

        class Keyed(CountProjection):
            def key(self, event: AnyEvent, key: Any = keys[attribute]) -> Any:
                return key

        for _ in range(2):
            await project_all(host, project(row_class)(Keyed)(), stored("counted"))
        assert [(getattr(row, attribute), row.count) for row in rows(host, row_class)] == [(keys[attribute], 2)]


@one_driver
async def test_key_of_another_type_than_its_column_is_refused(host: Host) -> None:
    mistakes: list[tuple[type[Any], list[Any]]] = [
        (OrderRow, [7, b"7"]),
        (NumberedRow, [7.0, True, [None], 2**63]),
        (KEYED_ROWS["day"], [datetime(2024, 2, 29, tzinfo=UTC)]),
        (KEYED_ROWS["amount"], [True]),
    ]
    for row_class, keys in mistakes:
        for mistaken in keys:

            class Mistaken(CountProjection):
                def key(self, event: AnyEvent, key: Any = mistaken) -> Any:
                    return key

            with pytest.raises(ConfigurationError, match=rf"is not of type .*, which {row_class.__name__}\.\w+ holds"):
                await project_all(host, project(row_class)(Mistaken)(), stored("counted"))


@one_driver
async def test_key_that_comes_back_in_another_form_is_refused(host: Host) -> None:
    class CaseInsensitiveRow:
        state: str

    metadata = MetaData()
    table = Table(
        "folded_rows", metadata, Column("id", String(collation="NOCASE"), primary_key=True), Column("state", String)
    )
    registry(metadata=metadata).map_imperatively(CaseInsensitiveRow, table)
    metadata.create_all(host.ground.outside)

    @project(CaseInsensitiveRow)
    class Folded(TableProjection):
        def order_placed(self, row: CaseInsensitiveRow, event: AnyEvent) -> None:
            row.state = "placed"

    await project_all(host, Folded(), stored("order-placed", "ada"))
    with pytest.raises(
        ConfigurationError, match=r"found the key \('ada',\) of CaseInsensitiveRow for a key in another"
    ):
        await project_all(host, Folded(), stored("order-placed", "ADA"))


@some_drivers
async def test_composite_keys_are_names_cut_at_colons_or_tuples(host: Host) -> None:
    @project(LineRow)
    class Lines(CountProjection):
        pass

    @project(LineRow)
    class LinesOfOrder(CountProjection):
        def key(self, event: AnyEvent) -> list[tuple[str, int]]:
            return [(event.stream, number) for number in event.payload]

    await project_all(host, Lines(), stored("counted", "a:1"), stored("counted", "a:2"))
    await project_all(host, LinesOfOrder(), stored("counted", "a", [2, 3]), stored("counted", "b", [1, 1]))

    assert [(row.order, row.number, row.count) for row in rows(host, LineRow)] == [
        ("a", 1, 1),
        ("a", 2, 2),
        ("a", 3, 1),
        ("b", 1, 1),
    ]


@one_driver
@pytest.mark.parametrize("name", ["a", "a:b:1"])
async def test_composite_key_with_a_wrong_number_of_values_is_refused(host: Host, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has 2 columns \(order, number\), but .* gives"):
        await project_all(host, project(LineRow)(CountProjection)(), stored("counted", name))


@some_drivers
async def test_event_is_handled_for_each_of_its_rows_and_for_none(host: Host) -> None:
    @project(NumberedRow)
    class Routed(CountProjection):
        def key(self, event: AnyEvent) -> Any:
            return event.payload

    events = [stored("counted", payload=keys) for keys in (1, [1, 2, 2], None, [], "3", {4: "of a mapping"}, (5,))]
    await project_all(host, Routed(), *events)

    assert {row.id: row.count for row in rows(host, NumberedRow)} == {1: 2, 2: 1, 3: 1, 4: 1, 5: 1}


# New rows


@some_drivers
async def test_create_makes_the_row_or_declines(host: Host) -> None:
    asked: list[tuple[Any, str]] = []

    class Choosy(OrderProjection):
        def create(self, key: Any, event: AnyEvent) -> OrderRow | None:
            asked.append((key, event.name))
            return OrderRow(state="new", note="made", total=100) if event.name == "order-placed" else None

    await project_all(
        host, Choosy(), stored("order-paid", "1"), stored("order-placed", "1", 5), stored("order-paid", "2")
    )

    assert orders(host) == [("1", "placed", 105, "made")]
    assert asked == [("1", "order-paid"), ("1", "order-placed"), ("2", "order-paid")]


@one_driver
async def test_create_gets_a_tuple_for_several_columns(host: Host) -> None:
    @project(LineRow)
    class Lines(CountProjection):
        def create(self, key: Any, event: AnyEvent) -> LineRow:
            order, number = key
            return LineRow(order=order, number=number, count=10)

    await project_all(host, Lines(), stored("counted", "a:1"))

    assert [row.count for row in rows(host, LineRow)] == [11]


@one_driver
async def test_create_may_not_return_a_row_of_another_key_or_class(host: Host) -> None:
    class Wrong(OrderProjection):
        made: Any = None

        def create(self, key: Any, event: AnyEvent) -> Any:
            return self.made

    wrong = Wrong()
    wrong.made = OrderRow(id="other")
    with pytest.raises(ConfigurationError, match="with the id 'other' for the key"):
        await project_all(host, wrong, stored("order-placed"))
    wrong.made = NumberedRow(id=1)
    with pytest.raises(ConfigurationError, match="returned NumberedRow: return a new OrderRow"):
        await project_all(host, wrong, stored("order-placed"))


# Coming twice


@some_drivers
async def test_batch_applied_twice_changes_nothing_when_rows_keep_the_sequence_number(host: Host) -> None:
    batch = [stored("order-placed", "1", 5), stored("order-placed", "2", 7), stored("order-paid", "2")]
    for _ in range(2):
        await project_all(host, NumberedOrderProjection(), *batch)
    await project_all(host, NumberedOrderProjection(), *batch, stored("order-placed", "1", 1))

    assert orders(host) == [("1", "placed", 6, None), ("2", "paid", 7, None)]
    assert rows(host, OrderRow)[1].sequence_number == batch[-1].sequence_number


@one_driver
async def test_sequence_number_has_to_be_mapped(host: Host) -> None:
    @project(OrderRow, sequence_number="number")
    class Unnumbered(TableProjection):
        pass

    with pytest.raises(ConfigurationError, match="OrderRow has no mapped attribute 'number'"):
        host.store.with_projections(Unnumbered())


@one_driver
async def test_without_a_sequence_number_a_batch_is_applied_again(host: Host) -> None:
    batch = [stored("order-placed", "1", 5)]
    for _ in range(2):
        await project_all(host, OrderProjection(), *batch)

    assert orders(host) == [("1", "placed", 10, None)]


# The session


@some_drivers
async def test_what_the_session_knows_of_a_row_is_refreshed(host: Host) -> None:
    await project_all(host, OrderProjection(), stored("order-placed", "1", 5))
    async with committing(host) as session:
        known = await settled(session.get(OrderRow, "1"))
        await settled(session.commit())
        await project_all(host, OrderProjection(), stored("order-placed", "1", 5))
        assert known.total == 5

        await applied(session, OrderProjection(), [stored("order-placed", "1", 5)])

        assert known.total == 15
        assert await settled(session.get(OrderRow, "1")) is known
    assert orders(host) == [("1", "placed", 15, None)]


@some_drivers
@pytest.mark.parametrize("autoflush", [True, False])
async def test_what_the_session_has_not_flushed_is_kept(host: Host, autoflush: bool) -> None:
    await project_all(host, OrderProjection(), stored("order-placed", "1", 5))
    async with committing(host, autoflush=autoflush) as session:
        (await settled(session.get(OrderRow, "1"))).note = "of the host"
        session.add(OrderRow(id="2", state="new", total=1))

        await applied(session, OrderProjection(), [stored("order-placed", "1", 5), stored("order-placed", "2", 5)])

    assert orders(host) == [("1", "placed", 10, "of the host"), ("2", "placed", 6, None)]


@some_drivers
async def test_rows_are_written_but_not_committed(host: Host) -> None:
    async with entered(host.session(autoflush=False)) as session:
        await applied(session, OrderProjection(), [stored("order-placed", "1", 5)])
        assert not session.new
        await settled(session.rollback())

    assert orders(host) == []


@each_driver("sqlite")
async def test_scoped_session_will_do(host: Host) -> None:
    registry = host.scoped()
    OrderProjection().apply(registry, [stored("order-placed", "1", 5)])
    registry.commit()
    registry.remove()

    assert orders(host) == [("1", "placed", 5, None)]


@each_driver("sqlite+aiosqlite")
async def test_asyncio_session_is_refused_with_the_remedy(host: Host) -> None:
    projection: Any = OrderProjection()
    async with host.session() as session:
        with pytest.raises(ConfigurationError, match=r"got AsyncSession: with asyncio, call `await session.run_sync"):
            projection.apply(session, [stored("order-placed", "1", 5)])


@some_drivers
async def test_handlers_may_get_the_session_instead_of_rows(host: Host) -> None:
    @project(Session)
    class Ledger(TableProjection):
        def order_placed(self, session: Session, event: AnyEvent) -> None:
            session.add(OrderRow(id=event.stream, state="placed"))

        def orders_closed(self, session: Session, event: AnyEvent) -> None:
            for row in session.scalars(select(OrderRow)):
                row.state = "closed"

    async with committing(host, autoflush=False) as session:
        await applied(session, Ledger(), [stored("order-placed", "1"), stored("order-placed", "2")])
        await applied(session, Ledger(), [stored("orders-closed")])

    assert orders(host) == [("1", "closed", 0, None), ("2", "closed", 0, None)]


# Failures


@some_drivers
async def test_failing_handler_names_projection_event_stream_and_position(host: Host) -> None:
    class Failing(OrderProjection):
        def order_paid(self, row: OrderRow, event: AnyEvent) -> None:
            raise LookupError("no such invoice")

    at = stored("order-paid", "7")
    with pytest.raises(LookupError, match="no such invoice") as caught:
        await project_all(host, Failing(), stored("order-placed", "7", 1), at)

    assert caught.value.__notes__ == [
        f"projector 'failing' was at event 'order-paid' (id {at.id}) of stream 'orders/7', position {at.position}"
    ]
    assert orders(host) == []


@some_drivers
async def test_rows_that_the_database_refuses_name_projection_and_events(host: Host) -> None:
    class Incomplete(OrderProjection):
        def order_placed(self, row: OrderRow, event: AnyEvent) -> None:
            pass

    first, last = stored("order-placed", "7"), stored("order-placed", "8")
    with pytest.raises(IntegrityError) as caught:
        await project_all(host, Incomplete(), first, last)

    (note,) = caught.value.__notes__
    assert note.startswith("projector 'incomplete' was at 2 events, from event 'order-placed'")
    assert str(first.id) in note
    assert str(last.id) in note


@one_driver
async def test_missing_handler_for_an_event_of_its_categories_raises_or_is_ignored(host: Host) -> None:
    class OfOrders(OrderProjection):
        categories = ("orders",)

    class Lenient(OfOrders):
        missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

    at = stored("order-shipped")
    with pytest.raises(MissingProjectionHandlerError, match=r"define `order_shipped\(self, row, event\)`") as caught:
        await project_all(host, OfOrders(), stored("order-placed", "1", 5), at)
    assert (caught.value.projector, caught.value.event_name) == ("of-orders", "order-shipped")
    assert str(at.id) in caught.value.__notes__[0]

    await project_all(host, Lenient(), stored("order-placed", "1", 5), at)
    await project_all(host, OrderProjection(), stored("order-placed", "1", 5, category="any"), at)
    assert orders(host) == [("1", "placed", 10, None)]


@one_driver
async def test_events_of_other_categories_are_passed_over(host: Host) -> None:
    class OfOrders(OrderProjection):
        categories = ("orders", "returns")

    await project_all(
        host,
        OfOrders(),
        stored("order-placed", "1", 5),
        stored("order-placed", "1", 6, category="payments"),
        stored("unheard-of", category="payments"),
        stored("order-placed", "1", 7, category="returns"),
    )

    assert orders(host) == [("1", "placed", 12, None)]
