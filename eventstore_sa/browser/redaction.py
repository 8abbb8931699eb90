"""What must not be shown: fields of payloads, metadata and states, by name or by a function of the application.

Pure Python; it works on JSON. Everything that leaves the store for a page, for JSON or for a search passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, TypeAlias, cast

from eventstore_sa.browser.json_text import is_array
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types.json import is_dict

__all__ = ["HIDDEN", "Redact", "Redaction"]

Steps: TypeAlias = tuple[str | int, ...]

Redact: TypeAlias = Collection[str] | Callable[[Steps, Any], bool]
"""Names of members to hide wherever they occur, or ends of paths such as "card.number", in upper and lower case alike; or a
function that is given the path of a value, names and indices, and the value, and returns whether it is hidden."""

HIDDEN: Final = "[hidden]"


class Redaction:
    """Hides values.

    Args:
        redact: Which; None: none.

    Raises:
        ConfigurationError: If it is neither names nor a function.
    """

    def __init__(self, redact: Redact | None) -> None:
        given: object = redact
        if isinstance(given, str | bytes) or (given is not None and not callable(given) and not _is_names(given)):
            raise ConfigurationError(
                'redact takes the names of fields, as in redact=["password"], or a function of a path and a value; got '
                f"{given!r:.60}"
            )
        self._decides = redact if callable(redact) else None
        names: Iterable[str] = () if redact is None or callable(redact) else redact
        # After a dot, so that the path of a field ends with it wherever the field begins; a name may have dots of its own.
        self._ends = tuple({f".{name.casefold()}" for name in names})
        self.is_active: Final = redact is not None
        """Whether anything may be hidden."""

    def hides(self, path: Steps, value: Any) -> bool:
        """Return whether the value at a path is hidden."""
        if self._decides is not None:
            return bool(self._decides(path, value))
        if not self._ends or not path or not isinstance(path[-1], str):
            return False
        return "".join(f".{step.casefold()}" for step in path if isinstance(step, str)).endswith(self._ends)

    def applied(self, value: Any) -> Any:
        """Return a value without what is hidden; the value itself is not changed.

        It goes through the value without recursion, because values may be nested deeply.
        """
        if not self.is_active:
            return value
        result: list[Any] = [value]
        waiting: list[tuple[Any, Any, Steps]] = [(result, 0, ())]
        while waiting:
            place, key, path = waiting.pop()
            found = place[key]
            if path and self.hides(path, found):
                place[key] = HIDDEN
            elif is_dict(found):
                members = place[key] = dict(found)
                waiting.extend((members, name, (*path, name)) for name in members)
            elif is_array(found):
                items = place[key] = list(found)
                waiting.extend((items, index, (*path, index)) for index in range(len(items)))
        return result[0]


def _is_names(given: object) -> bool:
    return isinstance(given, Collection) and all(
        isinstance(name, str) and name for name in cast("Collection[object]", given)
    )
