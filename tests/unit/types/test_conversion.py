"""Conversion for callers: both directions, at any depth, with fallbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Annotated, Any, Generic, Optional, Self, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pytest

from eventstore_sa.errors import SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    JsonArray,
    JsonObject,
    JsonPrimitive,
    JsonValue,
    JsonValueConvertible,
    JsonValueSerialisable,
    JsonValueType,
    StringConvertible,
    deserialise_from_json_value,
    deserialise_from_string,
    is_json_array,
    is_json_object,
    is_json_primitive,
    is_json_value,
    raising_deserialisation_fallback,
    raising_serialisation_fallback,
    serialise_to_json_value,
    serialise_to_string,
    str_serialisation_fallback,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Money:
    cents: int

    def serialise(self) -> JsonValue:
        return f"{self.cents} cents"

    @classmethod
    def deserialise(cls, value: Any) -> Money:
        return cls(int(value.removesuffix(" cents")))


@dataclass
class Line:
    sku: str
    price: Money
    note: str | None = None
    length: int = field(init=False, default=0)


class Order(msgspec.Struct):
    lines: list[str]
    at: datetime


class Options(TypedDict):
    gift: bool


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Unit(Enum):
    KILO = "kg"
    NUMBER = 1


class Weight(Enum):
    UNKNOWN = object()
    LIGHT = Decimal("1.50")


class Access(IntFlag):
    READ = 1
    WRITE = 2


@dataclass
class Box(Generic[T]):
    items: list[T]

    def serialise(self) -> JsonValue:
        return serialise_to_json_value(self.items)

    @classmethod
    def deserialise(cls, value: Any) -> Self:
        return cls(value)


NOW = datetime(2024, 1, 2, 3, 4, 5, 6, UTC)
ID = UUID(int=7)


@in_turn(
    "klass, value",
    [
        (Money, Money(1)),
        (list[Money], [Money(1), Money(2)]),
        (Sequence[Money], [Money(1)]),
        (tuple[Money, ...], (Money(1), Money(2))),
        (tuple[Money, int], (Money(1), 2)),
        (dict[str, Money], {"a": Money(1)}),
        (Mapping[str, list[Money | None]], {"a": [Money(1), None]}),
        (dict[Colour, int], {Colour.RED: 1}),
        (Money | None, None),
        (Optional[Money], Money(3)),  # noqa: UP045 - the old spelling must work too
        (Annotated[Money, "m"], Money(1)),
        (Line, Line("a", Money(5), "n")),
        (list[Line], [Line("a", Money(5))]),
        (Order, Order(["a"], NOW)),
        (Options, {"gift": True}),
        (datetime, NOW),
        (date, NOW.date()),
        (UUID, ID),
        (Decimal, Decimal("1.10")),
        (Colour, Colour.RED),
        (Level, Level.HIGH),
        (Unit, Unit.KILO),
        (Unit, Unit.NUMBER),
        (Weight, Weight.LIGHT),
        (Access, Access.READ | Access.WRITE),
        (Box[int], Box([1])),
        (int | str, "x"),
        (str | int, 5),
        (bool, True),
        (type(None), None),
        (float, 1.5),
        (list[Any], [1, "a", None]),
        (dict[str, Any], {"a": [1]}),
        (list, [1]),
        (dict, {"a": 1}),
        (JsonValueType, {"a": [1, None]}),
        (JsonObject, {"a": 1}),
        (JsonArray, [1]),
        (JsonPrimitive, 1.5),
        (dict[str, JsonValue], {"a": [1]}),
        (Any, {"a": 1}),
    ],
)
def test_values_come_back_as_what_they_were(klass: Any, value: Any) -> None:
    result = deserialise_from_json_value(klass, serialise_to_json_value(value))

    assert result == value
    assert type(result) is type(value)


def test_unions_keep_a_value_that_is_a_member_already() -> None:
    text = "2024-01-02T03:04:05Z"
    assert deserialise_from_json_value(datetime | str, text) == text
    assert deserialise_from_json_value(datetime | int, text) == datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_large_floats_stay_floats_for_callers() -> None:
    assert serialise_to_json_value({"a": (1e300,)}) == {"a": [1e300]}


@in_turn(
    "klass, value",
    [
        (int, "1"),
        (dict, {1: 2}),
        (dict[int, int], {1: 2}),
        (dict[str, Any], {1: 2}),
        (Mapping[str, JsonValue], {"a": 1, 2: 3}),
        (Line, {"sku": "a", "price": "3 cents", "colour": "red"}),
        (str, 1),
        (int, True),
        (list[int], {"a": 1}),
        (list[int], "12"),
        (list[str], "ab"),
        (dict[str, int], [1]),
        (tuple[int, int], [1]),
        (UUID, "no uuid"),
        (datetime, "yesterday"),
        (Unit, "unknown"),
        (Weight, None),
        (int | None, "x"),
        (int | bool, "x"),
        (JsonObject, [1]),
        (JsonArray, "text"),
        (JsonPrimitive, []),
        (JsonValueType, object()),
        (Line, {"sku": "a"}),
        (Line, [1]),
        (object, object()),
    ],
)
def test_what_does_not_fit_is_refused_or_left_to_the_fallback(klass: Any, value: Any) -> None:
    with pytest.raises(SerialisationError, match="cannot be deserialised"):
        deserialise_from_json_value(klass, value)
    assert deserialise_from_json_value(klass, value, lambda _, given: ("fallback", given)) == ("fallback", value)


def test_fallbacks_get_the_part_that_does_not_fit() -> None:
    calls: list[Any] = []

    def fallback(klass: Any, value: object) -> int:
        calls.append((klass, value))
        return 0

    assert deserialise_from_json_value(dict[str, list[int]], {"a": [1, "x"]}, fallback) == {"a": [1, 0]}
    assert calls == [(int, "x")]


def test_messages_name_types_and_no_values() -> None:
    with pytest.raises(SerialisationError, match="type str cannot be deserialised to int") as caught:
        deserialise_from_json_value(int, "hunter2")
    assert "hunter2" not in str(caught.value)


def test_deserialise_gets_the_fallback_when_it_takes_one() -> None:
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        @classmethod
        def deserialise(cls, value: Any, fallback: Any) -> Wrapper:
            return cls(fallback(cls, value))

    class Static(Wrapper):
        @staticmethod
        def deserialise(value: Any, /, convert: Any) -> Wrapper:  # type: ignore[override]
            return Static(convert(Static, value))

    for kind in (Wrapper, Static):
        assert deserialise_from_json_value(kind, 1, lambda _, value: value + 1).inner == 2


def test_errors_of_convertible_classes_pass_through() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        deserialise_from_json_value(list[Money], ["many cents"])


def test_serialising_uses_the_fallback_at_any_depth() -> None:
    value = {"a": [object(), Money(1)]}
    assert serialise_to_json_value(value, lambda _: "?") == {"a": ["?", "1 cents"]}
    for arguments in ((), (raising_serialisation_fallback,)):
        with pytest.raises(SerialisationError, match=r"value\.a\[0\] is of type builtins\.object"):
            serialise_to_json_value(value, *arguments)
    with pytest.raises(SerialisationError, match="NaN"):
        serialise_to_json_value([float("nan")], str_serialisation_fallback)


def test_strings_serialise_to_exact_strings() -> None:
    assert serialise_to_string("x") == "x"
    assert serialise_to_string(Money(1)) == "1 cents"
    assert serialise_to_string(Unit.KILO) == "kg"
    assert type(serialise_to_string(Colour.RED)) is str
    assert serialise_to_string(5, str_serialisation_fallback) == "5"
    for value in (5, None, Unit.NUMBER):
        with pytest.raises(SerialisationError, match="no serialised form"):
            serialise_to_string(value)


def test_strings_deserialise() -> None:
    assert deserialise_from_string(str, "x") == "x"
    assert deserialise_from_string(Money, "1 cents") == Money(1)
    assert deserialise_from_string(Unit, "kg") is Unit.KILO
    assert deserialise_from_string(int, "5", lambda klass, value: klass(value)) == 5
    for klass, value in ((int, "5"), (Unit, "unknown"), (str, 5)):
        with pytest.raises(SerialisationError, match="cannot be deserialised"):
            deserialise_from_string(klass, value)


def test_raising_fallbacks_raise() -> None:
    with pytest.raises(SerialisationError, match=r"builtins\.object"):
        raising_serialisation_fallback(object())
    with pytest.raises(SerialisationError, match="list"):
        raising_deserialisation_fallback(list[int], object())


def test_guards_tell_json_apart() -> None:
    cases: list[tuple[Any, bool, bool, bool]] = [
        (None, True, False, False),
        (1, True, False, False),
        ("x", True, False, False),
        (b"x", False, False, False),
        ([1, {"a": [None]}], False, True, False),
        ((1, 2), False, True, False),
        ([1, {"a": object()}], False, False, False),
        ({"a": [1]}, False, False, True),
        ({1: 1}, False, False, False),
        ({"a": {1}}, False, False, False),
        (object(), False, False, False),
    ]
    for value, primitive, array, object_ in cases:
        assert is_json_primitive(value) is primitive
        assert is_json_array(value) is array
        assert is_json_object(value) is object_
        assert is_json_value(value) is (primitive or array or object_)


def test_protocols_recognise_convertible_classes() -> None:
    assert isinstance(Money(1), JsonValueConvertible)
    assert isinstance(Money(1), StringConvertible)
    assert issubclass(Money, JsonValueSerialisable)
    assert not isinstance(Line("a", Money(1)), JsonValueSerialisable)
