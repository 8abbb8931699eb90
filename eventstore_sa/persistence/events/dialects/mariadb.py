"""MariaDB: publishing by row locks; what differs from PostgreSQL in types and functions.

Names are kept as bytes, because text of a length that names may have fits no key.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Integer,
    cast,
    func,
    literal_column,
    text,
    type_coerce,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from eventstore_sa.persistence.events.dialects.row_locks import RowLocking
from eventstore_sa.persistence.transactions.databases import milliseconds

__all__ = ["MariaDBDialect"]

_TIMEOUTS: Final = ("lock_wait_timeout", "innodb_lock_wait_timeout")


class MariaDBDialect(RowLocking):
    """One event store on MariaDB."""

    def _insert_or_ignore(self) -> Insert:
        # Not INSERT IGNORE: that would take a shared lock on a row that is there, and two of them a deadlock later.
        rows = self._schema.locks
        return mysql.insert(rows).on_duplicate_key_update(last_position=rows.c.last_position)

    def _stored(self, text: ColumnElement[str], column_type: TypeEngine[Any]) -> ColumnElement[Any]:
        return text

    @contextmanager
    def locked_alone(self, connection: Connection, *, timeout_s: float) -> Generator[None]:
        """Limit the waits of the session; the statements of DDL within lock the tables themselves."""
        names = ", ".join(f"@@{name}" for name in _TIMEOUTS)
        before = connection.execute(text(f"SELECT {names}")).one()
        for name in _TIMEOUTS:
            connection.execute(text(f"SET SESSION {name} = :value"), {"value": ceil(milliseconds(timeout_s) / 1000)})
        try:
            yield
        finally:
            if not connection.invalidated:
                for name, value in zip(_TIMEOUTS, before, strict=True):
                    connection.execute(text(f"SET SESSION {name} = :value"), {"value": value})

    def read_time(self, value: datetime) -> datetime:
        """Add the time zone that the column does not keep; its type has no style either."""
        if not isinstance(value, datetime):
            # What drivers make of 0000-00-00, which a lax server stores.
            raise TypeError(f"it came as {type(value).__name__}")
        return value.replace(tzinfo=UTC)

    def event_size(self, events: FromClause) -> ColumnElement[int]:
        """Count the bytes of the text."""
        c = events.c
        metadata = func.coalesce(func.octet_length(c.metadata), literal_column("0"), type_=Integer())
        return func.octet_length(c.payload, type_=Integer()) + metadata

    def in_partition(self, partition: ColumnElement[int], partitions: ColumnElement[int]) -> ColumnElement[bool]:
        """Compute the hash in SQL, from the digest's first eight hexadecimal digits."""
        c = self._schema.events.c
        names = func.concat(c.category, literal_column("x'00'"), c.stream)
        digits = func.left(func.sha2(names, 256), 8)
        stream_hash = cast(func.conv(digits, 16, 10), mysql.BIGINT(unsigned=True))
        return type_coerce(stream_hash, BigInteger) % partitions == partition
