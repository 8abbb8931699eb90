"""Revisions as Alembic writes them for event stores, as type checkers see them: never run."""

from __future__ import annotations

from alembic import op
from eventstore_sa.migrations import eventstore_change_locking, eventstore_migrate, eventstore_repair


def upgrade() -> None:
    eventstore_migrate(from_version=0, to_version=1)
    eventstore_migrate(from_version=0, to_version=1, prefix="audit_", schema="events", locking="row/category")
    op.drop_table("orders")


def downgrade() -> None:
    # functions differ
    eventstore_repair(version=1, prefix="audit_")
    eventstore_change_locking(from_locking="fence", to_locking="row/log")


def a_locking_is_a_text() -> None:
    eventstore_migrate(from_version=0, to_version=1, locking=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
