"""Alembic for the event store: `import eventstore_sa.migrations` in the host's `env.py` is all that it needs.

The import registers `op.eventstore_migrate` and `op.eventstore_repair`, how they are written into revisions, and the
comparison that makes `alembic revision --autogenerate` and `alembic check` find them. Nobody in this package imports it.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("alembic") is None:
    raise ImportError("eventstore_sa.migrations needs Alembic: install it with the extra 'eventstore-sa[alembic]'")

from eventstore_sa.migrations import comparison as comparison  # registers itself
from eventstore_sa.migrations.operations import MigrateOp, MigrationError, RepairOp

__all__ = ["MigrateOp", "MigrationError", "RepairOp"]
