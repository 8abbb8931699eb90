"""The advisory locks of inline projections on PostgreSQL, as conditions of the statement that loads them.

They come after the locks of events, in one order: shared on the name of the projections, which a rebuild takes exclusively,
then exclusive on the ids of those that several streams feed, of which some share a lock. Those of one stream each need none
of the latter, because their stream is locked. A row that is not there yet cannot be locked, and rows that are created while
others are waited for would be locked out of order; hence these locks in front of the locks on rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, auto
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
    "LockOn",
    "busy_ids",
    "is_wide",
    "lock_condition",
    "lock_holders",
    "lock_parameters",
    "name_lock",
    "wide_lock",
]

_MOST: Final = 100
"""From more ids on, a publish locks the name exclusively: the server's lock table is of a fixed size."""

_PLACES: Final = 1024
"""How many locks the ids of one name share: a transaction of many publishes holds no more, and two ids seldom meet."""

# Set for a transaction that holds locks on ids, and gone with the savepoint that took them.
_HELD: Final = ("eventstore_sa.projections", "held")

# So that stores do not meet.
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


class LockOn(Enum):
    """What a publish locks of projections, besides those that are there."""

    NAME = auto()
    """Their name, shared: whoever publishes to them has locked their streams."""

    IDS = auto()
    """Also their ids, because publishes to different streams change the same ones."""


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


def lock_condition(lock: LockOn) -> ColumnElement[bool]:
    """Demand locks, in their order; always true. A condition without columns is evaluated before any row is looked for."""
    shared = (
        select(func.pg_catalog.count(func.pg_catalog.pg_advisory_xact_lock_shared(_NAME_KEY))).scalar_subquery() >= 0
    )
    if lock is LockOn.NAME:
        return shared
    keys = _keys_of_ids()
    held = func.pg_catalog.set_config(*map(literal, _HELD), true(), type_=Text()).is_not(None)
    return (
        select(func.pg_catalog.count(func.pg_catalog.pg_advisory_xact_lock(keys.c.key)))
        .where(shared, held)
        .scalar_subquery()
        >= 0
    )


def busy_ids() -> Executable:
    """Tell whether the transaction has locked ids before; then lock ids as far as that needs no waiting, and count the rest.

    Whoever holds locks and waits for more, in another order than others, may wait for one who waits for them.
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
    place = func.pg_catalog.hashtextextended(given, literal(0, BigInteger()), type_=BigInteger()).op("&")(
        literal(_PLACES - 1, BigInteger())
    )
    key = first.op("#")(place).label("key")
    return select(key).distinct().order_by(key).subquery("keys")


def name_lock() -> ColumnElement[Any]:
    """Take the exclusive lock on the name."""
    return func.pg_catalog.pg_advisory_xact_lock(_NAME_KEY)


def lock_holders() -> Select[tuple[str]]:
    """Tell who holds the lock on the name, in words."""
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
    """Tell whether these are so many ids that their name is locked in their place."""
    return len(ids) > _MOST


def wide_lock(connection: Connection, schema: EventStoreSchema, name: str) -> ColumnElement[bool]:
    """Demand the exclusive lock on the name, which is tried until the deadline; always true.

    Raises:
        DBAPIError: When it is executed, and the lock could not be acquired in time.
    """
    place = effective_schema(connection, schema.schema)
    lock: Any = getattr(func if place is None else getattr(func, place), f"{schema.prefix}lock_widely_v1")
    locked = cast(literal(f"projections {name!r}", Text()), Text())
    return select(func.pg_catalog.count(lock(_NAME_KEY, locked))).scalar_subquery() >= 0
