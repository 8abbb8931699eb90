"""Tags: what an event concerns, whatever stream it is in, such as "course:c1" and "student:s1".

Tags are opaque, like names. Events carry them, and queries ask for them; both check them here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from eventstore_sa.errors import SerialisationError
from eventstore_sa.types.identifiers import check_name

__all__ = ["MAX_TAGS", "NO_TAGS", "checked_tags"]

MAX_TAGS: Final = 100
"""How many tags an event may have, and an item of a query may ask for: each is an entry of an index, and a lock."""


NO_TAGS: Final[frozenset[str]] = frozenset()
"""The tags of all events and items that have none: an empty frozenset is a new object each time."""


def checked_tags(tags: object) -> frozenset[str]:
    """Return a copy of a set of tags, as plain strings.

    Raises:
        SerialisationError: If it is a single string or not iterable, a tag cannot be stored, or there are too many.
    """
    if type(tags) is frozenset and not tags:
        return NO_TAGS
    if isinstance(tags, str | bytes):
        raise SerialisationError(f"tags are passed as a set, even a single one: tags={{{tags!r}}}")
    if not isinstance(tags, Iterable):
        raise SerialisationError(f"tags are passed as a set of str; got {type(tags).__name__}")
    given = list(cast("Iterable[object]", tags))
    if "" in given:
        raise SerialisationError("a tag must not be empty: it names what an event concerns, as in 'course:c1'")
    checked = frozenset(check_name("tag", tag) for tag in given)
    if len(checked) > MAX_TAGS:
        raise SerialisationError(f"there are {len(checked)} tags, more than {MAX_TAGS}: tag what rules are about only")
    return checked or NO_TAGS
