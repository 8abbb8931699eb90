"""Compression and encryption of payloads: what is stored, and what cannot be restored."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from uuid import uuid4

import msgspec
import pydantic
import pytest

from eventstore_sa.errors import ConfigurationError, InvalidPayloadError, PayloadKeyError, SerialisationError
from eventstore_sa.testing import StoredEventBuilder
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    AnyNewEvent,
    Compression,
    Encryption,
    EventTypes,
    JsonValue,
    NewEvent,
    PayloadContext,
    PayloadTransform,
    event,
)

OLD_KEY, NEW_KEY = bytes(range(32)), bytes(range(32, 64))


@event("customer-registered", encrypted=["email", "address"])
@dataclass(frozen=True)
class Registered:
    name: str
    email: str
    address: dict[str, str]
    notes: str = ""


REGISTERED = Registered("Ada", "ada@example.com", {"city": "London"}, notes="n" * 5000)


def encryption(keys: dict[str, bytes] | None = None) -> Encryption:
    return Encryption(lambda: {"2026": NEW_KEY, "2025": OLD_KEY} if keys is None else keys)


def stored(new: AnyNewEvent, **changes: Any) -> Any:
    built = StoredEventBuilder().with_name(new.name).with_payload(new.payload).with_id(new.id).build()
    return msgspec.structs.replace(built, **changes)


def read_back(types: EventTypes[Any], new: AnyNewEvent) -> Any:
    found = types.read(stored(new))
    assert found is not None
    return found.payload


class Reversal(PayloadTransform):
    """Of the application's own."""

    def store(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        return {"reversed": sorted(payload.items(), reverse=True), "of": context.event_name}  # type: ignore[union-attr]

    def restore(self, payload: JsonValue, context: PayloadContext) -> JsonValue:
        return dict(payload["reversed"]) if isinstance(payload, dict) and "reversed" in payload else payload


PIPELINES: list[list[PayloadTransform]] = [
    [encryption()],
    [encryption(), Compression(over=10)],
    [encryption(), Reversal(), Compression(over=0)],
    [encryption(), Compression(over=10_000)],
]


@in_turn("pipeline", PIPELINES)
def test_payload_comes_back_through_any_pipeline(pipeline: list[PayloadTransform]) -> None:
    types = EventTypes(Registered, pipeline=pipeline)

    assert read_back(types, types.new_event(REGISTERED)) == REGISTERED


def test_payload_is_compressed_above_the_size_alone() -> None:
    types = EventTypes(Registered, pipeline=[encryption(), Compression(over=1000)])

    large, small = types.new_event(REGISTERED), types.new_event(Registered("Ada", "", {}))

    assert [*large.payload] == ["$zlib"]
    assert len(large.payload["$zlib"]) < 1000
    assert small.payload["name"] == "Ada"


def test_payload_that_compression_makes_larger_is_stored_as_it_is() -> None:
    types = EventTypes(Registered, pipeline=[encryption(), Compression(over=0)])

    assert types.new_event(Registered("Ada", "", {})).payload["name"] == "Ada"


def test_events_from_before_the_pipeline_are_read() -> None:
    before, after = (
        EventTypes(Registered, pipeline=[encryption()]),
        EventTypes(Registered, pipeline=[encryption(), Compression(over=0)]),
    )

    assert read_back(after, before.new_event(REGISTERED)) == REGISTERED
    assert (
        read_back(before, NewEvent(name="customer-registered", payload=msgspec.to_builtins(REGISTERED))) == REGISTERED
    )


def test_only_marked_fields_are_encrypted_and_nothing_shows_them() -> None:
    payload = EventTypes(Registered, pipeline=[encryption()]).new_event(REGISTERED).payload

    assert payload["name"] == "Ada"
    assert [*payload["email"]] == [*payload["address"]] == ["$aesgcm"]
    assert payload["email"]["$aesgcm"].startswith("2026:")
    assert "ada@" not in str(payload)


def test_field_is_encrypted_under_its_name_in_json() -> None:
    @event("renamed", encrypted=["email"])
    class Renamed(msgspec.Struct, rename={"email": "eMail"}):
        email: str

    @event("aliased", encrypted=["email"])
    class Aliased(pydantic.BaseModel):
        email: str = pydantic.Field(alias="eMail")

    types = EventTypes(Renamed, Aliased, pipeline=[encryption()])

    for payload in (Renamed("ada@example.com"), Aliased(eMail="ada@example.com")):
        new = types.new_event(payload)
        assert [*new.payload["eMail"]] == ["$aesgcm"]
        assert read_back(types, new) == payload


def test_keys_rotate() -> None:
    before = EventTypes(Registered, pipeline=[encryption({"2025": OLD_KEY})])
    after = EventTypes(Registered, pipeline=[encryption()])

    new = before.new_event(REGISTERED)

    assert new.payload["email"]["$aesgcm"].startswith("2025:")
    assert read_back(after, new) == REGISTERED
    assert after.new_event(REGISTERED).payload["email"]["$aesgcm"].startswith("2026:")


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"a:b:{b64encode(NEW_KEY).decode()}", f"old:{b64encode(OLD_KEY).decode()}"]
    monkeypatch.setenv("EVENT_KEYS", " ".join(keys))
    types = EventTypes(Registered, pipeline=[Encryption("EVENT_KEYS")])

    new = types.new_event(REGISTERED)

    assert new.payload["email"]["$aesgcm"].startswith("a:b:")
    assert read_back(types, new) == REGISTERED
    old = EventTypes(Registered, pipeline=[encryption({"old": OLD_KEY})]).new_event(REGISTERED)
    assert read_back(types, old) == REGISTERED


