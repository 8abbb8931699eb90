"""The one exception of this package: no PostgreSQL server could be provided, or not in the way asked for."""

from __future__ import annotations

__all__ = ["TemporaryPostgresError"]


class TemporaryPostgresError(Exception):
    """No server could be found or started, or a call cannot work; the message says what to do."""
