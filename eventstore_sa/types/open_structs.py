"""The metaclass of Structs that applications subclass: conditions and constraints of their own.

Such a subclass may be written as a Struct, or as a frozen dataclass, which is how other libraries have them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import StructMeta
from typing_extensions import dataclass_transform

__all__ = ["OpenStructMeta"]

_MATCH_ARGS: Final = "__match_args__"


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class OpenStructMeta(StructMeta):
    """Lets `@dataclass(frozen=True)` decorate a Struct, which is frozen anyway; it keeps the fields and their defaults.

    To type checkers, a class that names this metaclass is neither frozen nor not, so that subclasses may say it either way.
    """

    if not TYPE_CHECKING:

        def __new__(mcls, name, bases, namespace, **options):
            fields = {
                attribute: _struct_field(value) if isinstance(value, dataclasses.Field) else value
                for attribute, value in namespace.items()
            }
            return super().__new__(mcls, name, bases, fields, **{"frozen": True, **options})

        def __setattr__(cls, name, value):  # noqa: N805 - of a metaclass
            # A Struct has these from its fields, and they cannot be set.
            if name != _MATCH_ARGS:
                super().__setattr__(name, value)


def _struct_field(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return msgspec.field(default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        return msgspec.field(default_factory=field.default_factory)
    return msgspec.field()
