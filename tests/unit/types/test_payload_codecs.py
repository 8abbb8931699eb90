"""Payloads of every family come back equal from the JSON that is stored of them, whatever is in their fields."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import EventTypes, StoredEvent, decode_json, encode_json, event, to_json
from eventstore_sa.types.payload_codecs import codec_of, invalid_reason

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Card(msgspec.Struct, frozen=True, tag="card"):
    digits: str


class Transfer(msgspec.Struct, frozen=True, tag="transfer"):
    iban: str
    at: dt.datetime


@dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: str = "EUR"


@dataclass(frozen=True)
class Box(Generic[T]):
    content: T
    others: tuple[T, ...] = ()


class Point:
    """Converts itself."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def serialise(self) -> list[int]:
        return [self.x, self.y]

    @classmethod
    def deserialise(cls, value: Any) -> Point:
        return cls(*value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))


class Inner(pydantic.BaseModel):
    note: str
    tags: set[int] = set()


@dataclass(frozen=True)
class OfDataclass:
    at: dt.datetime
    day: dt.date
    time: dt.time
    lasting: dt.timedelta
    id: UUID
    price: Money
    colour: Colour
    raw: bytes
    names: frozenset[str]
    by_id: dict[UUID, int]
    box: Box[Decimal]
    paid_by: Card | Transfer
    where: Point
    inner: Inner
    anything: Any = None
    maybe: int | None = None
    many: list[OfDataclass] = field(default_factory=list)


@attrs.frozen
class OfAttrs:
    at: dt.datetime
    lasting: dt.timedelta
    price: Money
    colour: Colour
    raw: bytes
    names: frozenset[str]
    paid_by: Card | Transfer
    maybe: OfAttrs | None = None


class OfStruct(msgspec.Struct, frozen=True, rename="camel"):
    happened_at: dt.datetime
    lasting: dt.timedelta
    price: Money
    colour: Colour
    raw: bytes
    names: frozenset[str]
    days: dict[dt.date, list[Card | Transfer]]
    large: float = 0.0
    huge: int = 0


class OfTypedDict(TypedDict):
    at: dt.datetime
    lasting: dt.timedelta
    price: Money
    colour: Colour
    raw: bytes
    names: frozenset[str]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class OfPydantic(pydantic.BaseModel):
    at: dt.datetime
    day: dt.date = pydantic.Field(alias="theDay")
    time: dt.time
    lasting: dt.timedelta
    id: UUID
    price: Decimal
    colour: Colour
    names: frozenset[str]
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    page: Page[Decimal]
    raw: bytes = b""


@pydantic.dataclasses.dataclass(frozen=True)
class OfPydanticDataclass:
    at: dt.datetime
    names: frozenset[str]
    pet: Cat | Dog


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
moments = st.datetimes(dt.datetime(1, 1, 3), dt.datetime(9999, 12, 29), timezones=st.just(dt.UTC))
durations = st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000))
decimals = st.decimals(allow_nan=False, allow_infinity=False)
ids = st.uuids()
money = st.builds(Money, decimals, text)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda each: st.lists(each) | st.dictionaries(text, each),
    max_leaves=3,
)
payments = st.builds(Card, text) | st.builds(Transfer, text, moments)
names = st.frozensets(text, max_size=3)
common: dict[str, st.SearchStrategy[Any]] = {
    "lasting": durations,
    "price": money,
    "colour": st.sampled_from(Colour),
    "raw": st.binary(max_size=8),
    "names": names,
}

FAMILIES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "dataclass": (
        OfDataclass,
        st.builds(
            OfDataclass,
            at=moments,
            day=st.dates(),
            time=st.times(),
            id=ids,
            by_id=st.dictionaries(ids, st.integers(), max_size=2),
            box=st.builds(Box, decimals, st.tuples(decimals)),
            paid_by=payments,
            where=st.builds(Point, st.integers(), st.integers()),
            inner=st.builds(Inner, note=text, tags=st.sets(st.integers(), max_size=2)),
            anything=plain,
            maybe=st.none() | st.integers(),
            **common,
        ),
    ),
    "attrs": (OfAttrs, st.builds(OfAttrs, at=moments, paid_by=payments, **common)),
    "Struct": (
        OfStruct,
        st.builds(
            OfStruct,
            happened_at=moments,
            days=st.dictionaries(st.dates(), st.lists(payments, max_size=2), max_size=2),
            large=st.floats(allow_nan=False, allow_infinity=False),
            huge=st.integers(),
            **common,
        ),
    ),
    "TypedDict": (OfTypedDict, st.fixed_dictionaries({"at": moments, **common})),
    "pydantic": (
        OfPydantic,
        st.builds(
            OfPydantic,
            at=moments,
            theDay=st.dates(),
            time=st.times(),
            lasting=durations,
            id=ids,
            price=decimals,
            colour=st.sampled_from(Colour),
            names=names,
            pet=st.builds(Cat, lives=st.integers()) | st.builds(Dog, name=text),
            page=st.builds(Page[Decimal], items=st.lists(decimals, max_size=2)),
            raw=text.map(str.encode),
        ),
    ),
    "pydantic dataclass": (
        OfPydanticDataclass,
        st.builds(OfPydanticDataclass, at=moments, names=names, pet=st.builds(Dog, name=text)),
    ),
    "own methods": (Point, st.builds(Point, st.integers(), st.integers())),
}