WITHOUT_KEY: list[tuple[dict[str, bytes], str]] = [
    ({"2024": OLD_KEY}, "is encrypted with the key '2026', which is not in the key ring"),
    ({"2026": OLD_KEY}, "the key '2026' is another one than it was encrypted with"),
]


@in_turn("keys, message", WITHOUT_KEY)
def test_lost_and_wrong_keys_are_named(keys: dict[str, bytes], message: str) -> None:
    new = EventTypes(Registered, pipeline=[encryption()]).new_event(REGISTERED)
    event = stored(new, position=4)

    with pytest.raises(PayloadKeyError, match="at position 4") as lost:
        EventTypes(Registered, pipeline=[encryption(keys)]).read(event)
    assert message in str(lost.value)
    assert EventTypes(Registered, pipeline=[encryption(keys)], invalid="keep").read(event) == event
    assert EventTypes(Registered, pipeline=[encryption(keys)], invalid="skip").read(event) is None


def test_field_cannot_be_moved_to_another_event_or_field() -> None:
    types = EventTypes(Registered, pipeline=[encryption()])
    new = types.new_event(Registered("Ada", "secret", {}))
    moved = [
        stored(new, id=uuid4()),
        stored(new, payload={**new.payload, "email": new.payload["address"]}),
        stored(new, payload={**new.payload, "email": {"$aesgcm": new.payload["email"]["$aesgcm"][:-8]}}),
        stored(new, payload={**new.payload, "email": {"$aesgcm": "2026:no base64"}}),
    ]

    for each in moved:
        with pytest.raises(PayloadKeyError, match="what is stored was changed, or moved"):
            types.read(each)


def test_no_two_events_share_a_nonce() -> None:
    types = EventTypes(Registered, pipeline=[encryption()])

    sealed = [types.new_event(REGISTERED).payload["email"]["$aesgcm"] for _ in range(10)]

    assert all(one[:20] != other[:20] for one, other in combinations(sealed, 2))


DAMAGED = ["eJw=", "!", "AAAA", ""]


