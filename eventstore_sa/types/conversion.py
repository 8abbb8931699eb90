"""Conversion between objects and JSON values or strings, for callers: logging, projections, typed reading.

Both directions walk containers and ask convertible objects for their own form. What cannot be converted goes to a
fallback, which raises unless another is given. Storage goes through `codec`, which this module builds on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints, overload

import msgspec

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.codec import call_deserialise, call_serialise, to_json
from eventstore_sa.types.json import (
    JsonArray,
    JsonObject,
    JsonPrimitive,
    JsonValue,
    JsonValueConvertible,
    JsonValueSerialisable,
    StringConvertible,
    StringSerialisable,
    is_json_array,
    is_json_object,
    is_json_primitive,
    is_json_value,
    is_mapping,
    is_sequence,
)

__all__ = [
    "DeserialisationFallback",
    "JsonLoggable",
    "JsonPersistable",
    "StringLoggable",
    "StringPersistable",
    "default_deserialisation_fallback",
    "default_serialisation_fallback",
    "deserialise_from_json_value",
    "deserialise_from_string",
    "raising_deserialisation_fallback",
    "raising_serialisation_fallback",
    "serialise_to_json_value",
    "serialise_to_string",
    "str_serialisation_fallback",
]

T = TypeVar("T")

_REMEMBERED_CLASSES = 1024

JsonPersistable: TypeAlias = JsonValueConvertible | JsonValue
JsonLoggable: TypeAlias = JsonValueSerialisable | JsonValue
StringPersistable: TypeAlias = StringConvertible | str
StringLoggable: TypeAlias = StringSerialisable | str

DeserialisationFallback: TypeAlias = Callable[[Any, object], Any]
"""Called with a type and a value that it cannot be made from; returns what stands for it."""


def raising_serialisation_fallback(value: object) -> Any:
    """Refuse `value`.

    Raises:
        SerialisationError: Always.
    """
    raise SerialisationError(
        f"an object of type {type(value).__module__}.{type(value).__qualname__} has no serialised form: convert it "
        "first, give its class a serialise() method, or pass a fallback"
    )


def str_serialisation_fallback(value: object) -> str:
    """Return `str(value)`."""
    return str(value)


def raising_deserialisation_fallback(klass: Any, value: object) -> Any:
    """Refuse to make a `klass` from `value`.

    Raises:
        SerialisationError: Always.
    """
    wanted = getattr(klass, "__qualname__", None) if isinstance(klass, type) else None
    raise SerialisationError(
        f"a value of type {type(value).__name__} cannot be deserialised to {wanted or klass}: give that class a "
        "deserialise() class method, ask for another type, or pass a fallback"
    )


default_serialisation_fallback = raising_serialisation_fallback
default_deserialisation_fallback = raising_deserialisation_fallback


def serialise_to_json_value(
    value: object, fallback: Callable[[object], JsonValue] = default_serialisation_fallback
) -> Any:
    """Return `value` as plain JSON; see `codec.to_json` for what becomes of which type.

    Args:
        value: Anything.
        fallback: Called with each object, wherever it stands, that has no JSON form.

    Raises:
        SerialisationError: Something has no JSON form and the fallback raises, or something is no JSON at all (NaN).
    """
    own = None if fallback is raising_serialisation_fallback else fallback
    return to_json(value, fallback=own, exact_floats=False)


def serialise_to_string(value: object, fallback: Callable[[object], str] = default_serialisation_fallback) -> str:
    """Return `value` as a string: itself, what its `serialise` returns, or the string that an enum member stands for.

    Raises:
        SerialisationError: If it is none of these and the fallback raises.
    """
    if type(value) is str:
        return value
    result = value
    if callable(getattr(type(value), "serialise", None)):
        result = call_serialise(value, fallback)
    elif isinstance(value, Enum):
        result = value.value
    return str.__str__(result) if isinstance(result, str) else fallback(value)


@overload
def deserialise_from_json_value(klass: type[T], value: object, fallback: DeserialisationFallback = ...) -> T: ...
@overload
def deserialise_from_json_value(klass: Any, value: object, fallback: DeserialisationFallback = ...) -> Any: ...
def deserialise_from_json_value(  # noqa: PLR0911 - a case a line
    klass: Any, value: object, fallback: DeserialisationFallback = default_deserialisation_fallback
) -> Any:
    """Return the `klass` that the JSON value stands for.

    Known are classes with a `deserialise` class method, the JSON types, `T | None` and other unions, `list[T]` and
    other sequences, `tuple[...]`, `dict[str, T]` and other mappings, dataclasses field by field, and all that msgspec
    converts: datetimes, UUIDs, Decimals, enums, Structs, TypedDicts. Members of a union are tried in their order, the
    type of the value itself first. A dataclass is not made from an object that has other fields too.

    Args:
        klass: The type that is wanted.
        value: A JSON value; a mapping with keys other than strings is none.
        fallback: Called with type and value where, at whatever depth, no conversion is known or possible.

    Raises:
        SerialisationError: No conversion is possible and the fallback raises.
    """
    if klass is Any or klass is object or klass == JsonValue:
        return value if is_json_value(value) else fallback(klass, value)
    if is_mapping(value) and not all(isinstance(key, str) for key in value):
        return fallback(klass, value)
    origin: Any = get_origin(klass)
    if origin is Annotated:
        return deserialise_from_json_value(get_args(klass)[0], value, fallback)
    convertible = origin if isinstance(origin, type) else klass
    if callable(getattr(convertible, "deserialise", None)):
        return call_deserialise(convertible, value, fallback)
    guard = _json_guard(klass)
    if guard is not None:
        return value if guard(value) else fallback(klass, value)
    if origin is Union or origin is UnionType:
        return _union(klass, value, fallback)
    if isinstance(origin, type) and get_args(klass):
        if issubclass(origin, Mapping):
            return _mapping(klass, origin, value, fallback)
        if issubclass(origin, Sequence):
            return _sequence(klass, origin, value, fallback)
    if _is_enum(klass):
        return _enum(klass, value, fallback)
    if dataclasses.is_dataclass(klass):
        return _dataclass(klass, value, fallback)
    return _leaf(klass, value, fallback)


def deserialise_from_string(
    klass: type[T], value: object, fallback: DeserialisationFallback = default_deserialisation_fallback
) -> T:
    """Return the `klass` that the string stands for: itself, what `klass.deserialise` makes of it, or an enum member.

    Raises:
        SerialisationError: If it is none of these and the fallback raises.
    """
    if isinstance(value, str):
        if klass is str:
            return cast("T", value)
        if callable(getattr(klass, "deserialise", None)):
            return cast("T", call_deserialise(klass, value, fallback))
        if issubclass(klass, Enum | str):
            try:
                return cast("T", klass(value))
            except ValueError:
                return cast("T", fallback(klass, value))
    return cast("T", fallback(klass, value))


def _json_guard(klass: Any) -> Callable[[object], bool] | None:
    if klass == JsonPrimitive:
        return is_json_primitive
    if klass == JsonArray or klass is Sequence:
        return is_json_array
    if klass == JsonObject or klass is Mapping:
        return is_json_object
    return None


def _union(klass: Any, value: object, fallback: DeserialisationFallback) -> Any:
    members = get_args(klass)
    if value is None and NoneType in members:
        return None
    if type(value) in members and isinstance(value, str | int | float):
        return value
    others = [member for member in members if member is not NoneType]
    if len(others) == 1:
        return deserialise_from_json_value(others[0], value, fallback)
    for member in others:
        try:
            return deserialise_from_json_value(member, value, raising_deserialisation_fallback)
        except (ValueError, TypeError, LookupError):
            continue
    return fallback(klass, value)


def _mapping(klass: Any, origin: Any, value: object, fallback: DeserialisationFallback) -> Any:
    if not is_mapping(value):
        return fallback(klass, value)
    key_type, item_type = get_args(klass)
    items: dict[Any, Any] = {}
    for key, item in value.items():
        plain = key if key_type is str else deserialise_from_json_value(key_type, key, fallback)
        items[plain] = deserialise_from_json_value(item_type, item, fallback)
    return items if issubclass(dict, origin) else origin(items)


def _sequence(klass: Any, origin: Any, value: object, fallback: DeserialisationFallback) -> Any:
    if not is_sequence(value):
        return fallback(klass, value)
    types: tuple[Any, ...] = get_args(klass)
    is_tuple: bool = issubclass(origin, tuple)
    if not is_tuple or types[1:] == (Ellipsis,):
        types = (types[0],) * len(value)
    elif len(types) != len(value):
        return fallback(klass, value)
    items = [deserialise_from_json_value(kind, item, fallback) for kind, item in zip(types, value, strict=True)]
    return items if issubclass(list, origin) else origin(items)


def _dataclass(klass: Any, value: object, fallback: DeserialisationFallback) -> Any:
    if not is_mapping(value):
        return fallback(klass, value)
    if not value.keys() <= klass.__dataclass_fields__.keys():
        return fallback(klass, value)
    arguments = {
        name: deserialise_from_json_value(kind, value[name], fallback)
        for name, kind in _init_fields(klass)
        if name in value
    }
    try:
        return klass(**arguments)
    except TypeError:
        return fallback(klass, value)


@lru_cache(maxsize=_REMEMBERED_CLASSES)
def _init_fields(klass: Any) -> Sequence[tuple[str, Any]]:
    """Return the names and types of the fields that a dataclass is made from."""
    hints = get_type_hints(klass, include_extras=True)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(klass) if field.init]


def _is_enum(klass: Any) -> bool:
    return isinstance(klass, type) and issubclass(klass, Enum)


def _enum(klass: type[Enum], value: object, fallback: DeserialisationFallback) -> Any:
    # msgspec knows only enums whose values are all strings or all integers.
    for json_value, member in _members(klass):
        if json_value == value:
            return member
    try:
        return klass(value)
    except (ValueError, TypeError):
        return fallback(klass, value)


@lru_cache(maxsize=_REMEMBERED_CLASSES)
def _members(klass: type[Enum]) -> Sequence[tuple[Any, Enum]]:
    """Return the members of an enum with their values as JSON, except those whose values have no JSON form."""
    members: list[tuple[Any, Enum]] = []
    for member in klass:
        with suppress(SerialisationError):
            members.append((serialise_to_json_value(member.value), member))
    return members


def _leaf(klass: Any, value: object, fallback: DeserialisationFallback) -> Any:
    def custom(kind: type, item: object) -> Any:
        if callable(getattr(kind, "deserialise", None)):
            return call_deserialise(kind, item, fallback)
        return fallback(kind, item)

    try:
        return msgspec.convert(value, klass, dec_hook=custom)
    except (msgspec.ValidationError, TypeError):
        return fallback(klass, value)