@pytest.mark.parametrize("family", list(FAMILIES))
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_payload_comes_back_equal(family: str, data: st.DataObject) -> None:
    payload_type, payloads = FAMILIES[family]
    codec = codec_of(payload_type)
    payload = data.draw(payloads)

    written = encode_json(to_json(codec.encode(payload)))

    assert codec.from_text(written) == payload
    assert codec.from_text(written.decode()) == payload
    assert codec.from_json(decode_json(written)) == payload


def test_bytes_of_other_families_than_pydantic_are_base64() -> None:
    payload = {"raw": b"\xff\x00"}

    class Raw(TypedDict):
        raw: bytes

    assert codec_of(Raw).encode(payload) == {"raw": "/wA="}


def test_pydantic_is_stored_as_pydantic_writes_it_without_being_registered() -> None:
    day, at = dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    model = OfPydantic.model_construct(day=day, at=at)
    nested = {"model": Cat(lives=9), "dataclass": OfPydanticDataclass(at, frozenset(["a"]), Dog(name="Rex"))}

    assert to_json(model) == model.model_dump(mode="json", by_alias=True)
    assert to_json(nested) == {
        "model": {"kind": "cat", "lives": 9},
        "dataclass": {"at": "2026-01-02T00:00:00Z", "names": ["a"], "pet": {"kind": "dog", "name": "Rex"}},
    }


def test_what_pydantic_cannot_write_is_refused() -> None:
    class Raw(pydantic.BaseModel):
        raw: bytes

    with pytest.raises(SerialisationError, match=r"pydantic cannot write .*Raw as JSON"):
        to_json(Raw(raw=b"\xff"))


def test_attrs_classes_are_stored_without_being_registered() -> None:
    @attrs.frozen
    class Placed:
        total: Decimal

    assert to_json(Placed(Decimal("1.50"))) == {"total": "1.50"}


def test_naive_datetimes_are_refused_with_their_place() -> None:
    @event("rung")
    @dataclass
    class Rung:
        at: list[dt.datetime]

    types = EventTypes(Rung)

    with pytest.raises(
        SerialisationError, match=r"payload of event 'rung' cannot be stored: payload\.at\[0\] is a naive"
    ):
        to_json(types.new_event(Rung([dt.datetime(2026, 1, 1)])).payload, label="payload of event 'rung'")


class OddEnum(enum.Enum):
    HALF = 0.5


@dataclass
class WithOddEnum:
    half: OddEnum


@dataclass
class WithTwoDataclasses:
    either: Money | Box[int]


class OpenTypedDict(TypedDict, Generic[T]):
    content: T


class StillOpen(OpenTypedDict[int]):
    more: int


UNFIT = {
    "no class": ("order", "an event type is a class; got 'order'"),
    "unsupported": (int, "int cannot be an event type: make it a dataclass"),
    "plain class": (type("Plain", (), {}), "Plain cannot be an event type"),
    "enum of floats": (WithOddEnum, "WithOddEnum cannot be an event type: Enums must contain"),
    "union of dataclasses": (WithTwoDataclasses, "may not contain more than one dataclass"),
    "open generic": (Box, "Box has type parameters that are not filled in"),
    "open TypedDict": (StillOpen, "a TypedDict has to repeat the fields"),
}


@in_turn("kind, message", UNFIT.values())
def test_classes_that_cannot_be_read_back_are_refused(kind: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        codec_of(kind)

    assert message in refused.value.message


class Secret(msgspec.Struct):
    pin: int
    colour: Colour = Colour.RED


class SecretModel(pydantic.BaseModel):
    pin: int

    @pydantic.field_validator("pin")
    @classmethod
    def check(cls, pin: int) -> int:
        raise ValueError(f"{pin} is no pin")


@dataclass
class SecretCheck:
    pin: int

    def __post_init__(self) -> None:
        raise ValueError(f"{self.pin} is no pin")


REASONS = [
    (Secret, {"pin": "hunter2"}, "Expected `int`, got `str` - at `$.pin`"),
    (Secret, {"pin": 1, "colour": "hunter2"}, "Invalid enum value '...' - at `$.colour`"),
    (Secret, {}, "Object missing required field `pin`"),
    (SecretModel, {"pin": 4711}, "pin: value_error"),
    (SecretCheck, {"pin": 4711}, "ValidationError"),
]


@in_turn("kind, stored, reason", REASONS)
def test_reasons_do_not_show_what_is_stored(kind: Any, stored: object, reason: str) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - each family has its own
        codec_of(kind).from_json(stored)

    assert invalid_reason(refused.value) == reason


def test_subclasses_with_their_parameters_filled_in_are_event_types() -> None:
    @event("priced")
    @dataclass(frozen=True)
    class Priced(Box[Decimal]):
        pass

    types = EventTypes(Priced)
    new = types.new_event(Priced(Decimal("1.10")))
    stored: Any = StoredEvent(new.id, new.name, "1", "c", 0, 1, new.payload, None, new.observed_at, new.occurred_at)

    assert types.read(stored).payload == Priced(Decimal("1.10"))  # type: ignore[union-attr]
