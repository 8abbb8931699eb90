"""Identifiers are valid once they exist, compare by content and survive their serialised form."""

from __future__ import annotations

import copy
import json
import pickle
from enum import Enum, StrEnum
from hashlib import sha256
from typing import Any

import pytest

from eventstore_sa.errors import SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    MAX_NAME_BYTES,
    CategoryIdentifier,
    CategoryPartitionIdentifier,
    EventSourceIdentifier,
    Identifier,
    LogIdentifier,
    LogPartitionIdentifier,
    PartitionIdentifier,
    StreamIdentifier,
    StreamNamePrefixPartitionIdentifier,
    event_sequence_identifier,
    partition_of,
    stream_hash,
    target,
)

SERIALISED: list[tuple[Any, dict[str, Any]]] = [
    (LogIdentifier(), {"type": "log"}),
    (CategoryIdentifier("orders"), {"type": "category", "category": "orders"}),
    (StreamIdentifier("orders", "42"), {"type": "stream", "category": "orders", "stream": "42"}),
    (LogPartitionIdentifier(0, 3), {"type": "log-partition", "partition": 0, "partitions": 3}),
    (
        CategoryPartitionIdentifier("orders", 2, 3),
        {"type": "category-partition", "category": "orders", "partition": 2, "partitions": 3},
    ),
    (
        StreamNamePrefixPartitionIdentifier("orders", "eu-"),
        {"type": "stream-name-prefix", "category": "orders", "prefix": "eu-"},
    ),
]
ALL = [identifier for identifier, _ in SERIALISED]


@in_turn("identifier, serialised", SERIALISED)
def test_identifiers_serialise_and_read_back(identifier: Identifier, serialised: dict[str, Any]) -> None:
    assert identifier.serialise() == identifier.serialise(str) == serialised
    assert event_sequence_identifier(serialised) == identifier
    assert json.loads(identifier.json()) == serialised


@in_turn("identifier", ALL)
def test_identifiers_are_immutable_values(identifier: Any) -> None:
    for twin in (pickle.loads(pickle.dumps(identifier)), copy.copy(identifier), copy.deepcopy(identifier)):
        assert twin == identifier
        assert hash(twin) == hash(identifier)
    assert [other for other in ALL if other == identifier] == [identifier]
    assert isinstance(identifier, EventSourceIdentifier)
    with pytest.raises(AttributeError):
        identifier.category = "other"
    with pytest.raises(AttributeError):
        identifier.unknown = 1


def test_partitions_and_no_others_are_partition_identifiers() -> None:
    assert [isinstance(identifier, PartitionIdentifier) for identifier in ALL] == [False] * 3 + [True] * 3


def test_identifiers_take_names_by_position_and_by_keyword() -> None:
    assert StreamIdentifier(category="orders", stream="42") == StreamIdentifier("orders", "42")
    assert repr(StreamIdentifier("orders", "42")) == "StreamIdentifier(category='orders', stream='42')"


class Name(StrEnum):
    ORDERS = "orders"


class MixedName(str, Enum):  # noqa: UP042 - whose str() is another text
    ORDERS = "orders"


class ShoutedName(str):
    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


@in_turn("name", [Name.ORDERS, MixedName.ORDERS, ShoutedName("orders"), ShoutedName("bücher")])
def test_of_a_subclass_of_str_only_the_text_is_kept(name: str) -> None:
    text = "".join(name)

    for identifier, plain in (
        (CategoryIdentifier(name), CategoryIdentifier(text)),
        (StreamIdentifier(name, name), StreamIdentifier(text, text)),
        (CategoryPartitionIdentifier(name, 0, 2), CategoryPartitionIdentifier(text, 0, 2)),
        (StreamNamePrefixPartitionIdentifier(name, name), StreamNamePrefixPartitionIdentifier(text, text)),
    ):
        assert identifier == plain
        assert hash(identifier) == hash(plain)
        assert {type(value) for key, value in identifier.serialise().items() if key != "partitions"} <= {str, int}


def test_streams_sort_by_category_then_name() -> None:
    streams = [StreamIdentifier("b", "1"), StreamIdentifier("a", "2"), StreamIdentifier("a", "10")]
    assert sorted(streams) == [streams[2], streams[1], streams[0]]


def test_abstract_identifiers_cannot_be_made() -> None:
    for kind in (Identifier, EventSourceIdentifier, PartitionIdentifier):
        with pytest.raises(TypeError):
            kind()


