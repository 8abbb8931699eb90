"""What can be stored, exactly: any value to plain JSON, plain JSON to text, and back; and which times.

`to_json` is the one gate: whatever passes it comes back equal from the in-memory adapter, SQLite and PostgreSQL alike,
and whatever would not is refused here with the place where it stands. `encode_json` and `decode_json` are the only
writer and reader of JSON text in the library. Nothing here knows events, tables or typed payload classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from inspect import Parameter, getattr_static, signature
from typing import Any, NamedTuple, TypeAlias, cast
from uuid import UUID

import msgspec

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.json import is_mapping, is_sequence

__all__ = [
    "EARLIEST_TIME",
    "LATEST_TIME",
    "MAX_DEPTH",
    "SerialisationFallback",
    "decode_json",
    "encode_json",
    "stored_time",
    "text_problem",
    "to_json",
]

EARLIEST_TIME = datetime(1, 1, 2, tzinfo=UTC)
"""The first time that an event can have: in every time zone, it has a date that Python knows. Times are kept in UTC."""

LATEST_TIME = datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)
"""The last time that an event can have."""

MAX_DEPTH = 200
"""How many arrays and objects may be nested in one another."""

Label: TypeAlias = str | tuple[str, object, object, object]
"""What a value is, for messages; or a format and what goes into it, where labels would take longer than most values."""

SerialisationFallback = Callable[[object], Any]
"""Called for an object of a type that has no JSON form; returns what stands for it."""

# Python neither prints nor reads longer integers (sys.set_int_max_str_digits); msgspec counts the sign as a digit.
_INTEGER_LIMIT = 10**4300
_INTEGER_MINIMUM = -(10**4299)
# From here on JSON writers use exponents, and all floats are whole numbers.
_EXPONENT_LIMIT = 1e16


class _Rules(NamedTuple):
    fallback: SerialisationFallback | None
    exact_floats: bool


_STORED = _Rules(fallback=None, exact_floats=True)


class _RefusedError(Exception):
    """Something that cannot be stored; collects the path to it, innermost step first, on its way out."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[object] = []


def to_json(
    value: object,
    *,
    label: Label = "value",
    fallback: SerialisationFallback | None = None,
    exact_floats: bool = True,
) -> Any:
    """Return `value` as plain JSON: dicts with string keys, lists, strings, numbers, booleans and None.

    A value that is plain already is returned as it is, the very same object; otherwise what has changed is new and the
    rest is shared. Objects with a `serialise` method are asked for their JSON value, once each, wherever they stand;
    tuples and other sequences become lists, mappings dicts; aware datetimes, dates and times ISO 8601 strings; UUIDs
    and Decimals strings; enum members their values; dataclasses, attrs classes and msgspec Structs objects of their fields;
    models of pydantic what pydantic writes.

    Args:
        value: What is to be stored. It must not change during the call.
        label: What the value is, for messages; its first word names the root of paths ("payload of event 'placed'"). A
            tuple is a format and its values, used only if there is a message.
        fallback: Called with each object that has no JSON form; what it returns is converted in turn. None refuses.
        exact_floats: Replace floats from 1e16 on by `msgspec.Raw` in positional notation. PostgreSQL's jsonb turns the
            number 1e300 into 1000...0, which would come back as an integer; it keeps 1000...0.0.

    Returns:
        What `encode_json` takes.

    Raises:
        SerialisationError: Something in `value` cannot be stored exactly; the message names its place, never itself.
    """
    try:
        rules = _STORED if fallback is None and exact_floats else _Rules(fallback, exact_floats)
        return _walk(value, 0, rules)
    except _RefusedError as refused:
        said = _said(label)
        root = said.split(" ", 1)[0]
        place = _path(root, refused.steps)
        raise SerialisationError(f"{said} cannot be stored: {place} {refused.reason}") from None
    except RecursionError:
        raise SerialisationError(
            f"{_said(label)} cannot be stored: it is nested too deeply for what is left of the call stack; flatten it"
        ) from None


def encode_json(value: Any, *, label: Label = "value") -> bytes:
    """Return a result of `to_json`, or a list, dict or Struct of such results, as compact JSON text in UTF-8.

    Structs may hold UUIDs and datetimes as well; UTC is written as Z. NaN and Infinity become null without a word here:
    only `to_json` refuses them.

    Raises:
        SerialisationError: `value` is no result of `to_json`.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_datetime_text)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
        raise SerialisationError(
            f"{_said(label)} cannot be written as JSON ({type(error).__name__}): pass it through to_json() first"
        ) from error


def _said(label: Label) -> str:
    return label if isinstance(label, str) else label[0].format(*label[1:])


def _datetime_text(value: object) -> str:
    """Write what msgspec does not: a subclass of datetime, as pendulum and freezegun have them."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(type(value))


def decode_json(text: str | bytes) -> Any:
    """Return the JSON value that `text` holds; integers of any size and floats come back exactly.

    Raises:
        SerialisationError: `text` is no JSON, or holds a number that Python cannot.
    """
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise SerialisationError(
            f"stored text of {len(text)} characters cannot be read as JSON: {error}; was it written by something else?"
        ) from error


