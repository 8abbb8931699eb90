"""What changes payloads between an application and its store: the interface, and compression.

A transformation works on JSON, and what it returns is JSON too, so that every database stores it. It recognises on read
what it has changed itself: events that were stored before it was there, or with other settings, are read all the same.
Encryption is in `encryption.py`; `event_types.py` applies the transformations of a store.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from typing import ClassVar, Final
from uuid import UUID

from msgspec import Struct

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.codec import decode_json, encode_json
from eventstore_sa.types.json import JsonValue, is_mapping
from eventstore_sa.types.numbers import checked_count

__all__ = ["Compression", "PayloadContext", "PayloadTransform", "check_unmarked", "marked"]

_COMPRESSED: Final = "$zlib"


class PayloadContext(Struct, frozen=True):
    """Whose payload is transformed.

    Attributes:
        event_id: The id of the event.
        event_name: Its name, as it is stored.
        encrypted: The fields that are marked to be encrypted, by their names in JSON; empty on read.
    """

    event_id: UUID
    event_name: str
    encrypted: frozenset[str] = frozenset()


class PayloadTransform(ABC):
    """A transformation of payloads, for the pipeline of `EventTypes`; derive your own from it.

    Attributes:
        needs_plain_fields: Whether it looks at the fields of payloads, and so must come before all that do not keep them.
        encrypts: Whether it encrypts the fields that are marked.
    """

    needs_plain_fields: ClassVar[bool] = False
    encrypts: ClassVar[bool] = False

    @abstractmethod
    def store(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        """Return what is stored instead of a payload, which must not be changed itself.

        Raises:
            SerialisationError: If the payload cannot be stored; nothing of the publish is stored then.
        """
        raise NotImplementedError

    @abstractmethod
    def restore(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        """Return the payload for which this is stored; the same if it was not changed by this transformation.

        Raises:
            SerialisationError: If it cannot be restored.
        """
        raise NotImplementedError


class Compression(PayloadTransform):
    """Compresses payloads above a size, if that makes them smaller, to an object with the member "$zlib".

    Args:
        over: The size in bytes of JSON text from which on payloads are compressed.

    Raises:
        ConfigurationError: If the size is not an integer of 0 or more.
    """

    def __init__(self, *, over: int = 4096) -> None:
        self._over: int = checked_count("over, a size in bytes,", over, least=0)

    def store(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        check_unmarked(payload, _COMPRESSED)
        text = encode_json(payload)
        if len(text) <= self._over:
            return payload
        packed = b64encode(zlib.compress(text)).decode()
        return {_COMPRESSED: packed} if len(packed) + len(_COMPRESSED) + 7 < len(text) else payload

    def restore(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        packed = marked(payload, _COMPRESSED)
        if packed is None:
            return payload
        try:
            text = zlib.decompress(b64decode(packed, validate=True))
        except (ValueError, zlib.error):
            raise SerialisationError("its compressed payload is truncated or damaged") from None
        restored: JsonValue = decode_json(text)
        return restored


def marked(value: object, member: str) -> str | None:
    """Return what a transformation has stored instead of a value: the only member of an object, by its reserved name."""
    if not is_mapping(value) or len(value) != 1:
        return None
    stored: object = value.get(member)
    return stored if isinstance(stored, str) else None


def check_unmarked(value: object, member: str) -> None:
    """Refuse a value that would be mistaken for what a transformation has stored.

    Raises:
        SerialisationError: If it is an object whose only member has the reserved name.
    """
    if marked(value, member) is not None:
        raise SerialisationError(f"an object whose only member is {member!r} is reserved: rename the member")
