"""Encryption of marked fields of payloads, with AES-GCM: the keys, and the form in which fields are stored.

A field that is stored encrypted names its key, so keys can be exchanged at any time: old ones are needed as long as there
are events that were written with them. Needs the extra `encryption`.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from typing import Any, ClassVar, Final, TypeAlias, cast

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types.codec import decode_json, encode_json
from eventstore_sa.types.json import JsonValue, is_mapping
from eventstore_sa.types.payload_pipeline import PayloadContext, PayloadTransform, check_unmarked, marked

__all__ = ["Encryption", "LostKeyError"]

KeyRing: TypeAlias = Mapping[str, bytes]

_ENCRYPTED: Final = "$aesgcm"
_NONCE_BYTES: Final = 12
_KEY_SIZES: Final = (16, 24, 32)


class LostKeyError(Exception):
    """A field cannot be decrypted, because there is no such key or it is another one."""


class Encryption(PayloadTransform):
    """Encrypts the fields that `@event(..., encrypted=...)` names, each to an object with the member "$aesgcm".

    AES-GCM, with a new nonce for each field; what is stored of a field is bound to its event and its name, so that it
    cannot be moved to another place unnoticed. Everything else in a payload stays readable, and so do names, streams,
    metadata and tags: keep what is secret out of them.

    Args:
        keys: The name of an environment variable, or a function that returns the keys by their ids; the first is the one
            to encrypt with, the others only decrypt. A key has 16, 24 or 32 bytes. The variable holds
            "id:key id:key ...", each key as base64. The function is called for every event, so it should remember what it
            takes long to find.

    Raises:
        ImportError: If `cryptography` is not installed. Publishes and reads raise a ConfigurationError if there are no keys,
            or one of them is no key.
    """

    needs_plain_fields: ClassVar[bool] = True
    encrypts: ClassVar[bool] = True

    def __init__(self, keys: str | Callable[[], KeyRing]) -> None:
        _ = _cipher(bytes(32))
        # The environment is read when it is needed: types can be declared, and checked, where there are no keys.
        self._keys: Callable[[], KeyRing] = cache(partial(_keys_in, keys)) if isinstance(keys, str) else keys

    def store(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        if not is_mapping(payload):
            return payload
        fields = context.encrypted & payload.keys()
        for name, value in payload.items():
            if name not in fields:
                check_unmarked(value, _ENCRYPTED)
        if not fields:
            return payload
        key_id, key = next(iter(_checked_keys(self._keys()).items()))
        stored = dict(payload)
        for name in fields:
            nonce = os.urandom(_NONCE_BYTES)
            sealed = _cipher(key).encrypt(nonce, encode_json(payload[name]), _place(context, name))
            stored[name] = {_ENCRYPTED: f"{key_id}:{b64encode(nonce + sealed).decode()}"}
        return stored

    def restore(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        if not is_mapping(payload):
            return payload
        restored: dict[str, Any] | None = None
        for name, value in payload.items():
            if (stored := marked(value, _ENCRYPTED)) is not None:
                restored = dict(payload) if restored is None else restored
                restored[name] = self._opened(stored, name, context)
        return payload if restored is None else restored

    def _opened(self, stored: str, name: str, context: PayloadContext) -> Any:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - see `_cipher`

        key_id, _, text = stored.rpartition(":")
        key = _checked_keys(self._keys()).get(key_id)
        if key is None:
            raise LostKeyError(f"its field {name!r} is encrypted with the key {key_id!r}, which is not in the key ring")
        try:
            sealed = b64decode(text, validate=True)
            opened = _cipher(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(context, name))
        except (InvalidTag, ValueError):
            raise LostKeyError(
                f"its field {name!r} cannot be decrypted: the key {key_id!r} is another one than it was encrypted with, or "
                "what is stored was changed, or moved here from another event or field"
            ) from None
        return decode_json(opened)


@lru_cache(maxsize=64)
def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "encryption needs the package cryptography: install it with the extra 'eventstore-sa[encryption]'"
        ) from error
    return AESGCM(key)


def _place(context: PayloadContext, name: str) -> bytes:
    return context.event_id.bytes + name.encode()


def _keys_in(variable: str) -> KeyRing:
    text = os.environ.get(variable)
    if not text or not text.split():
        raise ConfigurationError(
            f"the environment variable {variable} has no keys: set it to 'id:key', where the key is 32 random bytes in "
            "base64"
        )
    keys: dict[str, bytes] = {}
    for number, entry in enumerate(text.split(), start=1):
        key_id, colon, key = entry.rpartition(":")
        try:
            found = b64decode(key, validate=True)
        except ValueError:
            found = b""
        if not colon or not key_id or key_id in keys or not found:
            # The entry itself is not shown: it may be a key.
            raise ConfigurationError(
                f"entry {number} of the environment variable {variable} is not 'id:key' with a new id and a key in base64"
            )
        keys[key_id] = found
    return keys


def _checked_keys(keys: object) -> KeyRing:
    if not is_mapping(keys) or not keys:
        raise ConfigurationError(
            f"keys are returned as a mapping from ids to keys, with one at least; got {type(keys).__name__}"
        )
    for key_id, key in keys.items():
        if not isinstance(key_id, str) or not key_id or not isinstance(key, bytes) or len(key) not in _KEY_SIZES:
            raise ConfigurationError(
                f"the key {key_id!r:.40} is not one of 16, 24 or 32 bytes under an id that is text"
            )
    return cast("KeyRing", keys)
