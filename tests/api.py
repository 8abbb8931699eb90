"""The public API as text: names, signatures, and what else users rely on. `make api` writes it to tests/api.txt.

A test compares the two, so that no name or parameter changes without being seen in a commit.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_origin

from eventstore_sa.types import JsonValueType
from tests.architecture.test_public_names import PUBLIC
from tests.project import PACKAGE, ROOT

SNAPSHOT = ROOT / "tests" / "api.txt"
MODULES = sorted(PUBLIC)


class _AnyJson:
    def __repr__(self) -> str:
        return "JsonValueType"


_JSON = _AnyJson()


def public_api() -> str:
    """Return the lines of the snapshot: each module with its names, each name with its signature or members.

    A name is described where it is first met, and only named afterwards.
    """
    described: set[int] = set()
    return "\n".join(line for name in MODULES for line in _module(importlib.import_module(name), described)) + "\n"


def _module(module: ModuleType, described: set[int]) -> Iterator[str]:
    yield f"# {module.__name__}"
    for name in sorted(module.__all__):
        value = getattr(module, name)
        yield from _named(name, value, described)
    yield ""


def _named(name: str, value: Any, described: set[int]) -> Iterator[str]:
    if not (inspect.isclass(value) or inspect.isfunction(value)) or get_origin(value) is not None:
        yield name
    elif id(value) in described:
        yield f"{name}: {value.__module__}.{value.__qualname__}"
    else:
        described.add(id(value))
        yield from _class(name, value) if inspect.isclass(value) else (f"{name}{_signature(value)}",)


def _class(name: str, value: type[Any]) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {name}({bases})" + ("" if issubclass(value, enum.Enum) else _signature(value))
    if issubclass(value, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in value)
    for attribute in sorted(_public_attributes(value)):
        yield f"    {attribute}{_attribute(inspect.getattr_static(value, attribute, None), value, attribute)}"


def _public_attributes(value: type[Any]) -> set[str]:
    ours = [base for base in value.__mro__ if base.__module__.partition(".")[0] == PACKAGE.name]
    names = {name for base in ours for name in (*vars(base), *getattr(base, "__annotations__", ()))}
    return {
        name for name in names if not name.startswith("_") and not (issubclass(value, enum.Enum) and name.isupper())
    }


def _attribute(static: Any, owner: type[Any], name: str) -> str:
    if isinstance(static, property):
        return ": property"
    if inspect.isroutine(static) or isinstance(static, staticmethod | classmethod):
        return _signature(getattr(owner, name))
    return ""


def _signature(value: Any) -> str:
    # Structs and classes with a metaclass that is called have none; their fields are listed.
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    # Names, kinds and defaults: annotations are what type checkers look after, and are written differently by each Python.
    parameters = [
        each.replace(annotation=each.empty, default=_JSON if each.default is JsonValueType else each.default)
        for each in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    return re.sub(r"<([\w.]+)[^<>]*>", r"<\1>", re.sub(r" at 0x[0-9a-f]+", "", text))


def main() -> None:
    """Write the snapshot."""
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
    print(f"wrote {SNAPSHOT.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
