"""Alembic support for the event store: it only needs `import eventstore_sa.migrations` in the host's `env.py`.

The import registers the operations, how they are written into revisions, and the comparison that makes `alembic revision
--autogenerate` and `alembic check` detect them. No other module of the package imports this one.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec

if find_spec("alembic") is None:
    raise ImportError("eventstore_sa.migrations needs Alembic: install it with the extra 'eventstore-sa[alembic]'")
if tuple(map(int, re.findall(r"\d+", version("alembic"))[:2])) < (1, 16):
    raise ImportError(
        f"eventstore_sa.migrations needs Alembic 1.16 or newer, but {version('alembic')} is installed: upgrade it with "
        "the extra 'eventstore-sa[alembic]'"
    )

from eventstore_sa.migrations import comparison as comparison  # registers itself
from eventstore_sa.migrations.directives import (
    eventstore_change_locking,
    eventstore_migrate,
    eventstore_repair,
)
from eventstore_sa.migrations.operations import ChangeLockingOp, MigrateOp, MigrationError, RepairOp

__all__ = [
    "ChangeLockingOp",
    "MigrateOp",
    "MigrationError",
    "RepairOp",
    "eventstore_change_locking",
    "eventstore_migrate",
    "eventstore_repair",
]
