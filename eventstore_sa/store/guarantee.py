"""How writers exclude each other, and which order of events that guarantees to readers."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.locking import LockingMode

__all__ = ["EventSerialisationGuarantee", "Locking", "checked_locking", "locking_mode"]

Locking: TypeAlias = Literal["fence", "advisory", "row"]
"""How the writers of a store exclude each other. All stores on the same tables must have the same, and it is kept there.

"fence", the default: those of one stream only. Readers of the log and of categories stop at a watermark, so that open
transactions hide nothing from them. PostgreSQL.

"advisory": the same, and until they commit publishes exclude each other within the log or a category, as the
`EventSerialisationGuarantee` says; readers that know nothing of watermarks miss nothing there either. PostgreSQL.

"row": publishes exclude each other within the log, a category or a stream, as the guarantee says, by locks on rows of a
table. What is wider than that cannot be read in order, and is refused. PostgreSQL and MariaDB.

SQLite has a single writer, so all of them are the same to writers there.
"""


class EventSerialisationGuarantee(Enum):
    """Within what events become visible in the order of their sequence numbers."""

    LOG = "log"
    CATEGORY = "category"
    STREAM = "stream"


def checked_locking(locking: str) -> Locking:
    """Refuse a mode of locking that there is not.

    Raises:
        ConfigurationError: It is none of the modes.
    """
    match locking:
        case "fence" | "advisory" | "row":
            return locking
        case _:
            raise ConfigurationError(f"there is no locking mode {locking!r}: use 'fence', 'advisory' or 'row'")


def locking_mode(locking: Locking, guarantee: EventSerialisationGuarantee) -> LockingMode:
    """Put locking and guarantee together as storage wants them."""
    return LockingMode(locking, guarantee.value)