def text_problem(text: str) -> str | None:
    """Say why `text` cannot be stored as text, or return None when it can."""
    if "\0" in text:
        return "holds a NUL character (U+0000), which PostgreSQL cannot store: remove it, or encode the bytes as base64"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return (
                "holds a lone surrogate (U+D800 to U+DFFF), which is no character: decode its source with the right "
                "encoding, or replace it"
            )
    return None


def _walk(value: Any, depth: int, rules: _Rules) -> Any:  # noqa: PLR0911 - a case a line
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is dict:
        return _walk_dict(value, depth, rules)
    if kind is list:
        return _walk_list(value, depth, rules)
    if kind is str:
        _check_text(value)
        return value
    if kind is int:
        if not _INTEGER_MINIMUM < value < _INTEGER_LIMIT:
            raise _RefusedError("is an integer longer than 4300 digits, which Python cannot read: store its text")
        return value
    if kind is float:
        return value if -_EXPONENT_LIMIT < value < _EXPONENT_LIMIT else _large_float(value, rules)
    if kind is bool or value is None:
        return value
    return _walk_other(value, depth, rules)


# The two loops below look at strings and ordinary numbers themselves: a call for each would double the cost of a leaf.


def _walk_dict(value: dict[Any, Any], depth: int, rules: _Rules) -> dict[str, Any]:
    if depth >= MAX_DEPTH:
        raise _too_deep()
    result = value
    keys_are_plain = True
    step: Any = None
    try:
        for step, item in value.items():
            if type(step) is not str:
                _check_key_type(step)
                keys_are_plain = False
            if not step.isprintable():  # the quickest test that all but odd keys pass
                _check_key(step)
            kind = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is str:
                if "\0" in item or not item.isascii():
                    _check_text(item)
            elif (
                not (kind is int and -0x7FFF_FFFF < item < 0x7FFF_FFFF)
                and not (kind is float and -1e16 < item < 1e16)
                and kind is not bool
                and item is not None
            ):
                plain = _walk(item, depth + 1, rules)
                if plain is not item:
                    if result is value:
                        result = value.copy()
                    result[step] = plain
    except _RefusedError as refused:
        refused.steps.append(step)
        raise
    return result if keys_are_plain else {str.__str__(key): item for key, item in result.items()}


def _walk_list(value: list[Any], depth: int, rules: _Rules) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise _too_deep()
    result = value
    step = 0
    try:
        for step, item in enumerate(value):
            kind = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is str:
                if "\0" in item or not item.isascii():
                    _check_text(item)
            elif not (kind is int and -0x7FFF_FFFF < item < 0x7FFF_FFFF) and not (
                kind is float and -1e16 < item < 1e16
            ):
                plain = _walk(item, depth + 1, rules)
                if plain is not item:
                    if result is value:
                        result = value.copy()
                    result[step] = plain
    except _RefusedError as refused:
        refused.steps.append(step)
        raise
    return result


def _walk_other(value: Any, depth: int, rules: _Rules) -> Any:
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    serialises = callable(getattr(cast("object", kind), "serialise", None))
    if not serialises and not isinstance(value, Enum):
        plain = _scalar(value)
        if plain is not None:
            return _walk(plain, depth, rules)
        plain = _container(value)
        if plain is not None:
            return _walk(plain, depth, rules)
    if depth >= MAX_DEPTH:
        raise _too_deep()
    if serialises:
        replacement = call_serialise(value, rules.fallback or _refuse)
    elif isinstance(value, Enum):
        replacement = value.value
    else:
        replacement = (rules.fallback or _refuse)(value)
    return _walk(replacement, depth + 1, rules)


def _scalar(value: Any) -> Any:  # noqa: PLR0911 - a case a line
    """Return what stands for a value that holds no others, or None when it is none of those."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case datetime():
            if value.utcoffset() is None:
                raise _RefusedError(
                    "is a naive datetime, which could mean any time zone: give it one, as in datetime.now(UTC)"
                )
            return value.isoformat()
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            if not value.is_finite():
                raise _RefusedError("is a Decimal that is no finite number: store None or a string instead")
            return str(value)
        case _:
            return None


def _container(value: Any) -> Any:  # noqa: PLR0911 - a case a line
    """Return a dict or list of what `value` holds, or None when it holds nothing that we know."""
    if isinstance(value, msgspec.Struct):
        return _struct_fields(value)
    if is_pydantic(cast("Any", type(value))):
        return dumped_by_pydantic(value)
    if hasattr(cast("Any", type(value)), "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in value.__attrs_attrs__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if is_mapping(value):
        return dict(value)
    if is_sequence(value):
        return list(value)
    return None


def _struct_fields(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    """Lay out a Struct as msgspec itself would (tag, renamed fields, array_like), its values unconverted."""
    config = value.__struct_config__
    tagged: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
        item = getattr(value, name)
        if item is not msgspec.UNSET:
            tagged[encoded] = item
    return list(tagged.values()) if config.array_like else tagged


def is_pydantic(kind: type[Any]) -> bool:
    """Tell whether a class is a model or dataclass of pydantic, which need not be installed."""
    return hasattr(kind, "__pydantic_serializer__")


def dumped_by_pydantic(value: Any) -> Any:
    """Return an object of pydantic as pydantic itself writes it.

    Raises:
        SerialisationError: If pydantic cannot.
    """
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    dump: Any = getattr(value, "model_dump", None)
    try:
        if dump is not None:
            return dump(mode="json", by_alias=True)
        return kind.__pydantic_serializer__.to_python(value, mode="json", by_alias=True)
    except ValueError as error:
        raise SerialisationError(
            f"pydantic cannot write {kind.__qualname__} as JSON ({type(error).__name__}): change its fields, or give them "
            "serialisers"
        ) from error


def call_serialise(value: Any, fallback: SerialisationFallback) -> Any:
    """Call `value.serialise`, with the fallback when it takes one."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]
    match _fallback_style(cast("Any", kind), "serialise", 0):
        case "keyword":
            return value.serialise(fallback=fallback)
        case "positional":
            return value.serialise(fallback)
        case _:
            return value.serialise()


