"""The gate to storage: what passes comes back equal, what would not is refused with its place."""

from __future__ import annotations

import dataclasses
import inspect
import random
import struct
import sys
from collections import OrderedDict, UserDict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore_sa.errors import SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types.codec import MAX_DEPTH, decode_json, encode_json, to_json


def through(value: Any) -> Any:
    return decode_json(encode_json(to_json(value)))


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents
        self.calls = 0

    def serialise(self) -> Any:
        self.calls += 1
        return {"cents": self.cents}


class Colour(StrEnum):
    RED = "red"


PLAIN = {"a": [1, 2.5, "x", True, None, {"b": []}], "long": 2**63, "ä": "ö", "": {}, "tab\t": "line\n"}


def test_plain_values_come_back_as_the_very_same_object() -> None:
    for value in (PLAIN, [PLAIN], "x", 1, 1.5, None, True, [], {}):
        assert to_json(value) is value


def test_a_changed_part_leaves_the_given_value_alone_and_shares_the_rest() -> None:
    untouched = {"x": [1]}
    given_value = {"plain": untouched, "list": [1, (2,)]}

    result = to_json(given_value)

    assert result == {"plain": {"x": [1]}, "list": [1, [2]]}
    assert given_value == {"plain": untouched, "list": [1, (2,)]}
    assert result["plain"] is untouched


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="ascii", min_codepoint=1)), inner),
    max_leaves=20,
)


@given(json_values)
def test_every_json_value_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert repr(through(value)) == repr(value)


def test_convertible_objects_are_called_once_each_wherever_they_stand() -> None:
    monies = [Money(n) for n in range(5)]

    result = to_json({"a": monies[0], "b": [monies[1], (monies[2],)], "c": {"d": monies[3]}, Colour.RED: monies[4]})

    assert result == {
        "a": {"cents": 0},
        "b": [{"cents": 1}, [{"cents": 2}]],
        "c": {"d": {"cents": 3}},
        "red": {"cents": 4},
    }
    assert [money.calls for money in monies] == [1] * 5


def test_what_serialise_returns_is_converted_in_turn() -> None:
    class Order:
        def serialise(self) -> Any:
            return {"total": Money(1), "at": date(2020, 1, 2)}

    assert to_json([Order()]) == [{"total": {"cents": 1}, "at": "2020-01-02"}]


def test_serialise_comes_before_what_else_an_object_is() -> None:
    @dataclasses.dataclass
    class Point:
        x: int

        def serialise(self) -> Any:
            return f"point {self.x}"

    class Unit(Enum):
        KILO = "kg"

        def serialise(self) -> Any:
            return "kilogram"

    assert to_json([Point(1), Unit.KILO]) == ["point 1", "kilogram"]


@in_turn("style", ["keyword", "required", "positional_only", "optional_other"])
def test_serialise_gets_the_fallback_when_it_takes_one(style: str) -> None:
    class Keyword:
        def serialise(self, *, fallback: Any) -> Any:
            return fallback(self)

    class Required:
        def serialise(self, convert: Any) -> Any:
            return convert(self)

    class PositionalOnly:
        def serialise(self, fallback: Any = None, /) -> Any:
            return fallback(self)

    class OptionalOther:
        def serialise(self, indent: int = 2) -> Any:
            return f"from fallback {indent}" if indent == 2 else indent

    kinds = {
        "keyword": Keyword,
        "required": Required,
        "positional_only": PositionalOnly,
        "optional_other": OptionalOther,
    }
    assert to_json(kinds[style](), fallback=lambda _: "from fallback 2") == "from fallback 2"


class Size(IntEnum):
    BIG = 3


class Weight(Enum):
    KILO = Decimal("1.50")


class Text(str):
    __slots__ = ()


class Tagged(msgspec.Struct, tag="t", rename="camel"):
    first_name: str
    born: date


class Row(msgspec.Struct, array_like=True):
    a: int
    b: Any


@dataclasses.dataclass
class Line:
    sku: str
    price: Decimal
    total: Any = None


class Point(NamedTuple):
    x: int
    y: int


