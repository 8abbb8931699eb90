"""What JSON is to this library: its types, guards for them, and protocols for objects that convert themselves.

Turning values into JSON lives in `codec` (for storage) and `conversion` (for callers); this module does no conversion.
It is pure Python and may be imported by everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from typing_extensions import TypeIs

__all__ = [
    "JsonArray",
    "JsonObject",
    "JsonPrimitive",
    "JsonValue",
    "JsonValueConvertible",
    "JsonValueDeserialisable",
    "JsonValueSerialisable",
    "JsonValueType",
    "StringConvertible",
    "StringDeserialisable",
    "StringSerialisable",
    "is_json_array",
    "is_json_object",
    "is_json_primitive",
    "is_json_value",
]

JsonPrimitive: TypeAlias = str | int | float | bool | None
JsonArray: TypeAlias = Sequence["JsonValue"]
JsonObject: TypeAlias = Mapping[str, "JsonValue"]
JsonValue: TypeAlias = JsonPrimitive | JsonArray | JsonObject

JsonValueType: Any = JsonValue
"""`JsonValue` where a class is expected, as in `deserialise_from_json_value(JsonValueType, value)`."""


@runtime_checkable
class JsonValueSerialisable(Protocol):
    """An object that turns itself into a JSON value.

    `serialise` may take a parameter named `fallback`, a function from an object to a JSON value: it is then called
    with the fallback that the caller chose for parts of unknown types. What it returns may hold other convertible
    objects.
    """

    def serialise(self) -> JsonValue:
        """Return this object as a JSON value."""
        ...


@runtime_checkable
class JsonValueDeserialisable(Protocol):
    """A class that makes its objects from a JSON value.

    `deserialise` may take a second parameter named `fallback`, a function of class and value.
    """

    @classmethod
    def deserialise(cls, value: Any, /) -> Self:
        """Return the object that `value` stands for."""
        ...


@runtime_checkable
class JsonValueConvertible(JsonValueSerialisable, JsonValueDeserialisable, Protocol):
    """An object that converts itself to and from JSON."""


@runtime_checkable
class StringSerialisable(Protocol):
    """An object that turns itself into a string; the same rules as for `JsonValueSerialisable`."""

    def serialise(self) -> str:
        """Return this object as a string."""
        ...


@runtime_checkable
class StringDeserialisable(Protocol):
    """A class that makes its objects from a string; the same rules as for `JsonValueDeserialisable`."""

    @classmethod
    def deserialise(cls, value: str, /) -> Self:
        """Return the object that `value` stands for."""
        ...


@runtime_checkable
class StringConvertible(StringSerialisable, StringDeserialisable, Protocol):
    """An object that converts itself to and from a string."""


def is_json_primitive(value: object) -> TypeIs[JsonPrimitive]:
    """Tell whether `value` is a string, number, boolean or None."""
    return value is None or isinstance(value, str | int | float)


def is_json_array(value: object) -> TypeIs[JsonArray]:
    """Tell whether `value` is a sequence, no string, that holds JSON values only."""
    return is_sequence(value) and all(map(is_json_value, value))


def is_json_object(value: object) -> TypeIs[JsonObject]:
    """Tell whether `value` is a mapping from strings to JSON values."""
    return is_mapping(value) and all(isinstance(key, str) and is_json_value(item) for key, item in value.items())


def is_json_value(value: object) -> TypeIs[JsonValue]:
    """Tell whether `value` is JSON through and through."""
    return is_json_primitive(value) or is_json_array(value) or is_json_object(value)


def is_mapping(value: object) -> TypeIs[Mapping[Any, Any]]:
    """Tell whether `value` is a mapping, from and to whatever."""
    return isinstance(value, Mapping)


def is_dict(value: object) -> TypeIs[dict[Any, Any]]:
    """Tell whether `value` is a dict, from and to whatever."""
    return isinstance(value, dict)


def is_sequence(value: object) -> TypeIs[Sequence[Any]]:
    """Tell whether `value` is a sequence of whatever, but neither text nor bytes."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)
