"""The advisory locks of inline projections on PostgreSQL, as conditions of the statement that loads them.

They come after the locks of events, in one order: shared on the name of the projections, which a rebuild takes exclusively,
then exclusive on the ids of those that several streams feed. Those of one stream each need none of the latter, because
their stream is locked. A row that is not there yet cannot be locked, and rows that are created while others are waited for
would be locked out of order; hence these locks in front of the locks on rows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Text, cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, OID, REGCLASS

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, quoted
from eventstore_sa.types.codec import encode_json

__all__ = ["id_locks", "name_key", "name_lock"]

_MOST: Final = 32
"""From so many ids on, a publish locks the name exclusively: the server's lock table is of a fixed size."""


def name_lock(connection: Connection, schema: EventStoreSchema, name: str) -> ColumnElement[bool]:
    """Demand the shared lock on the name of projections; always true."""
    taken = func.count(func.pg_advisory_xact_lock_shared(name_key(connection, schema, name)))
    return select(taken).scalar_subquery() >= 0


def id_locks(connection: Connection, schema: EventStoreSchema, name: str, ids: Collection[str]) -> ColumnElement[bool]:
    """Demand the shared lock on the name, then exclusive ones on ids; always true."""
    if len(ids) > _MOST:
        function = f"{schema.prefix}lock_widely_v1"
        place = effective_schema(connection, schema.schema)
        lock: Any = getattr(func if place is None else getattr(func, place), function)
        widely = lock(name_key(connection, schema, name), cast(literal(f"projections {name!r}", Text()), Text()))
        return select(func.count(widely)).scalar_subquery() >= 0
    document = cast(literal(encode_json(list(ids)).decode(), Text()), JSONB())
    given = func.jsonb_array_elements_text(document).column_valued("given")
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    start = literal(f"i{len(name)}:{name}", Text())
    key = func.hashtextextended(start.op("||")(given), _seed(connection, schema)).label("key")
    keys = select(key).distinct().order_by(key).subquery("keys")
    taken = select(func.count(func.pg_advisory_xact_lock(keys.c.key))).where(name_lock(connection, schema, name))
    return taken.scalar_subquery() >= 0


def name_key(connection: Connection, schema: EventStoreSchema, name: str) -> ColumnElement[int]:
    """Return the key of the lock on the name of projections."""
    return func.hashtextextended(literal(f"n{name}", Text()), _seed(connection, schema), type_=BigInteger())


def _seed(connection: Connection, schema: EventStoreSchema) -> ColumnElement[int]:
    """Return the oid of the table of projections, so that stores do not meet."""
    table = quoted(schema.projections.name, effective_schema(connection, schema.schema))
    return cast(cast(cast(literal(table, Text()), REGCLASS()), OID()), BigInteger())
