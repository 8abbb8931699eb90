"""Which changes of event types need a new version, and what the command says of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from click.testing import CliRunner

from eventstore_sa.cli import main
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import Encryption, EventTypes, event
from eventstore_sa.types.type_history import described, incompatible_changes


class Item(msgspec.Struct):
    sku: str


class LargerItem(msgspec.Struct):
    sku: str
    size: int


class Tree(msgspec.Struct):
    children: list[Tree] = []


def dataclass_of(**fields: Any) -> type:
    return dataclasses.make_dataclass("Placed", [*fields.items()])


def optional(kind: Any, default: Any) -> Any:
    return kind, dataclasses.field(default=default)


def made(fields: dict[str, Any], **options: Any) -> EventTypes[Any]:
    specified = [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()]
    payload_type = dataclasses.make_dataclass("Placed", specified)
    pipeline = [Encryption(lambda: {"key": bytes(32)})] if "encrypted" in options else []
    return EventTypes(event("placed", **options)(payload_type), pipeline=pipeline)


def same(payload: Any) -> Any:
    return payload


BEFORE = {"total": int, "item": Item, "note": optional(str, "")}

COMPATIBLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (BEFORE, {}),
    ({**BEFORE, "more": optional(int, 0)}, {}),
    ({"total": int, "item": Item}, {}),
    ({**BEFORE, "total": Decimal}, {"version": 2, "upcast": {1: same}}),
    (BEFORE, {"aliases": ["made"]}),
]

INCOMPATIBLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({**BEFORE, "total": Decimal}, {}, "placed: payload.total has changed"),
    ({**BEFORE, "total": bool}, {}, "placed: payload.total has changed its type"),
    ({**BEFORE, "item": LargerItem}, {}, "placed: payload.item.size is new and has no default"),
    ({"item": Item, "note": optional(str, "")}, {}, "placed: payload.total is gone, which the code before requires"),
    ({"total": int, "item": Item, "note": str}, {}, "placed: payload.note has no default any more"),
    (BEFORE, {"encrypted": ["note"]}, "placed: payload.note is encrypted now"),
]


@in_turn("fields, options", COMPATIBLE)
def test_compatible_change_needs_no_version(fields: dict[str, Any], options: dict[str, Any]) -> None:
    fields = dict(sorted(fields.items(), key=lambda item: isinstance(item[1], tuple)))

    assert incompatible_changes(described(made(BEFORE)), described(made(fields, **options))) == []


@in_turn("fields, options, problem", INCOMPATIBLE)
def test_incompatible_change_needs_a_version(fields: dict[str, Any], options: dict[str, Any], problem: str) -> None:
    fields = dict(sorted(fields.items(), key=lambda item: isinstance(item[1], tuple)))

    (found,) = incompatible_changes(described(made(BEFORE)), described(made(fields, **options)))

    assert found.startswith(problem)


def test_fields_come_and_go_only_where_others_are_allowed() -> None:
    class Short(msgspec.Struct, forbid_unknown_fields=True):
        total: int

    class Long(msgspec.Struct, forbid_unknown_fields=True):
        total: int
        note: str = ""

    short, long = (described(EventTypes(event("placed")(kind))) for kind in (Short, Long))

    assert incompatible_changes(short, long) == [
        "placed: payload.note is new, and the code before forbids other fields"
    ]
    assert incompatible_changes(long, short) == [
        "placed: payload.note is gone, but stored events may have it, and other fields are forbidden"
    ]


def test_names_do_not_go_away() -> None:
    before = described(made(BEFORE, aliases=["made"]))

    assert incompatible_changes(before, {}) == [
        "placed: there is no such type any more, so that stored events cannot be read"
    ]
    assert incompatible_changes(before, described(made(BEFORE))) == [
        "placed: the alias 'made' is gone, so that stored events cannot be read"
    ]
    renamed = EventTypes(event("order-placed", aliases=["placed", "made"])(dataclass_of(total=int)))
    assert [each.partition(" ")[0] for each in incompatible_changes(before, described(renamed))] == ["placed:"]


def test_versions_do_not_go_back() -> None:
    before = described(made(BEFORE, version=2, upcast={1: same}))

    assert incompatible_changes(before, described(made(BEFORE))) == ["placed: its version went back from 2 to 1"]


def test_prose_says_nothing() -> None:
    def documented(doc: str) -> Any:
        class Placed(pydantic.BaseModel):
            total: int = pydantic.Field(description=doc)

        Placed.__doc__ = doc
        return EventTypes(event("placed")(Placed))

    assert described(documented("one")) == described(documented("other"))


def test_recursive_types_are_described() -> None:
    @event("grown")
    @dataclass
    class Grown:
        tree: Tree

    assert incompatible_changes(described(EventTypes(Grown)), described(EventTypes(Grown))) == []


MODULE = """
from dataclasses import dataclass
from eventstore_sa.types import EventTypes, event

@event("placed")
@dataclass
class Placed:
    total: {kind}
    {more}

types = EventTypes(Placed)
other = 3
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Call the command in a project, whose module has this type."""
    monkeypatch.chdir(tmp_path)
    number = iter(range(100))

    def run(kind: str = "int", more: str = "", *options: str, name: str = "types") -> tuple[int, str]:
        module = f"project_{tmp_path.name}_{next(number)}"
        (tmp_path / f"{module}.py").write_text(MODULE.format(kind=kind, more=more))
        result = CliRunner().invoke(main, ["types", "check", f"{module}:{name}", *options])
        return result.exit_code, result.output

    return run


def test_command_notices_what_has_changed(check: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert check("int", "", "--update") == (0, "event-types.json is up to date now.\n")
    assert json.loads((tmp_path / "event-types.json").read_text())["placed"]["version"] == 1
    assert check() == (0, "The event types are as the file says.\n")
    assert check("int", "more: int = 0")[0] == 1
    assert check("int", "more: int = 0", "--update")[0] == 0
    code, output = check("str", "more: int = 0", "--update")
    assert code == 1
    assert output.startswith("placed: payload.total has changed its type\nGive these types a new version and an upcast")
    assert check("int", "more: int = 0")[0] == 0


def test_command_names_what_it_cannot_use(check: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    assert check(name="other")[0] == 2
    assert check(name="nothing")[0] == 2
    (tmp_path / "event-types.json").write_text("[]")
    code, output = check()
    assert code == 2
    assert "does not hold the description of event types" in " ".join(output.split())