@in_turn("packed", DAMAGED)
def test_truncated_and_damaged_payloads_are_named(packed: str) -> None:
    types = EventTypes(Registered, pipeline=[encryption(), Compression(over=0)])
    new = types.new_event(REGISTERED)

    for text in (packed, new.payload["$zlib"][: len(new.payload["$zlib"]) // 2 // 4 * 4]):
        with pytest.raises(InvalidPayloadError, match="its compressed payload is truncated or damaged"):
            types.read(stored(new, payload={"$zlib": text}))


def test_payloads_that_would_be_mistaken_are_refused() -> None:
    types = EventTypes(unknown="keep", pipeline=[encryption(), Compression()])

    for payload in ({"$zlib": "eJw="}, {"anything": {"$aesgcm": "2026:AAAA"}}):
        with pytest.raises(SerialisationError, match="is reserved: rename the member"):
            types.new_event(NewEvent(name="anything", payload=payload))


class Listed(msgspec.Struct, array_like=True):
    email: str


class Own:
    def serialise(self) -> dict[str, str]:
        return {"eMail": "ada@example.com"}

    @classmethod
    def deserialise(cls, value: Any) -> Own:
        return cls()


@in_turn("payload", [Listed("ada@example.com"), Own()])
def test_field_that_is_not_where_it_is_looked_for_is_not_stored_in_the_open(payload: Any) -> None:
    kind = event("hidden", encrypted=["email"])(type("Hidden", (type(payload),), {}))
    types = EventTypes(kind, pipeline=[encryption()])

    with pytest.raises(SerialisationError, match="it has no member 'email', which is to be encrypted"):
        types.new_event(kind("ada@example.com") if isinstance(payload, Listed) else kind())


def test_fields_that_are_left_out_need_no_encryption() -> None:
    @event("brief", encrypted=["email"])
    class Brief(msgspec.Struct, omit_defaults=True):
        email: str = ""

    assert EventTypes(Brief, pipeline=[encryption()]).new_event(Brief()).payload == {}


def test_types_are_declared_where_there_are_no_keys() -> None:
    types = EventTypes(Registered, pipeline=[Encryption("NO_SUCH_VARIABLE")])

    assert [*types.schemas()] == ["customer-registered"]


def test_field_that_a_downcast_renames_is_not_stored_in_the_open() -> None:
    @event(
        "renamed",
        version=2,
        upcast={1: lambda payload: {"email": payload["mail"]}},
        downcast={2: lambda payload: {"mail": payload["email"]}},
        encrypted=["email"],
    )
    @dataclass
    class Renamed:
        email: str

    types = EventTypes(Renamed, write={"renamed": 1}, pipeline=[encryption()])

    with pytest.raises(SerialisationError, match=r"downcast\[2\] removes or renames \['email'\]"):
        types.new_event(Renamed("ada@example.com"))


def published(keys: Encryption) -> AnyNewEvent:
    return EventTypes(Registered, pipeline=[keys]).new_event(REGISTERED)


def unset(monkeypatch: pytest.MonkeyPatch, value: str) -> AnyNewEvent:
    monkeypatch.setenv("EVENT_KEYS", value)
    return published(Encryption("EVENT_KEYS"))


MISTAKES: list[tuple[Callable[[pytest.MonkeyPatch], object], str]] = [
    (lambda patch: unset(patch, " "), "EVENT_KEYS has no keys"),
    (lambda patch: unset(patch, "no-colon"), "entry 1 of the environment variable EVENT_KEYS"),
    (lambda patch: unset(patch, "a:not base64!"), "entry 1 of"),
    (lambda patch: unset(patch, f"a:{b64encode(NEW_KEY).decode()} a:{b64encode(OLD_KEY).decode()}"), "entry 2 of"),
    (lambda patch: unset(patch, "a:c2hvcnQ="), "the key 'a' is not one of 16, 24 or 32 bytes"),
    (lambda _: published(encryption({})), "keys are returned as a mapping"),
    (lambda _: Compression(over=-1), "over, a size in bytes"),
    (
        lambda _: EventTypes(Registered, pipeline=[Compression(), encryption()]),
        "Encryption has to come before Compression",
    ),
    (
        lambda _: EventTypes(misspelt(), pipeline=[encryption()]),
        "Misspelt has no field 'e-mail' that could be encrypted",
    ),
]


def misspelt() -> Any:
    @event("misspelt", encrypted=["e-mail"])
    @dataclass
    class Misspelt:
        email: str

    return Misspelt


@in_turn("mistake, message", MISTAKES)
def test_mistakes_surface_at_once(mistake: Callable[[Any], object], message: str) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConfigurationError) as refused:
        mistake(patch)

    assert message in refused.value.message
    assert b64encode(NEW_KEY).decode() not in refused.value.message
