"""Regular expressions that mean the same to Python and to PostgreSQL.

What one of them reads in another way is refused by name, instead of being answered differently by different databases.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from eventstore_sa.errors import QueryError
from eventstore_sa.types.codec import text_problem

__all__ = ["compiled"]

_TOKEN = re.compile(
    r"""
      \\ (?P<escaped> .?)
    | (?P<class> \[ \^? \]? (?: \\. | [^]\\] )* \] )
    | (?P<group> \( \? [:=!]? )
    | (?P<possessive> [*+?}] \+ )
    | (?P<repetition> \{ \d{1,2} (?: ,\d{0,2} )? \} (?!\+) )
    | .
    """,
    re.DOTALL | re.VERBOSE,
)
_UNPORTABLE_IN_CLASS = re.compile(r"(?<!\\)(?:\\\\)*(?P<what>\\[DWS]|\[)")


def compiled(pattern: object) -> re.Pattern[str]:
    """Return the pattern as Python's, to search with.

    Raises:
        QueryError: It is no pattern, or not one that means the same everywhere.
    """
    if not isinstance(pattern, str):
        raise QueryError(f"a regular expression is a str, not a {type(pattern).__name__}")
    return _compiled(str.__str__(pattern))


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    problem = text_problem(pattern)
    if problem is not None:
        raise QueryError(f"the regular expression {pattern!a} {problem}")
    translated = "".join(_translated(token, pattern) for token in _TOKEN.finditer(pattern))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translated, re.ASCII | re.DOTALL)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise QueryError(f"{pattern!r} is no regular expression: {error}") from error


def _translated(token: re.Match[str], pattern: str) -> str:
    """Say in Python's way what both would read differently: `$` is the very end."""
    text = token.group()
    match token.lastgroup:
        case "escaped":
            _check_escape(token["escaped"], pattern)
        case "class":
            for escaped in re.findall(r"\\(.)", text, re.DOTALL):
                _check_escape(escaped, pattern)
            unportable = _UNPORTABLE_IN_CLASS.search(text, 1)
            if unportable is not None:
                raise _unportable(pattern, f"{unportable['what']} within [...]")
        case "group" if text == "(?":
            raise _unportable(pattern, "a group that begins with (? and then neither : nor = nor !")
        case "possessive":
            raise _unportable(pattern, f"the quantifier {text}")
        case None if text == "{":
            raise _unportable(pattern, "a { that begins no repetition of at most 99 times: escape it")
        case None if text == "$":
            return r"\Z"
        case _:
            pass
    return text


def _check_escape(escaped: str, pattern: str) -> None:
    if escaped not in "dwsDWSnrtf" if escaped.isalnum() else not escaped.isascii():
        raise _unportable(pattern, f"the escape \\{escaped}")


def _unportable(pattern: str, what: str) -> QueryError:
    return QueryError(f"the regular expression {pattern!r} would not mean the same on every database: it has {what}")
