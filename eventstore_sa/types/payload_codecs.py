"""How objects of a payload class become JSON, and how they are made from it again: one codec for each class.

msgspec converts dataclasses, attrs classes, Structs and TypedDicts; pydantic converts its own models and dataclasses; a
class with `serialise` and `deserialise` converts itself. Which class an event has is known to `event_types.py` alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar, cast, get_type_hints, is_typeddict

import msgspec

from eventstore_sa.errors import ConfigurationError, SerialisationError
from eventstore_sa.types.codec import (
    call_deserialise,
    call_serialise,
    decode_json,
    dumped_by_pydantic,
    encode_json,
    is_pydantic,
    to_json,
)
from eventstore_sa.types.conversion import raising_serialisation_fallback

__all__ = ["PayloadCodec", "codec_of", "field_names", "harmless", "invalid_reason"]

Schema = dict[str, Any]

# msgspec's messages quote what it has found only in single quotes; a class's own messages may quote it anyhow.
_OF_MSGSPEC: Final = re.compile(
    r"^(Expected|Object|Invalid|JSON|Input|Array|Tuple|Out of range|Integer|Number|Input data)"
)
_QUOTED: Final = re.compile(r"'[^']*'")
_PLACE: Final = re.compile(r" - at `[^`]*`$")


class PayloadCodec(msgspec.Struct, frozen=True):
    """The conversions of one class.

    Attributes:
        payload_type: The class.
        encode: Turns an object of it into JSON.
        from_json: Makes an object of it from JSON.
        from_text: Makes an object of it from JSON text.
        schema: Returns the JSON schema of what is stored.
    """

    payload_type: Any
    encode: Callable[[Any], Any]
    from_json: Callable[[Any], Any]
    from_text: Callable[[Any], Any]
    schema: Callable[[], Schema]


def codec_of(payload_type: Any) -> PayloadCodec:
    """Return the codec of a class.

    Raises:
        ConfigurationError: If objects of the class cannot be converted to JSON and back.
    """
    if not isinstance(payload_type, type):
        raise ConfigurationError(f"an event type is a class; got {payload_type!r}")
    kind = cast("Any", payload_type)
    parameters: tuple[Any, ...] = getattr(kind, "__parameters__", ())
    if parameters or _has_free_parameters(kind):
        raise ConfigurationError(
            f"{kind.__name__} has type parameters that are not filled in, so its fields would be read as plain JSON: derive "
            "a class from it that names the types"
            + (" (a TypedDict has to repeat the fields)" if is_typeddict(kind) else "")
        )
    if callable(getattr(kind, "deserialise", None)) and callable(getattr(kind, "serialise", None)):
        return _own_codec(kind)
    if is_pydantic(kind):
        return _pydantic_codec(kind)
    return _msgspec_codec(kind)


def field_names(payload_type: Any) -> Mapping[str, str] | None:
    """Return the fields of a class, each with its name in JSON; None if the class does not tell."""
    if callable(getattr(payload_type, "deserialise", None)):
        return None
    if hasattr(payload_type, "__pydantic_fields__"):
        return {
            name: field.serialization_alias or field.alias or name
            for name, field in payload_type.__pydantic_fields__.items()
        }
    if hasattr(payload_type, "__struct_encode_fields__"):
        return dict(zip(payload_type.__struct_fields__, payload_type.__struct_encode_fields__, strict=True))
    if dataclasses.is_dataclass(payload_type):
        return {field.name: field.name for field in dataclasses.fields(payload_type)}
    if hasattr(payload_type, "__attrs_attrs__"):
        return {field.name: field.name for field in payload_type.__attrs_attrs__}
    return {name: name for name in payload_type.__annotations__} if is_typeddict(payload_type) else None


def invalid_reason(error: Exception) -> str:
    """Say why an object could not be made, without what is in the payload."""
    if isinstance(error, SerialisationError):
        return error.message
    errors = getattr(error, "errors", None)
    if callable(errors) and type(error).__module__.startswith("pydantic"):
        found: Any = cast("Any", error).errors(include_url=False, include_context=False, include_input=False)
        places = [f"{'.'.join(map(str, each['loc'])) or 'payload'}: {each['type']}" for each in found]
        return "; ".join(places[:5]) + ("; ..." if len(places) > 5 else "")
    text = str(error)
    if isinstance(error, msgspec.MsgspecError) and _OF_MSGSPEC.match(text):
        return _QUOTED.sub("'...'", text)
    place = _PLACE.search(text) if isinstance(error, msgspec.MsgspecError) else None
    return f"{type(error).__name__}{place.group() if place else ''}"


def harmless(error: Exception) -> Exception | None:
    """Return an error that may be shown as a cause; None if its message may contain what is in the payload."""
    return None if isinstance(error, msgspec.MsgspecError) or type(error).__module__.startswith("pydantic") else error


def _own_codec(kind: Any) -> PayloadCodec:
    def encode(payload: Any) -> Any:
        return to_json(call_serialise(payload, raising_serialisation_fallback))

    def from_json(value: Any) -> Any:
        return call_deserialise(kind, value, _refuse_to_make)

    def schema() -> Schema:
        return {}

    return PayloadCodec(kind, encode, from_json, lambda text: from_json(decode_json(text)), schema)


def _pydantic_codec(kind: Any) -> PayloadCodec:
    from pydantic import TypeAdapter  # noqa: PLC0415 - whoever has such a class has imported it

    adapter: Any = TypeAdapter(kind)

    def from_json(value: Any) -> Any:
        # Its rules for JSON are not those for Python objects: a strict model takes no str for a datetime there.
        return adapter.validate_json(encode_json(value))

    def schema() -> Schema:
        described: Schema = adapter.json_schema(mode="validation", by_alias=True)
        return described

    return PayloadCodec(kind, dumped_by_pydantic, from_json, adapter.validate_json, schema)


def _msgspec_codec(kind: Any) -> PayloadCodec:
    try:
        decoder: Any = msgspec.json.Decoder(kind, dec_hook=_made)
    except (TypeError, NameError) as error:
        raise ConfigurationError(f"{kind.__name__} cannot be an event type: {error}") from error
    if not (
        issubclass(kind, msgspec.Struct)
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
        or is_typeddict(kind)
    ):
        raise ConfigurationError(
            f"{kind.__name__} cannot be an event type: make it a dataclass, a msgspec Struct, an attrs class, a TypedDict "
            "or a pydantic model, or give it the methods serialise and deserialise"
        )

    def encode(payload: Any) -> Any:
        return msgspec.to_builtins(payload, str_keys=True, builtin_types=(datetime,), enc_hook=_plain)

    def from_json(value: Any) -> Any:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=_made)

    def schema() -> Schema:
        return msgspec.json.schema(kind, schema_hook=_schema_of)

    return PayloadCodec(kind, encode, from_json, decoder.decode, schema)


def _plain(value: Any) -> Any:
    """Convert what msgspec does not know, within what it knows."""
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if is_pydantic(kind):
        return dumped_by_pydantic(value)
    if callable(getattr(kind, "serialise", None)):
        return call_serialise(value, raising_serialisation_fallback)
    if isinstance(value, Enum):
        return value.value
    return raising_serialisation_fallback(value)


def _made(kind: Any, value: Any) -> Any:
    if is_pydantic(kind):
        return _pydantic_codec(kind).from_json(value)
    if callable(getattr(kind, "deserialise", None)):
        return call_deserialise(kind, value, _refuse_to_make)
    return _refuse_to_make(kind, value)


def _schema_of(kind: Any) -> Schema:
    return _pydantic_codec(kind).schema() if is_pydantic(kind) else {}


def _refuse_to_make(kind: Any, _: object) -> Any:
    raise SerialisationError(
        f"{getattr(kind, '__name__', kind)} cannot be made from JSON: give it the methods serialise and deserialise"
    )


def _has_free_parameters(kind: Any) -> bool:
    """Tell whether a TypedDict has fields of no definite type: msgspec does not fill in what its bases leave open."""
    if not is_typeddict(kind):
        return False
    try:
        return any(isinstance(hint, TypeVar) for hint in get_type_hints(kind).values())
    except NameError:
        return False
