"""What `@project` makes of classes, and what it refuses; no rows are needed for that."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from typing import Any

import pytest
from sqlalchemy.orm import Session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection import DELETE, Projector, TableProjection, handles, project
from eventstore_sa.testing.cases.tables import in_turn
from tests.unit.projection.sources import stored


class Row:
    pass


@project(Session)
class PlainProjection:
    """Remembers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def order_placed(self, session: Any, event: Any) -> None:
        pass


def test_name_is_that_of_the_class_in_kebab_case() -> None:
    class OrderSummaryProjection(TableProjection):
        pass

    class HTTPOrdersProjector(TableProjection):
        pass

    class Projection(TableProjection):
        pass

    class Named(TableProjection):
        name = "other"

    names = [kind().name for kind in (OrderSummaryProjection, HTTPOrdersProjector, Projection, Named)]

    assert names == ["order-summary", "http-orders", "projection", "other"]


def test_plain_class_becomes_a_table_projection_and_stays_what_it_was() -> None:
    plain: Any = PlainProjection(3)

    assert isinstance(plain, TableProjection)
    assert (plain.limit, plain.name, PlainProjection.__doc__) == (3, "plain", "Remembers.")
    assert pickle.loads(pickle.dumps(plain)).limit == 3
    assert plain.takes(stored("order-placed"))


def test_class_that_derives_from_the_base_is_decorated_in_place() -> None:
    class Derived(TableProjection):
        pass

    assert project(Row)(Derived) is Derived


def test_subclass_of_a_decorated_class_keeps_its_rows_and_adds_handlers() -> None:
    class More(PlainProjection):
        @handles("order-paid")
        def pay(self, session: Any, event: Any) -> None:
            pass

    more: Any = More(1)
    more.check_inline()

    assert [more.takes(stored(name)) for name in ("order-placed", "order-paid", "pay")] == [True, True, False]


def test_abstract_plain_class_and_mixin_work_as_in_any_other_class() -> None:
    class Mixin:
        def order_shipped(self, session: Any, event: Any) -> None:
            pass

    @project(Session)
    class Abstract(Mixin, ABC):
        @abstractmethod
        def order_placed(self, session: Any, event: Any) -> None: ...

    class Concrete(Abstract):
        def order_placed(self, session: Any, event: Any) -> None:
            pass

    concrete: Any = Concrete()
    with pytest.raises(TypeError, match="abstract"):
        Abstract()
    assert [concrete.takes(stored(name)) for name in ("order-placed", "order-shipped")] == [True, True]


def test_categories_decide_what_is_taken() -> None:
    class OfOrders(TableProjection):
        categories = {"orders"}  # noqa: RUF012

    class OfPayments(OfOrders):
        categories = {"payments"}  # noqa: RUF012

    assert OfOrders().takes(stored("anything"))
    assert not OfPayments().takes(stored("anything"))


@in_turn("given", [None, "OrderRow", Row()])
def test_what_is_no_class_cannot_be_projected_to(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="@project needs a mapped class, or Session; got"):
        project(given)


def test_decorator_without_its_argument_says_so() -> None:
    with pytest.raises(ConfigurationError, match="@project decorates a class; got"):

        @project(Row)
        def function() -> None: ...


def test_decorator_without_parentheses_says_what_is_missing() -> None:
    class Forgetful(TableProjection):
        pass

    with pytest.raises(ConfigurationError, match="@project above Forgetful does not say whose rows it changes"):
        project(Forgetful)


def test_text_is_not_taken_for_names_of_categories() -> None:
    with pytest.raises(ConfigurationError, match=r"OfOrders\.categories is text, .*: write \('orders',\)"):
        type("OfOrders", (TableProjection,), {"categories": "orders"})
    with pytest.raises(ConfigurationError, match=r"OrdersProjector\.categories is text"):
        type("OrdersProjector", (Projector,), {"categories": "orders"})


def test_session_keeps_no_sequence_number() -> None:
    with pytest.raises(ConfigurationError, match=r"@project\(Session\) has no rows"):
        project(Session, sequence_number="number")


def test_coroutine_functions_are_no_handlers() -> None:
    with pytest.raises(ConfigurationError, match=r"Late.order_placed is a coroutine function, but rows are changed by"):

        @project(Row)
        class Late:
            async def order_placed(self, row: Any, event: Any) -> None: ...


@in_turn("attribute", ["apply", "apply_inline", "check_inline", "takes"])
def test_methods_that_are_needed_cannot_be_handlers(attribute: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Mistaken.{attribute} overrides .* name the method `{attribute}_`"):
        project(Row)(type("Mistaken", (), {attribute: lambda self, row, event: None}))


@in_turn("attribute", ["name", "missing_handler_behaviour", "categories", "needs_session"])
def test_attributes_cannot_be_handlers(attribute: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Mistaken.{attribute} is a method, but must be a value"):
        project(Row)(type("Mistaken", (), {attribute: lambda self, row, event: None}))


@in_turn("attribute", ["key", "create"])
def test_coroutine_functions_give_no_keys_and_rows(attribute: str) -> None:
    async def late(self: Any, *_: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=f"Mistaken.{attribute} is a coroutine function"):
        project(Row)(type("Mistaken", (), {attribute: late}))


def test_decorated_method_that_cannot_handle_is_told_what_handlers_get() -> None:
    with pytest.raises(ConfigurationError, match=r"method\(row, event\): define it as pay\(self, row, event\)$"):

        @project(Row)
        class Mistaken:
            @handles("order-paid")
            def pay(self, event: Any) -> None: ...


def test_undecorated_projection_says_what_is_missing() -> None:
    class Undecorated(TableProjection):
        def order_placed(self, row: Any, event: Any) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Undecorated does not say whose rows it changes: decorate it"):
        Undecorated().check_inline()


def test_what_deletes_a_row_has_a_name() -> None:
    assert repr(DELETE) == "DELETE"
