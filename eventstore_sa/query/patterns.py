"""Regular expressions that have the same meaning in Python and in PostgreSQL.

A construct that the two read differently is refused by name, so that no query depends on the database.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from eventstore_sa.errors import QueryError
from eventstore_sa.types.codec import text_problem

__all__ = ["compiled"]

_LONGEST = 1000
_DEEPEST = 50
_MOST_REPEATED = 300

_TOKEN = re.compile(
    r"""
      \\ (?P<escaped> .?)
    | \[ (?P<class> \^? \]? (?: \\. | [^]\\] )* ) \]
    | (?P<open> \( (?: \? [:=!]? )? )
    | (?P<close> \) )
    | (?P<possessive> [*+?}] \+ )
    | (?P<quantifier> (?: [*+?] | \{ \d{1,2} (?: ,\d{0,2} )? \} (?!\+) ) \?? )
    | .
    """,
    re.DOTALL | re.VERBOSE,
)
_CLASS_MEMBER = re.compile(r"(?P<first>\\.|.)(?P<range>-(?P<last>\\.|.))?", re.DOTALL)


def compiled(pattern: object) -> re.Pattern[str]:
    """Return the compiled pattern, to search with.

    Raises:
        QueryError: If it is not a valid pattern, or does not have the same meaning on every database.
    """
    if not isinstance(pattern, str):
        raise QueryError(f"a regular expression must be a str, not {type(pattern).__name__!r}")
    return _compiled(str.__str__(pattern))


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    problem = text_problem(pattern)
    if problem is not None:
        raise QueryError(f"the regular expression {pattern!a} {problem}")
    if len(pattern) > _LONGEST:
        raise QueryError(
            f"a regular expression can have at most {_LONGEST} characters, not {len(pattern)}: use several filters"
        )
    translated = _Translation(pattern).text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(translated, re.ASCII | re.DOTALL)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise QueryError(f"{pattern!r} is not a valid regular expression: {error}") from error


class _Translation:
    """A pattern in Python's syntax, checked token by token for what PostgreSQL would refuse or read differently."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        # Of each open group: whether it is a lookahead, and how large it is with its repetitions written out.
        self._groups: list[tuple[bool, int]] = []
        self._size = self._atoms = 0
        self._last_size = 0
        self._repeatable = True
        self.text = "".join(map(self._translated, _TOKEN.finditer(pattern)))
        if self._size - self._atoms > _MOST_REPEATED:
            # Databases write them out: of optional parts that follow each other, 500 take PostgreSQL ten seconds.
            raise QueryError(
                f"the regular expression {pattern!r} repeats too much: when expanded, its repetitions can add at most "
                f"{_MOST_REPEATED} parts"
            )

    def _translated(self, token: re.Match[str]) -> str:
        text, repeatable = token.group(), True
        match token.lastgroup:
            case "quantifier":
                self._repeat(text)
                return text
            case "open":
                self._open(text)
                return text
            case "close":
                self._close()
                return text
            case "escaped":
                self._check_escape(token["escaped"])
            case "class":
                self._check_class(token["class"])
            case "possessive":
                raise self._unportable(f"the quantifier {text}")
            case _ if text == "{":
                raise self._unportable("a { that does not begin a repetition of at most 99 times: escape it")
            case _ if text == "$":
                # The very end, as on PostgreSQL.
                text, repeatable = r"\Z", False
            case _:
                repeatable = text not in "^|"
        self._atoms += 1
        self._add(1, repeatable=repeatable)
        return text

    def _add(self, size: int, *, repeatable: bool) -> None:
        self._size += size
        self._last_size, self._repeatable = size, repeatable

    def _open(self, text: str) -> None:
        if text == "(?":
            raise self._unportable("a group that begins with (? but not with (?:, (?= or (?!")
        self._groups.append((text in ("(?=", "(?!"), self._size))
        if len(self._groups) > _DEEPEST:
            raise QueryError(f"the groups of a regular expression can be nested at most {_DEEPEST} levels deep")
        self._atoms += 1
        self._size, self._repeatable = 1, True

    def _close(self) -> None:
        # Python says what is wrong with one that was not opened.
        is_lookahead, outside = self._groups.pop() if self._groups else (False, 0)
        inside, self._size = self._size, outside
        self._add(inside, repeatable=not is_lookahead)

    def _repeat(self, quantifier: str) -> None:
        if not self._repeatable:
            raise self._unportable(f"the quantifier {quantifier} after a lookahead, ^, $ or |")
        times = max([1, *map(int, re.findall(r"\d+", quantifier))])
        self._size += self._last_size * (times - 1)
        self._last_size *= times

    def _check_escape(self, escaped: str) -> None:
        if escaped not in "dwsDWSnrtf" if escaped.isalnum() else not escaped.isascii():
            raise self._unportable(f"the escape \\{escaped}")

    def _check_class(self, members: str) -> None:
        for escaped in re.findall(r"\\(.)", members, re.DOTALL):
            self._check_escape(escaped)
            if escaped in "DWS":
                raise self._unportable(f"\\{escaped} inside [...]")
        previous = None
        # A - in the last place is nothing but itself.
        for member in _CLASS_MEMBER.finditer(members.removeprefix("^").removesuffix("-")):
            if "[" in (member["first"], member["last"]):
                raise self._unportable("[ inside [...]: escape it")
            if previous is not None and previous["range"] and member["first"] == "-":
                raise self._unportable("a - after a range inside [...]: escape it, or put it last")
            previous = member

    def _unportable(self, what: str) -> QueryError:
        return QueryError(
            f"the regular expression {self._pattern!r} would not mean the same on every database: it contains {what}"
        )
