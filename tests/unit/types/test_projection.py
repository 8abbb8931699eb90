"""Projections as values, and their conversion to and from JSON."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from eventstore_sa.errors import SerialisationError
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    JsonValue,
    Projection,
    StreamIdentifier,
    deserialise_projection,
    serialise_projection,
    str_serialisation_fallback,
)


@dataclass(frozen=True)
class Total:
    cents: int

    def serialise(self) -> JsonValue:
        return {"cents": self.cents}

    @classmethod
    def deserialise(cls, value: Any) -> Total:
        return cls(value["cents"])


SOURCE = StreamIdentifier("orders", "42")


def projection(**changes: Any) -> Projection[Any, Any]:
    return Projection(
        **({"id": "42", "name": "total", "source": SOURCE, "state": Total(5), "metadata": None} | changes)
    )


def test_projections_are_immutable_values_hashed_by_their_key() -> None:
    one = projection(state={"a": []})
    assert one == projection(state={"a": []})
    assert hash(one) == hash(projection(state={"b": 1}))
    assert one != projection(state={"b": 1})
    assert one != projection(state={"a": []}, source=StreamIdentifier("orders", "43"))
    with pytest.raises(AttributeError):
        one.id = "other"  # type: ignore[misc]
    for twin in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), replace(one)):
        assert twin == one


def test_serialised_projections_are_json_of_all_fields() -> None:
    assert projection(metadata={"by": (Total(1),)}).serialise() == {
        "id": "42",
        "name": "total",
        "source": {"type": "stream", "category": "orders", "stream": "42"},
        "state": {"cents": 5},
        "metadata": {"by": [{"cents": 1}]},
    }


def test_summaries_leave_out_state_and_metadata() -> None:
    summed_up = projection(state=object(), metadata=object())

    assert summed_up.summarise() == summed_up.summarise(str_serialisation_fallback)
    assert summed_up.summarise() == {"id": "42", "name": "total", "source": SOURCE.serialise()}


def test_state_and_metadata_convert_both_ways() -> None:
    whole = projection(metadata=[Total(1)])

    stored = serialise_projection(whole)

    assert stored == projection(state={"cents": 5}, metadata=[{"cents": 1}])
    assert deserialise_projection(stored, Total, list[Total]) == whole
    assert deserialise_projection(stored) == stored


def test_conversion_uses_the_fallback() -> None:
    strange = projection(state=object)
    with pytest.raises(SerialisationError):
        serialise_projection(strange)
    assert serialise_projection(strange, str_serialisation_fallback).state == "<class 'object'>"
    assert strange.serialise(str_serialisation_fallback)["state"] == "<class 'object'>"
    stored = projection(state="x", metadata="y")
    both = deserialise_projection(stored, int, int, state_fallback=lambda *_: 7, metadata_fallback=lambda *_: 8)
    assert (both.state, both.metadata) == (7, 8)


@in_turn("field", ["id", "name"])
@in_turn("value", ["", "a\0", "\ud800", "x" * 1001, 5, None])
def test_keys_that_cannot_be_stored_are_refused(field: str, value: Any) -> None:
    with pytest.raises(SerialisationError, match=f"projection {field}|{field}"):
        projection(**{field: value})
