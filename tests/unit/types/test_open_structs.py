"""Conditions and constraints of applications may be frozen dataclasses."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from eventstore_sa.conditions import AndCondition, WriteCondition, position_is
from eventstore_sa.sources.constraints import QueryConstraint
from eventstore_sa.types import StoredEvent


@dataclass(frozen=True)
class NoMoreThan(WriteCondition):
    most: int
    names: tuple[str, ...] = field(default_factory=tuple)
    weight: float = field(default=1.5)


@dataclass(frozen=True)
class OfNames(QueryConstraint):
    names: frozenset[str] = frozenset()

    def met_by(self, *, event: StoredEvent[Any, Any, Any]) -> bool:
        return event.name in self.names


def test_dataclasses_are_conditions() -> None:
    condition = NoMoreThan(3)

    assert (condition.most, condition.names, condition.weight) == (3, (), 1.5)
    assert condition == NoMoreThan(most=3) != NoMoreThan(4)
    assert condition & position_is(1) == AndCondition(frozenset({NoMoreThan(3), position_is(1)}))
    assert condition.describe() == "NoMoreThan(most=3, names=(), weight=1.5)"


def test_dataclasses_are_constraints() -> None:
    assert {OfNames(frozenset({"a"})), OfNames(frozenset({"a"}))} == {OfNames(frozenset({"a"}))}
    assert OfNames() == OfNames(frozenset())


def test_what_dataclasses_can_do_works() -> None:
    assert replace(NoMoreThan(3), most=4) == NoMoreThan(4)
    assert [each.name for each in fields(NoMoreThan)] == ["most", "names", "weight"]
    match NoMoreThan(5, ("a",)):
        case NoMoreThan(most, names):
            assert (most, names) == (5, ("a",))
    untyped: Any = NoMoreThan(3)
    with pytest.raises(FrozenInstanceError):
        untyped.most = 4
