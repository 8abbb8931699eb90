"""The advisory locks of inline projections on PostgreSQL, as conditions of the statement that loads them.

They are acquired after the locks of events, in a fixed order: first a shared lock on the name of the projections, which a
rebuild takes exclusively; then exclusive locks on the ids of projections that several streams feed. Several ids can share a
lock. Projections of a single stream do not need the latter, because their stream is locked. A row that does not exist yet
cannot be locked, and rows that are created during a wait would be locked out of order; therefore these locks come before
row locks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    Select,
    Subquery,
    Text,
    bindparam,
    cast,
    column,
    false,
    func,
    literal,
    not_,
    select,
    table,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, OID, REGCLASS

from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.ddl import effective_schema, quoted
from eventstore_sa.types.codec import encode_json

__all__ = [
    "busy_ids",
    "id_locks",
    "is_wide",
    "lock_holders",
    "lock_parameters",
    "name_lock",
    "shared_name_lock",
    "wide_lock",
]

_MOST: Final = 100
"""With more ids than this, a publish locks the name exclusively: the server's lock table has a fixed size."""

_SLOTS: Final = 1024
"""How many locks the ids of one name share: a transaction with many publishes holds no more, and ids rarely collide."""

# Set for a transaction that holds locks on ids, and reset with the savepoint that acquired them.
_HELD: Final = ("eventstore_sa.projections", "held")

# So that stores do not share locks.
_SEED: Final = cast(cast(cast(bindparam("lock_table", type_=Text()), REGCLASS()), OID()), BigInteger())
_NAME: Final = bindparam("lock_name", type_=Text())
_NAME_KEY: Final = func.pg_catalog.hashtextextended(_NAME, _SEED, type_=BigInteger())
_LOCKS: Final = table(
    "pg_locks",
    *map(column, ("locktype", "classid", "objid", "pid")),
    column("objsubid", Integer()),
    column("granted", Boolean()),
)
_ACTIVITY: Final = table("pg_stat_activity", column("pid"), column("application_name"))


def lock_parameters(
    connection: Connection, schema: EventStoreSchema, name: str, ids: Collection[str] = ()
) -> Mapping[str, Any]:
    """Return the parameters of the conditions of this module."""
    return {
        "lock_table": quoted(schema.projections.name, effective_schema(connection, schema.schema)),
        "lock_name": f"n{name}",
        "lock_start": f"i{name}",
        "ids": encode_json(list(ids)).decode(),
    }


def shared_name_lock() -> ColumnElement[bool]:
    """Acquire the shared lock on the name; always true.

    A condition without columns is evaluated before any row is looked for.
    """
    return select(func.pg_catalog.count(func.pg_catalog.pg_advisory_xact_lock_shared(_NAME_KEY))).scalar_subquery() >= 0


def id_locks() -> ColumnElement[bool]:
    """Acquire the shared lock on the name, then the locks on the ids in a fixed order; always true."""
    keys = _keys_of_ids()
    held = func.pg_catalog.set_config(*map(literal, _HELD), true(), type_=Text()).is_not(None)
    return (
        select(func.pg_catalog.count(func.pg_catalog.pg_advisory_xact_lock(keys.c.key)))
        .where(shared_name_lock(), held)
        .scalar_subquery()
        >= 0
    )


def busy_ids() -> Executable:
    """Return whether the transaction already holds locks on ids. If so, lock those that are free, and count the others.

    A transaction that holds locks must not wait for more: the order is not the same in all transactions, so two could wait
    for each other.
    """
    keys, (setting, value) = _keys_of_ids(), _HELD
    is_free = func.pg_catalog.pg_try_advisory_xact_lock(keys.c.key, type_=Boolean())
    holds_others = func.coalesce(
        func.pg_catalog.current_setting(literal(setting), true(), type_=Text()) == literal(value), false()
    )
    busy = func.count().filter(not_(is_free))
    return select(holds_others.label("holds_others"), busy.label("busy")).select_from(keys).where(holds_others)


def _keys_of_ids() -> Subquery:
    given = func.pg_catalog.jsonb_array_elements_text(cast(bindparam("ids", type_=Text()), JSONB())).column_valued(
        "given"
    )
    first = func.pg_catalog.hashtextextended(bindparam("lock_start", type_=Text()), _SEED, type_=BigInteger())
    slot = func.pg_catalog.hashtextextended(given, literal(0, BigInteger()), type_=BigInteger()).op("&")(
        literal(_SLOTS - 1, BigInteger())
    )
    key = first.op("#")(slot).label("key")
    return select(key).distinct().order_by(key).subquery("keys")


def name_lock() -> ColumnElement[Any]:
    """Acquire the exclusive lock on the name."""
    return func.pg_catalog.pg_advisory_xact_lock(_NAME_KEY)


def lock_holders() -> Select[tuple[str]]:
    """Describe the processes that hold the lock on the name."""
    lock, activity = _LOCKS, _ACTIVITY
    key = cast(lock.c.classid, BigInteger).op("<<")(literal(32, Integer())).op("|")(cast(lock.c.objid, BigInteger))
    process = func.pg_catalog.concat("process ", lock.c.pid, " (", activity.c.application_name, ")")
    return (
        select(func.pg_catalog.string_agg(process, ", "))
        .select_from(lock.outerjoin(activity, activity.c.pid == lock.c.pid))
        .where(
            lock.c.locktype == "advisory",
            lock.c.objsubid == 1,
            lock.c.granted,
            key == _NAME_KEY,
            lock.c.pid != func.pg_catalog.pg_backend_pid(),
        )
    )


def is_wide(ids: Collection[str]) -> bool:
    """Return whether there are so many ids that their name is locked instead."""
    return len(ids) > _MOST


def wide_lock(connection: Connection, schema: EventStoreSchema, name: str) -> ColumnElement[bool]:
    """Acquire the exclusive lock on the name, within a time limit; always true.

    Raises:
        DBAPIError: When executed, if the lock could not be acquired in time.
    """
    schema_name = effective_schema(connection, schema.schema)
    lock: Any = getattr(func if schema_name is None else getattr(func, schema_name), f"{schema.prefix}lock_widely_v1")
    locked = cast(literal(f"projections {name!r}", Text()), Text())
    return select(func.pg_catalog.count(lock(_NAME_KEY, locked))).scalar_subquery() >= 0