BAD_NAMES: list[tuple[Any, str]] = [
    ("", "must not be empty"),
    (None, "must be a str, not NoneType"),
    (42, "must be a str, not int"),
    (b"x", "must be a str, not bytes"),
    ("a\0b", "NUL"),
    ("a\ud800", "surrogate"),
    ("x" * 1001, "1001 bytes"),
    ("ä" * 501, "1002 bytes"),
]


@in_turn("name, reason", BAD_NAMES)
@in_turn(
    "construct",
    [
        CategoryIdentifier,
        lambda name: StreamIdentifier(name, "s"),
        lambda name: StreamIdentifier("c", name),
        lambda name: CategoryPartitionIdentifier(name, 0, 1),
        lambda name: StreamNamePrefixPartitionIdentifier(name, "p"),
        lambda name: StreamNamePrefixPartitionIdentifier("c", name),
    ],
)
def test_names_that_cannot_be_stored_are_refused(construct: Any, name: Any, reason: str) -> None:
    with pytest.raises(SerialisationError, match=reason) as caught:
        construct(name)
    assert len(str(caught.value)) < 400


@in_turn(
    "name", ["x" * MAX_NAME_BYTES, "ä" * (MAX_NAME_BYTES // 2), "a/b c:d%", " ", "日本", "\n", "'; --", "😀", "-", "\\"]
)
def test_any_other_name_is_allowed(name: str) -> None:
    assert StreamIdentifier(name, name).stream == name


@in_turn(
    "serialised",
    [
        {},
        {"type": "unknown"},
        {"type": None},
        {"type": ["log"]},
        {"type": "category"},
        {"type": "stream", "category": "c"},
        {"type": "log", "category": "c"},
        {"type": "category", "category": "c", "stream": "s"},
        {"type": "category", "category": ""},
        {"type": "category", "category": 1},
        {"type": "log-partition", "partition": 3, "partitions": 3},
        {"type": "log-partition", "partition": "0", "partitions": 3},
        {"type": "log-partition", "partition": False, "partitions": 3},
    ],
)
def test_what_is_no_serialised_identifier_is_a_value_error(serialised: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        event_sequence_identifier(serialised)


def test_target_picks_the_narrowest_identifier() -> None:
    assert target() == LogIdentifier()
    assert target(category="c") == CategoryIdentifier("c")
    assert target(category="c", stream="s") == StreamIdentifier("c", "s")
    with pytest.raises(ValueError, match="without its category"):
        target(stream="s")
    with pytest.raises(ValueError, match="empty"):
        target(category="")


@in_turn("partition, partitions", [(-1, 2), (2, 2), (0, 0), (0, -1), (True, 2), (0.0, 2), ("0", 2)])
def test_partitions_that_do_not_exist_are_refused(partition: Any, partitions: Any) -> None:
    with pytest.raises(ValueError, match="no partition"):
        LogPartitionIdentifier(partition, partitions)
    with pytest.raises(ValueError, match="no partition"):
        CategoryPartitionIdentifier("c", partition, partitions)


def test_partitioning_is_the_same_for_ever() -> None:
    assert [partition_of("orders", str(n), 7) for n in range(8)] == [1, 5, 1, 0, 4, 1, 2, 4]
    assert stream_hash("orders", "42") == int(sha256(b"orders\x0042").hexdigest()[:8], 16)
    assert partition_of("ab", "c", 2**32) != partition_of("a", "bc", 2**32)


def test_each_stream_is_in_exactly_one_partition_and_partitions_are_even() -> None:
    streams = [StreamIdentifier("orders", str(n)) for n in range(4000)]
    for partitions in (
        [LogPartitionIdentifier(n, 4) for n in range(4)],
        [CategoryPartitionIdentifier("orders", n, 4) for n in range(4)],
    ):
        covered = [[stream for stream in streams if part.covers(stream)] for part in partitions]
        assert sorted(stream for part in covered for stream in part) == sorted(streams)
        assert all(900 < len(part) < 1100 for part in covered)


def test_category_parts_cover_their_category_only() -> None:
    assert not any(CategoryPartitionIdentifier("a", n, 2).covers(StreamIdentifier("b", "x")) for n in range(2))
    prefix = StreamNamePrefixPartitionIdentifier("a", "eu-")
    assert prefix.covers(StreamIdentifier("a", "eu-1"))
    assert not prefix.covers(StreamIdentifier("a", "EU-1"))
    assert not prefix.covers(StreamIdentifier("b", "eu-1"))
