"""What can be asked of a driver's connection without sending anything.

Drivers are asked only what SQLAlchemy does not know: it learns that a connection is closed when a statement fails.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

__all__ = ["is_closed"]


def is_closed(connection: Connection) -> bool:
    """Tell whether the driver's connection is known to be closed; False where the driver cannot tell, as with SQLite."""
    driver: Any = connection.connection.driver_connection
    return bool(driver.is_closed() if hasattr(driver, "is_closed") else getattr(driver, "closed", False))