def call_deserialise(klass: Any, value: Any, fallback: Callable[[Any, object], Any]) -> Any:
    """Call `klass.deserialise`, with the fallback when it takes one."""
    match _fallback_style(klass, "deserialise", 1):
        case "keyword":
            return klass.deserialise(value, fallback=fallback)
        case "positional":
            return klass.deserialise(value, fallback)
        case _:
            return klass.deserialise(value)


@lru_cache(maxsize=1024)
def _fallback_style(klass: Any, method: str, leading: int) -> str | None:
    """Tell how a method takes the fallback, after `leading` other parameters: by keyword, by position or not at all."""
    # Seen through the class, an instance method has `self` as one more parameter in front.
    hides_first = isinstance(getattr_static(klass, method), classmethod | staticmethod)
    parameters = list(signature(getattr(klass, method)).parameters.values())[leading if hides_first else leading + 1 :]
    for parameter in parameters:
        if parameter.name == "fallback" and parameter.kind is not Parameter.POSITIONAL_ONLY:
            return "keyword"
    if parameters and parameters[0].kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
        takes_it = parameters[0].name == "fallback" or parameters[0].default is Parameter.empty
        return "positional" if takes_it else None
    return None


def _large_float(value: float, rules: _Rules) -> Any:
    if value - value != 0:  # NaN and both infinities, and nothing else
        raise _RefusedError("is NaN or Infinity, which JSON does not have: store None or a string instead")
    return msgspec.Raw(f"{value:.1f}".encode()) if rules.exact_floats else value


def _check_key_type(key: object) -> None:
    """Let keys of a subclass of `str` pass, as of a StrEnum: they count as their text."""
    if not isinstance(key, str):
        raise _RefusedError(f"has a key of type {type(key).__name__}, where JSON knows only strings: convert the keys")


def _check_text(text: str) -> None:
    problem = text_problem(text)
    if problem is not None:
        raise _RefusedError(problem)


def _check_key(key: str) -> None:
    problem = text_problem(key)
    if problem is not None:
        raise _RefusedError(f"has a key that {problem}")


def _too_deep() -> _RefusedError:
    return _RefusedError(f"is nested deeper than {MAX_DEPTH} levels: flatten it, or break the cycle if it holds itself")


def _refuse(value: object) -> Any:
    kind = type(value)
    advice = {
        "bytes": "encode it as base64 text",
        "bytearray": "encode it as base64 text",
        "set": "make it a sorted list",
        "frozenset": "make it a sorted list",
    }.get(kind.__name__, "convert it first, or give its class a serialise() method")
    raise _RefusedError(f"is of type {kind.__module__}.{kind.__qualname__}, which has no JSON form: {advice}")


def _path(root: str, steps: list[object]) -> str:
    outermost_first = [_step(step) for step in reversed(steps)]
    if len(outermost_first) > 12:
        outermost_first[8:-3] = ["..."]
    return root + "".join(outermost_first)


def _step(step: object) -> str:
    if not isinstance(step, str):
        return f"[{step}]" if isinstance(step, int) else f"[<{type(step).__name__}>]"
    text = str.__str__(step)
    if text.isidentifier():
        return f".{text[:60]}"
    return f"[{text[:60]!a}]"


def stored_time(moment: datetime, label: str) -> datetime:
    """Return a time as it is stored: in UTC.

    Args:
        moment: An aware datetime.
        label: Whose time it is, for the message.

    Raises:
        SerialisationError: If it is too close to the end of the calendar.
    """
    try:
        in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:
        raise _unstorable_time(moment, label) from error
    if 1 < in_utc.year < 9999 or EARLIEST_TIME <= in_utc <= LATEST_TIME:
        return in_utc
    raise _unstorable_time(moment, label)


def _unstorable_time(moment: datetime, label: str) -> SerialisationError:
    return SerialisationError(
        f"{label} has the time {moment.isoformat()}, and only times from {EARLIEST_TIME.date()} to {LATEST_TIME.date()} in "
        "UTC can be stored: others have no date in some time zones, where clients could not read them; keep such a time in "
        "the payload"
    )