@in_turn(
    "value, expected",
    [
        ((1, (2,)), [1, [2]]),
        (deque([1]), [1]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict({"a": (1,)}), {"a": [1]}),
        (MappingProxyType({"a": Decimal(1)}), {"a": "1"}),
        (datetime(2020, 1, 2, 3, 4, 5, 6, UTC), "2020-01-02T03:04:05.000006+00:00"),
        (datetime(2020, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2020-01-02T00:00:00+02:00"),
        (date(2020, 1, 2), "2020-01-02"),
        (time(3, 4), "03:04:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (Weight.KILO, "1.50"),
        (Text("x"), "x"),
        (Tagged("Ann", date(2020, 1, 2)), {"type": "t", "firstName": "Ann", "born": "2020-01-02"}),
        (Row(1, Money(2)), [1, {"cents": 2}]),
        (Line("a", Decimal("9.99"), Money(3)), {"sku": "a", "price": "9.99", "total": {"cents": 3}}),
        ({Colour.RED: 1, Text("k"): 2}, {"red": 1, "k": 2}),
    ],
)
def test_known_types_become_plain_json(value: Any, expected: Any) -> None:
    result = to_json([value])[0]

    assert result == expected
    assert type(result) is type(expected)
    if isinstance(result, dict):
        assert {type(key) for key in result} == {str}


SECRET = "hunter2"


@in_turn(
    "value, place, reason",
    [
        (float("nan"), "payload", "NaN"),
        ({"items": [1, 2, 3, {"price": float("nan")}]}, "payload.items[3].price", "store None"),
        ({"a": {"b": float("-inf")}}, "payload.a.b", "Infinity"),
        ([Decimal("NaN")], "payload[0]", "no finite number"),
        ({"a b": SECRET + "\0"}, "payload['a b']", "NUL"),
        ([SECRET + "\ud800"], "payload[0]", "surrogate"),
        ([f"ä{SECRET}\udfff"], "payload[0]", "surrogate"),
        ({"a": {"k\0": SECRET}}, "payload.a['k\\x00']", "key that holds a NUL"),
        ({"a": {"k\ud800": SECRET}}, "payload.a['k\\ud800']", "key that holds a lone surrogate"),
        ({"a": {5: SECRET}}, "payload.a[5]", "key of type int"),
        ({"a": {(SECRET,): 1}}, "payload.a[<tuple>]", "key of type tuple"),
        ({"at": datetime(2020, 1, 1)}, "payload.at", "naive"),
        ([b"x"], "payload[0]", "base64"),
        ([{SECRET}], "payload[0]", "sorted list"),
        ([object()], "payload[0]", "builtins.object"),
        ([Money], "payload[0]", "builtins.type"),
        ([10**4300], "payload[0]", "4300 digits"),
        ([-(10**4299)], "payload[0]", "4300 digits"),
        ((Line("a", Decimal(1), [float("nan")]),), "payload[0].total[0]", "NaN"),
        ([Row(1, {"x": SECRET + "\0"})], "payload[0][1].x", "NUL"),
        (Text("\0"), "payload", "NUL"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place_and_not_its_content(
    value: Any, place: str, reason: str
) -> None:
    with pytest.raises(SerialisationError) as caught:
        to_json(value, label="payload of event 'placed'")

    message = str(caught.value)
    assert message.startswith(f"payload of event 'placed' cannot be stored: {place} ")
    assert reason in message
    assert SECRET not in message
    assert caught.value.__cause__ is None


def nested(levels: int, wrap: Any) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = wrap(value)
    return value


WRAPPERS = [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,), lambda inner: Row(1, inner)]


@in_turn("wrap", WRAPPERS)
def test_nesting_is_limited_exactly(wrap: Any) -> None:
    assert encode_json(to_json(nested(MAX_DEPTH, wrap)))
    with pytest.raises(SerialisationError, match="nested deeper than 200 levels") as caught:
        to_json(nested(MAX_DEPTH + 1, wrap))
    assert len(str(caught.value)) < 300


def test_scalars_may_stand_at_the_deepest_level() -> None:
    value = nested(MAX_DEPTH, lambda inner: [inner])
    deepest = value
    while deepest:
        deepest = deepest[0]
    deepest.extend([UUID(int=1), 1e300, 2**70])

    assert encode_json(to_json(value))


def test_circles_are_refused() -> None:
    circle: list[Any] = []
    circle.append({"a": circle})

    class Self:
        def serialise(self) -> Any:
            return self

    for value in (circle, Self()):
        with pytest.raises(SerialisationError, match="break the cycle"):
            to_json(value)


def test_a_full_call_stack_is_a_serialisation_error() -> None:
    value = nested(MAX_DEPTH, lambda inner: [inner])
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        with pytest.raises(SerialisationError, match="call stack"):
            to_json(value)
    finally:
        sys.setrecursionlimit(limit)


@in_turn("value", [1e16, -1e16, 1e22, 1.7976931348623157e308, -1e300, 12345678901234567890.0])
def test_floats_that_would_be_written_with_an_exponent_are_spelt_out_with_a_fraction(value: float) -> None:
    text = encode_json(to_json({"x": value}))

    assert b"e" not in text
    assert text.endswith(b".0}")
    assert repr(decode_json(text)) == repr({"x": value})


def test_random_floats_of_any_size_come_back_exactly() -> None:
    bits = random.Random(1)
    for _ in range(5000):
        (value,) = struct.unpack("d", bits.randbytes(8))
        if value - value == 0:
            assert through([value]) == [value]


def as_jsonb_prints(text: bytes) -> bytes:
    """PostgreSQL's numeric: no exponents, the fraction's digits kept."""
    return format(Decimal(text.decode()), "f").encode()


def test_floats_survive_a_numeric_column() -> None:
    bits = random.Random(2)
    values = [5e-324, 2.2250738585072014e-308, 1e-310, 1e-7, 0.1, 1e15, 9999999999999998.0, 1e16, 1e23, 1e308]
    values += [struct.unpack("d", bits.randbytes(8))[0] for _ in range(2000)]
    for value in values:
        if value - value == 0:
            back = decode_json(as_jsonb_prints(encode_json(to_json(value))))
            assert back == value
            assert type(back) is float


def test_a_float_may_stay_a_float_for_callers() -> None:
    assert to_json([1e300], exact_floats=False) == [1e300]
    with pytest.raises(SerialisationError):
        to_json([float("inf")], exact_floats=False)


@in_turn("value", [2**63, -(2**63) - 1, 2**64, 10**4300 - 1, -(10**4299) + 1, 2**31, -(2**31)])
def test_integers_of_any_size_come_back_exactly(value: int) -> None:
    assert through({"x": value, "l": [value]}) == {"x": value, "l": [value]}
    assert type(through(value)) is int


def test_a_fallback_converts_what_has_no_json_form() -> None:
    assert to_json({"a": [object(), 1]}, fallback=lambda value: type(value).__name__) == {"a": ["object", 1]}


def test_what_a_fallback_returns_is_checked() -> None:
    with pytest.raises(SerialisationError, match=r"value\.a is NaN"):
        to_json({"a": object()}, fallback=lambda _: float("nan"))


def test_an_error_raised_by_serialise_passes_through() -> None:
    class Broken:
        def serialise(self) -> Any:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        to_json([Broken()])


@in_turn("value", ["\ud800", {"a": object()}, 10**5000, {1: {2: object()}}])
def test_encoding_refuses_what_did_not_pass_the_gate(value: Any) -> None:
    with pytest.raises(SerialisationError, match=r"payload cannot be written.*to_json"):
        encode_json(value, label="payload")


@in_turn("text", ["", "{", b"\xff", "1e400", "1" * 5000, '"\\ud800"'])
def test_decoding_refuses_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(SerialisationError, match="cannot be read as JSON"):
        decode_json(text)


def test_text_and_bytes_decode_alike() -> None:
    assert decode_json('{"ä": 1}') == decode_json('{"ä": 1}'.encode()) == {"ä": 1}
