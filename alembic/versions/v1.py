"""Version 1 of the event store's schema.

Revision ID: v1
Revises:
"""

from alembic import context
from eventstore_sa.migrations import eventstore_migrate

revision = "v1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    eventstore_migrate(from_version=0, to_version=1, **named())


def downgrade() -> None:
    eventstore_migrate(from_version=1, to_version=0, **named())


def named() -> dict[str, str]:
    """Return the options of the event store that were passed to env.py."""
    given = context.get_x_argument(as_dictionary=True)
    return {name: given[name] for name in ("prefix", "schema", "locking") if name in given}
