"""Which method of a projector handles which event: naming, @handles, inheritance, and what is never a handler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum, StrEnum
from functools import cached_property, partialmethod, wraps
from typing import Any

import pytest

from eventstore_sa.errors import ConfigurationError, MissingProjectionHandlerError
from eventstore_sa.projection import Projector, handles
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import StreamIdentifier
from tests.unit.projection.sources import AnyEvent, stored


class CallsProjector(Projector[StreamIdentifier, list[str], None]):
    """Its state is the list of the handlers that were called."""

    def initial_state_factory(self) -> list[str]:
        return []

    def initial_metadata_factory(self) -> None:
        return None

    def id_factory(self, state: list[str], source: StreamIdentifier) -> str:
        return source.stream


def called(projector: Projector[Any, Any, Any], event_name: Any) -> list[str]:
    calls: list[str] = projector.apply(event=stored(event_name))
    return calls


def is_unhandled(projector: Projector[Any, Any, Any], event_name: Any) -> bool:
    try:
        projector.apply(event=stored(event_name))
    except MissingProjectionHandlerError:
        return True
    return False


class TestNaming:
    @in_turn(
        "event_name", ["order-placed", "orderPlaced", "OrderPlaced", "order placed", "order.placed", "ORDER_PLACED"]
    )
    def test_a_method_handles_the_events_of_its_name_in_any_convention(self, event_name: str) -> None:
        class P(CallsProjector):
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

        assert called(P(), event_name) == ["order_placed"]

    @in_turn("event_name", ["überfällig", "Überfällig", "ÜBERFÄLLIG", "u\u0308berfa\u0308llig"])
    def test_a_method_with_a_name_that_is_not_ascii_handles_its_events(self, event_name: str) -> None:
        class P(CallsProjector):
            def überfällig(self, state: list[str], event: AnyEvent) -> list[str]:  # noqa: PLC2401
                return [*state, "überfällig"]

        assert called(P(), event_name) == ["überfällig"]

    def test_a_method_in_camel_case_handles_its_events_too(self) -> None:
        class P(CallsProjector):
            def orderPlaced(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "orderPlaced"]

        assert called(P(), "order-placed") == ["orderPlaced"]

    @in_turn("event_name", ["apply", "project", "import", "name"])
    def test_an_underscore_behind_the_name_frees_a_method_name_that_is_taken(self, event_name: str) -> None:
        class P(CallsProjector):
            def apply_(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "apply"]

            def project_(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "project"]

            def import_(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "import"]

            def name_(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "name"]

        assert called(P(), event_name) == [event_name]

    @in_turn("event_name", ["register", "mro"])
    def test_a_method_may_be_called_like_something_of_the_metaclass(self, event_name: str) -> None:
        class P(CallsProjector):
            def register(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "register"]

            def mro(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "mro"]

        assert called(P(), event_name) == [event_name]

    def test_event_names_that_are_enum_members_stand_for_their_values(self) -> None:
        class Text(StrEnum):
            ORDER_PLACED = "order-placed"

        class Plain(Enum):
            ORDER_PLACED = "order-placed"

        class P(CallsProjector):
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

        assert called(P(), Text.ORDER_PLACED) == ["order_placed"]
        assert called(P(), Plain.ORDER_PLACED) == ["order_placed"]

    def test_event_names_that_cannot_be_hashed_are_found(self) -> None:
        class Name:
            __hash__ = None  # type: ignore[assignment]

            def serialise(self) -> str:
                return "order-placed"

        class P(CallsProjector):
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

        assert called(P(), Name()) == ["order_placed"]

    def test_ever_new_event_names_do_not_fill_the_memory(self) -> None:
        class P(CallsProjector):
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

        for i in range(5_000):
            P._handlers.attribute_for(f"other-{i}")

        assert len(P._handlers._found) <= 1024
        assert called(P(), "order-placed") == ["order_placed"]


class TestWhatIsNoHandler:
    FRAMEWORK_NAMES = tuple(sorted({*dir(Projector), "_handlers", "_handle", "_note", "__init__", "__class__"}))

    @in_turn("event_name", FRAMEWORK_NAMES)
    def test_no_event_reaches_a_method_of_the_framework(self, event_name: str) -> None:
        class P(CallsProjector):
            pass

        assert is_unhandled(P(), event_name)

    @in_turn(
        "event_name",
        [
            "initial-state-factory",
            "idFactory",
            "ID_FACTORY",
            "project-sync",
            "Update Metadata",
            "missingHandlerBehaviour",
        ],
    )
    def test_no_convention_of_the_name_reaches_one_either(self, event_name: str) -> None:
        class P(CallsProjector):
            def update_metadata(self, state: list[str], metadata: None, event: AnyEvent) -> None:
                return None

        assert is_unhandled(P(), event_name)

    @in_turn(
        "event_name",
        [
            "constant",
            "formatter",
            "computed",
            "cached",
            "Nested",
            "too_few",
            "too_many",
            "needs_keyword",
            "generator",
            "async_generator",
            "private",
            "_private",
            "P__mangled",
            "_P__mangled",
            "collaborator",
        ],
    )
    def test_nothing_but_public_methods_of_state_and_event_is_reached(self, event_name: str) -> None:
        class Formatter:
            def __call__(self, *args: object) -> list[str]:
                return ["formatter"]

        class P(CallsProjector):
            constant = "constant"
            formatter = Formatter()

            def __init__(self) -> None:
                self.collaborator = Formatter()

            @property
            def computed(self) -> Callable[..., list[str]]:
                return lambda state, event: ["computed"]

            @cached_property
            def cached(self) -> Callable[..., list[str]]:
                return lambda state, event: ["cached"]

            class Nested:
                def __init__(self, state: list[str], event: AnyEvent, more: object = None) -> None: ...

            def too_few(self, state: list[str]) -> list[str]:
                return ["too_few"]

            def too_many(self, state: list[str], event: AnyEvent, more: object) -> list[str]:
                return ["too_many"]

            def needs_keyword(self, state: list[str], event: AnyEvent, *, more: object) -> list[str]:
                return ["needs_keyword"]

            def generator(self, state: list[str], event: AnyEvent) -> Iterator[str]:
                yield "generator"

            async def async_generator(self, state: list[str], event: AnyEvent) -> AsyncIterator[str]:
                yield "async_generator"

            def _private(self, state: list[str], event: AnyEvent) -> list[str]:
                return ["_private"]

            def __mangled(self, state: list[str], event: AnyEvent) -> list[str]:
                return ["__mangled"]

        assert is_unhandled(P(), event_name)

    def test_static_and_class_methods_are_reached(self) -> None:
        class P(CallsProjector):
            @staticmethod
            def static(state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "static"]

            @classmethod
            def of_class(cls, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, cls.__name__]

            @staticmethod
            @handles("2023/static")
            def inside(state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "inside"]

            @handles("2023/class")
            @classmethod
            def outside(cls, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "outside"]

            @staticmethod
            def too_many(state: list[str], event: AnyEvent, more: object) -> list[str]:
                return [*state, "too_many"]

        assert called(P(), "static") == ["static"]
        assert called(P(), "of-class") == ["P"]
        assert called(P(), "2023/static") == ["inside"]
        assert called(P(), "2023/class") == ["outside"]
        assert is_unhandled(P(), "too-many")

    def test_methods_of_a_plain_mixin_are_reached(self) -> None:
        class CancellationMixin:
            def order_cancelled(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_cancelled"]

            def apply_discount(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "mixin"]

        class P(CancellationMixin, CallsProjector):
            def apply_discount(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "class"]

        assert called(P(), "order-cancelled") == ["order_cancelled"]
        assert called(P(), "apply-discount") == ["class"]

    def test_handlers_that_are_set_afterwards_are_reached(self) -> None:
        class P(CallsProjector):
            def __init__(self) -> None:
                self.in_instance = lambda state, event: [*state, "in_instance"]

        projector = P()
        assert is_unhandled(projector, "in-class")

        untyped: Any = P
        untyped.in_class = lambda self, state, event: [*state, "in_class"]
        untyped.two_few = lambda self, state: [*state, "two_few"]
        untyped._private = lambda self, state, event: [*state, "_private"]

        assert called(projector, "in-instance") == ["in_instance"]
        assert called(projector, "in-class") == ["in_class"]
        assert projector.takes(stored("inClass"))
        assert projector.depends_on("in-class")
        assert is_unhandled(projector, "two-few")
        assert is_unhandled(projector, "private")

        del untyped.in_class
        assert is_unhandled(projector, "in-class")

    def test_what_projectors_define_is_no_handler_even_when_it_is_set_afterwards(self) -> None:
        projector: Any = CallsProjector()
        projector.ids = lambda state, event: ["ids"]

        assert is_unhandled(projector, "ids")

    def test_decorated_methods_of_a_mixin_are_reached(self) -> None:
        class CancellationMixin:
            @handles("order-cancelled")
            def cancel(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "cancel"]

        class P(CancellationMixin, CallsProjector):
            pass

        assert called(P(), "order-cancelled") == ["cancel"]

    def test_other_ways_to_make_a_method_are_handlers(self) -> None:
        def traced(method: Callable[..., list[str]]) -> Callable[..., list[str]]:
            @wraps(method)
            def wrapper(*args: Any) -> list[str]:
                return [*method(*args), "traced"]

            return wrapper

        class P(CallsProjector):
            def _note_call(self, call: str, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, call]

            partial = partialmethod(_note_call, "partial")

            @traced
            def wrapped(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "wrapped"]

            @traced
            @handles("decorated-within")
            def inner(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "inner"]

            def defaults(self, state: list[str], event: AnyEvent, more: int = 3) -> list[str]:
                return [*state, f"defaults {more}"]

        assert called(P(), "partial") == ["partial"]
        assert called(P(), "wrapped") == ["wrapped", "traced"]
        assert called(P(), "decorated-within") == ["inner", "traced"]
        assert called(P(), "defaults") == ["defaults 3"]


class TestDecorator:
    def test_handles_wins_over_naming(self) -> None:
        class P(CallsProjector):
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

            @handles("order-placed")
            def explicit(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "explicit"]

        assert called(P(), "order-placed") == ["explicit"]
        assert called(P(), "OrderPlaced") == ["order_placed"]

    def test_a_decorated_method_handles_exactly_the_events_it_says(self) -> None:
        class P(CallsProjector):
            @handles("a", "b/c")
            @handles("2fa-enabled")
            def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "order_placed"]

        for name in ("a", "b/c", "2fa-enabled"):
            assert called(P(), name) == ["order_placed"]
        for name in ("A", "b-c", "b", "order-placed", "order_placed"):
            assert is_unhandled(P(), name)

    @in_turn("event_name", ["apply", "project", "name", "id_factory", "__init__", "\N{PARTY POPPER}"])
    def test_any_event_name_can_be_handled_explicitly(self, event_name: str) -> None:
        class P(CallsProjector):
            @handles(event_name)
            def _explicit(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "explicit"]

        assert called(P(), event_name) == ["explicit"]

    def test_a_decorated_method_is_inherited(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

        class Child(Parent):
            pass

        assert called(Child(), "x") == ["parent"]

    def test_an_override_keeps_the_events_of_the_method(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

        class Child(Parent):
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*super().on_x(state, event), "child"]

        assert called(Child(), "x") == ["parent", "child"]
        assert is_unhandled(Child(), "on-x")
        assert called(Parent(), "x") == ["parent"]

    def test_an_override_that_is_decorated_anew_has_only_the_new_events(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

        class Child(Parent):
            @handles("y")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "child"]

        assert called(Child(), "y") == ["child"]
        assert is_unhandled(Child(), "x")

    def test_a_subclass_takes_an_event_over_with_another_method(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

            def y(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

        # Remembered by abc, which would believe it of the child too while that is being made.
        assert issubclass(Parent, Parent)

        class Child(Parent):
            # overridden first, so that the parent's claim is met before and after the child's
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "overridden"]

            @handles("x")
            def other_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "child"]

            def y_(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "child"]

        assert called(Child(), "x") == ["child"]
        assert called(Child(), "y") == ["child"]

    def test_an_override_by_none_removes_the_handler(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

            def y(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "parent"]

        class Child(Parent):
            on_x = None  # type: ignore[assignment]
            y = None  # type: ignore[assignment]

        assert is_unhandled(Child(), "x")
        assert is_unhandled(Child(), "y")

    def test_an_abstract_handler_is_implemented_by_subclasses(self) -> None:
        class Parent(CallsProjector):
            @handles("x")
            @abstractmethod
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]: ...

        class Child(Parent):
            def on_x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "child"]

        assert called(Child(), "x") == ["child"]

    def test_a_replaced_method_is_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class P(CallsProjector):
            def x(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "x"]

        monkeypatch.setattr(P, "x", lambda self, state, event: [*state, "replaced"])

        assert called(P(), "x") == ["replaced"]


class TestMistakes:
    def test_two_methods_decorated_for_one_event_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"P\.first and P\.second both handle the event 'order-placed'"):

            class P(CallsProjector):
                @handles("order-placed")
                def first(self, state: list[str], event: AnyEvent) -> list[str]:
                    return state

                @handles("order-placed")
                def second(self, state: list[str], event: AnyEvent) -> list[str]:
                    return state

    def test_two_methods_named_alike_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"P\.orderPlaced and P\.order_placed both handle"):

            class P(CallsProjector):
                def orderPlaced(self, state: list[str], event: AnyEvent) -> list[str]:
                    return state

                def order_placed(self, state: list[str], event: AnyEvent) -> list[str]:
                    return state

    def test_two_parents_that_handle_one_event_are_refused_until_the_child_decides(self) -> None:
        class Left(CallsProjector):
            @handles("x")
            def left(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "left"]

        class Right(CallsProjector):
            @handles("x")
            def right(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "right"]

        with pytest.raises(ConfigurationError, match=r"Left\.left and Right\.right both handle the event 'x' in Both"):

            class Both(Left, Right):
                pass

        class Decided(Left, Right):
            def left(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "overridden"]

            def right(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "overridden"]

            @handles("x")
            def decided(self, state: list[str], event: AnyEvent) -> list[str]:
                return [*state, "decided"]

        assert called(Decided(), "x") == ["decided"]

    def test_a_decorated_method_of_the_frameworks_name_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"P\.update_metadata .* a name of Projector's own: rename"):

            class P(CallsProjector):
                @handles("x")
                def update_metadata(self, state: Any, metadata: Any, event: Any = None) -> Any:
                    return None

    @in_turn(
        "method",
        {
            "too few arguments": lambda self, state: state,
            "too many arguments": lambda self, state, event, more: state,
            "generator": lambda self, state, event: (yield state),
        },
    )
    def test_a_decorated_method_that_cannot_be_a_handler_is_refused(self, method: Callable[..., Any]) -> None:
        with pytest.raises(ConfigurationError, match=r"P\.on_x is decorated .* on_x\(self, state, event\)"):
            type("P", (CallsProjector,), {"on_x": handles("x")(method)})

    @in_turn("wrapper", [property, cached_property])
    def test_a_decorated_function_that_is_made_something_else_is_refused(self, wrapper: Callable[..., Any]) -> None:
        def on_x(self: Any, state: Any = None, event: Any = None) -> Any:
            return state

        with pytest.raises(ConfigurationError, match=r"P\.on_x is decorated"):
            type("P", (CallsProjector,), {"on_x": wrapper(handles("x")(on_x))})

    @in_turn("wrapper", [property, type])
    def test_handles_refuses_what_is_no_function(self, wrapper: Callable[..., Any]) -> None:
        thing: Any = int if wrapper is type else wrapper(lambda self, state, event: state)

        with pytest.raises(ConfigurationError, match=rf"@handles decorates {wrapper.__name__}: put it on a method"):
            handles("x")(thing)

    @in_turn(
        "names, problem",
        [((), "needs the names"), (("",), "an empty string"), ((3,), "not int"), ((lambda: None,), "not function")],
    )
    def test_handles_refuses_names_that_are_none(self, names: tuple[Any, ...], problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem) as caught:
            handles(*names)

        assert '@handles("order-placed")' in str(caught.value)

    @in_turn("method", ["apply", "project", "project_sync", "reduce", "takes", "apply_inline", "id_of"])
    def test_a_handler_in_the_place_of_a_framework_method_is_refused(self, method: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"P\.{method} overrides .* name it `{method}_`"):
            type("P", (CallsProjector,), {method: lambda self, state, event: state})

    def test_a_handler_in_the_place_of_ids_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"P\.ids takes an event alone, .* name it `ids_`"):
            type("P", (CallsProjector,), {"ids": lambda self, state, event: state})

    @in_turn("attribute", ["name", "missing_handler_behaviour", "categories", "needs_session"])
    def test_a_handler_in_the_place_of_a_framework_value_is_refused(self, attribute: str) -> None:
        with pytest.raises(ConfigurationError, match=rf"P\.{attribute} is a method, .* name it `{attribute}_`"):
            type("P", (CallsProjector,), {attribute: lambda self, state, event: state})

    @in_turn("method", ["initial_state_factory", "initial_metadata_factory", "id_factory", "ids", "update_metadata"])
    def test_a_coroutine_function_that_is_no_handler_is_refused(self, method: str) -> None:
        async def coroutine_function(self: Any, *args: Any) -> None: ...

        with pytest.raises(ConfigurationError, match=rf"P\.{method} is a coroutine function"):
            type("P", (CallsProjector,), {method: coroutine_function})
