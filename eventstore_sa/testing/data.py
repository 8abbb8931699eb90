"""Random values for tests that should not depend on the values.

The builders take their defaults from here. Seed `random` to repeat a run; event ids do not come from it and remain unique.
"""

from __future__ import annotations

import random
import string
from uuid import UUID, uuid4

from eventstore_sa.types import uuid7

__all__ = [
    "random_ascii_alphanumerics_string",
    "random_event_category_name",
    "random_event_id",
    "random_event_metadata",
    "random_event_name",
    "random_event_payload",
    "random_event_position",
    "random_event_sequence_number",
    "random_event_stream_name",
    "random_event_tag",
    "random_event_tags",
    "random_event_version",
    "random_hyphenated_lowercase_ascii_alphabetics_string",
    "random_int",
    "random_lowercase_ascii_alphabetics_string",
    "random_node_id",
    "random_projection_id",
    "random_projection_metadata",
    "random_projection_name",
    "random_projection_state",
    "random_string",
    "random_subscriber_group",
    "random_subscriber_id",
    "random_uppercase_ascii_alphabetics_string",
    "random_uuid4",
    "random_uuid4_string",
]


def random_int(min: int = 0, max: int = 99_999_999_999_999) -> int:
    """Return an integer from `min` to `max`, inclusive."""
    return random.randint(min, max)


def random_string(characters: str, length: int = 1) -> str:
    """Return a string of `length` characters from `characters`."""
    return "".join(random.choices(characters, k=length))


def random_lowercase_ascii_alphabetics_string(length: int = 1) -> str:
    """Return a string of `length` letters from a to z."""
    return random_string(string.ascii_lowercase, length)


def random_uppercase_ascii_alphabetics_string(length: int = 1) -> str:
    """Return a string of `length` letters from A to Z."""
    return random_string(string.ascii_uppercase, length)


def random_ascii_alphanumerics_string(length: int = 1) -> str:
    """Return a string of `length` letters and digits."""
    return random_string(string.ascii_letters + string.digits, length)


def random_hyphenated_lowercase_ascii_alphabetics_string(length: int = 1) -> str:
    """Return a string of `length` letters from a to z and hyphens that neither starts nor ends with a hyphen."""
    inner = random_string(string.ascii_lowercase + "-", max(length - 2, 0))
    outer = random_lowercase_ascii_alphabetics_string(min(length, 2))
    return outer[:1] + inner + outer[1:]


def random_uuid4() -> UUID:
    """Return a UUID of version 4."""
    return uuid4()


def random_uuid4_string() -> str:
    """Return a UUID of version 4 as a string."""
    return str(uuid4())


def random_event_id() -> UUID:
    """Return a new, unique event id."""
    return uuid7()


def random_event_name() -> str:
    """Return an event name of 15 characters."""
    return random_hyphenated_lowercase_ascii_alphabetics_string(15)


def random_event_category_name() -> str:
    """Return a category name of 10 characters."""
    return random_hyphenated_lowercase_ascii_alphabetics_string(10)


def random_event_stream_name() -> str:
    """Return a stream name of 42 characters."""
    return random_hyphenated_lowercase_ascii_alphabetics_string(42)


def random_event_position() -> int:
    """Return a position below ten million."""
    return random_int(0, 9_999_999)


def random_event_sequence_number() -> int:
    """Return a sequence number below 10^18, which fits a BIGINT."""
    return random_int(0, 999_999_999_999_999_999)


def random_event_tag() -> str:
    """Return a tag: a kind of 10 characters, a colon, and 10 letters and digits."""
    return f"{random_hyphenated_lowercase_ascii_alphabetics_string(10)}:{random_ascii_alphanumerics_string(10)}"


def random_event_tags() -> frozenset[str]:
    """Return one to three tags."""
    return frozenset(random_event_tag() for _ in range(random_int(1, 3)))


def random_event_version() -> int:
    """Return a version of an event's type, below a hundred."""
    return random_int(1, 99)


def random_event_payload() -> dict[str, str]:
    """Return an object of one to ten strings."""
    return _random_object()


def random_event_metadata() -> dict[str, str]:
    """Return an object of one to ten strings."""
    return _random_object()


def random_projection_id() -> str:
    """Return a projection id."""
    return random_uuid4_string()


def random_projection_name() -> str:
    """Return a projection name of 15 characters."""
    return random_hyphenated_lowercase_ascii_alphabetics_string(15)


def random_projection_state() -> dict[str, str]:
    """Return an object of one to ten strings."""
    return _random_object()


def random_projection_metadata() -> dict[str, str]:
    """Return an object of one to ten strings."""
    return _random_object()


def random_node_id() -> str:
    """Return the id of a node."""
    return random_uuid4_string()


def random_subscriber_group() -> str:
    """Return the name of a subscriber group, of 15 characters."""
    return random_hyphenated_lowercase_ascii_alphabetics_string(15)


def random_subscriber_id() -> str:
    """Return the id of a subscriber."""
    return random_uuid4_string()


def _random_object() -> dict[str, str]:
    size = random_int(1, 10)
    return {random_lowercase_ascii_alphabetics_string(10): random_ascii_alphanumerics_string(20) for _ in range(size)}
