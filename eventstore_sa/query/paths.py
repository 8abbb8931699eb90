"""What a clause looks at: a path into a projection, or a function of such paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Struct

from eventstore_sa.errors import QueryError
from eventstore_sa.types.codec import text_problem

__all__ = ["CustomFunction", "Function", "Path", "Similarity"]

_LARGEST_INDEX = 2**31 - 1
_MOST_STEPS = 32


@dataclass(frozen=True, init=False, repr=False, slots=True)
class Path:
    """A place in a projection.

    Steps that are strings name members of objects, integers index arrays (negative ones from the end). Where a step does
    not fit what is there, the place is missing, which counts as null.

    Args:
        top_level: A field of projections: "id", "name", "source", "state" or "metadata".
        sub_levels: The steps below it, at most 32.

    Raises:
        QueryError: A step is neither a string that can be stored nor a 32-bit integer, or there are too many.

    Example:
        >>> Path("state", "lines", 0, "sku")
        Path('state', 'lines', 0, 'sku')
    """

    top_level: str
    sub_levels: tuple[str | int, ...]

    def __init__(self, top_level: str, *sub_levels: str | int) -> None:
        for step in (top_level, *sub_levels):
            _check_step(step)
        if len(sub_levels) > _MOST_STEPS:
            raise QueryError(
                f"a path has at most {_MOST_STEPS} steps below its field, not {len(sub_levels)}: filter by something "
                "nearer, or keep what is searched for at a place of its own"
            )
        object.__setattr__(self, "top_level", top_level)
        object.__setattr__(self, "sub_levels", sub_levels)

    def __repr__(self) -> str:
        return f"Path({', '.join(map(repr, (self.top_level, *self.sub_levels)))})"


class Similarity(Struct, frozen=True):
    """How similar two texts are, from 0 to 1: the share of trigrams that they have in common, as pg_trgm defines it.

    Words end at ASCII characters that are neither letters nor digits; ASCII letters are compared without regard to case.
    The similarity to something that is no string is null. It is a number of 32 bits, as there.

    Args:
        left: A text, or where it is.
        right: The other one.
        alias: What the value is called; of no meaning for the result.
    """

    left: Path | str
    right: Path | str
    alias: str = "similarity"


class CustomFunction(Struct, frozen=True):
    """The base of functions of the application's own; an adapter is told what one means by `register_function`."""


Function: TypeAlias = Similarity | CustomFunction
"""Everything that can be sorted by beside paths."""


def _check_step(step: object) -> None:
    match step:
        case bool():
            pass
        case str():
            problem = text_problem(step)
            if problem is None:
                return
            raise QueryError(f"a path step {problem}")
        case int() if abs(step) <= _LARGEST_INDEX:
            return
        case _:
            pass
    raise QueryError(f"a path step is a string or a 32-bit integer, not {step!r}")
