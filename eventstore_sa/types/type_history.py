"""Whether event types have changed in a way that other code cannot read: compared with what a file says of them.

The file is kept with the application and holds a description of every type (`described`). A type may change as long as code
with either form of it reads events of the other: fields with defaults may come, and optional ones may go. For anything else
it needs a new version. For the command `eventstore-sa types check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from eventstore_sa.types.event_types import EventTypes
from eventstore_sa.types.json import is_dict

__all__ = ["described", "incompatible_changes"]

Described = dict[str, dict[str, Any]]

# What says nothing about which values there are.
_PROSE: Final = frozenset({"title", "description", "examples", "default", "$defs", "definitions", "discriminator"})


def described(types: EventTypes[Any]) -> Described:
    """Return what other code has to know of the types, by the names of their events, as JSON."""
    return {name: {**each, "schema": _plain(each["schema"])} for name, each in types.schemas().items()}


def incompatible_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what has changed between two descriptions so that events cannot be read any more, in a sentence each."""
    by_name = {name: each for each in after.values() for name in each["aliases"]} | dict(after)
    problems: list[str] = []
    for name, old in sorted(before.items()):
        new = by_name.get(name)
        if new is None:
            problems.append(f"{name}: there is no such type any more, so that stored events cannot be read")
            continue
        lost = sorted(set(old["aliases"]) - set(by_name))
        problems += [f"{name}: the alias {alias!r} is gone, so that stored events cannot be read" for alias in lost]
        if new["version"] < old["version"]:
            problems.append(f"{name}: its version went back from {old['version']} to {new['version']}")
        elif new["version"] == old["version"]:
            problems += [f"{name}: {problem}" for problem in _changes(old["schema"], new["schema"], "payload")]
            hidden = sorted(set(new["encrypted"]) - set(old["encrypted"]))
            problems += [f"{name}: payload.{field} is encrypted now, but the version is the same" for field in hidden]
    return problems


def _changes(before: Any, after: Any, place: str) -> Iterator[str]:
    if before == after:
        return
    if not is_dict(before) or not is_dict(after) or (before.keys() ^ after.keys()) - {"required"}:
        yield f"{place} has changed"
        return
    for key in before.keys() | after.keys():
        old: Any = before.get(key)
        new: Any = after.get(key)
        if key == "properties":
            yield from _field_changes(before, after, place)
        elif key in ("items", "additionalProperties"):
            yield from _changes(old, new, f"{place}[]")
        elif key != "required" and old != new:
            yield f"{place} has changed its {key}"


def _field_changes(before: Mapping[str, Any], after: Mapping[str, Any], place: str) -> Iterator[str]:
    old, new = before["properties"], after["properties"]
    was_required, is_required = set(before.get("required", ())), set(after.get("required", ()))
    for name in sorted(old.keys() | new.keys()):
        field = f"{place}.{name}"
        if name not in new:
            if name in was_required:
                yield f"{field} is gone, which the code before requires"
            elif after.get("additionalProperties") is False:
                yield f"{field} is gone, but stored events may have it, and other fields are forbidden"
        elif name not in old:
            if name in is_required:
                yield f"{field} is new and has no default, so that stored events cannot be read"
            elif before.get("additionalProperties") is False:
                yield f"{field} is new, and the code before forbids other fields"
        else:
            if name in is_required - was_required:
                yield f"{field} has no default any more, so that stored events cannot be read"
            yield from _changes(old[name], new[name], field)


def _plain(schema: Any) -> Any:
    """Return a JSON schema without prose, and with what it refers to in its place."""
    definitions: Any = schema.get("$defs", {})

    def plain(part: Any, within: tuple[str, ...]) -> Any:
        if isinstance(part, list):
            return [plain(item, within) for item in part]  # pyright: ignore[reportUnknownVariableType]
        if not is_dict(part):
            return part
        reference: object = part.get("$ref")
        if isinstance(reference, str):
            name = reference.rpartition("/")[2]
            if name in within or name not in definitions:
                return {"recursive": len(within)}
            return plain(definitions[name], (*within, name))
        return {
            key: {name: plain(field, within) for name, field in value.items()}
            if key == "properties"
            else plain(value, within)
            for key, value in part.items()
            if key not in _PROSE
        }

    return plain(schema, ())
