"""Version 1 of the event store's schema.

Revision ID: v1
Revises:
"""

import eventstore_sa.migrations  # noqa: F401
from alembic import context, op

revision = "v1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.eventstore_migrate(from_version=0, to_version=1, **named())


def downgrade() -> None:
    op.eventstore_migrate(from_version=1, to_version=0, **named())


def named() -> dict[str, str]:
    """Return what env.py was told about the names of the event store."""
    given = context.get_x_argument(as_dictionary=True)
    return {name: given[name] for name in ("prefix", "schema") if name in given}
