"""What is wrong with an event store and with the server around it, each finding with its remedy. It only reads.

`verify_schema` says whether a store may be used at all; this goes on from there, to what makes it slow, stuck or fragile in
operation. Each check is a generator of findings; one that the role is not allowed to make is a finding itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from eventstore_sa.errors import EventStoreError, SchemaError
from eventstore_sa.persistence.events.dialects import event_dialect
from eventstore_sa.persistence.inspection.indexes import INSPECTION_INDEXES, creation_of, index_name
from eventstore_sa.persistence.inspection.servers import server_of
from eventstore_sa.persistence.schema import EventStoreSchema, schema_or_default, verify_schema
from eventstore_sa.persistence.schema.ddl import effective_schema, quoted

__all__ = ["Finding", "Severity", "diagnose"]

_LONG_OPEN: Final = timedelta(minutes=1)
_LAGGING: Final = timedelta(minutes=5)
_MANY_EVENTS: Final = 1_000_000
_MANY_DEAD_ROWS: Final = 10_000
_OLD_TRANSACTIONS: Final = 1_000_000_000

_SETTINGS: Final = (
    "default_transaction_isolation",
    "synchronous_commit",
    "session_replication_role",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
)
_BACKENDS: Final = text(
    "SELECT a.pid, a.application_name, a.state, pg_catalog.now() - a.xact_start FROM pg_catalog.pg_stat_activity a "
    "WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid() "
    "AND a.state LIKE 'idle in transaction%' AND a.xact_start < pg_catalog.now() - CAST(:age AS interval) "
    "ORDER BY a.xact_start"
)
_PREPARED: Final = text(
    "SELECT p.gid, pg_catalog.now() - p.prepared FROM pg_catalog.pg_prepared_xacts p "
    "WHERE p.database = pg_catalog.current_database() AND p.prepared < pg_catalog.now() - CAST(:age AS interval)"
)
_GRANTS: Final = text(
    "SELECT c.relname, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(acl.grantee)::text END, "
    "pg_catalog.string_agg(acl.privilege_type::text, ', ' ORDER BY acl.privilege_type) "
    "FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) acl "
    "WHERE acl.grantee <> c.relowner AND ("
    "(c.oid IN (pg_catalog.to_regclass(:events), pg_catalog.to_regclass(:event_tags)) "
    "AND acl.privilege_type IN ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')) "
    "OR (c.oid = pg_catalog.pg_get_serial_sequence(:events, 'sequence_number')::regclass "
    "AND acl.privilege_type IN ('UPDATE', 'USAGE'))) GROUP BY 1, 2 ORDER BY 1, 2"
)
_UNREADABLE: Final = text(
    "SELECT name FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name "
    "WHERE pg_catalog.to_regclass(name) IS NOT NULL AND NOT pg_catalog.has_table_privilege(name, 'SELECT')"
)
_INVALID: Final = text(
    "SELECT i.indexrelid::regclass::text FROM pg_catalog.pg_index i WHERE NOT i.indisvalid "
    "AND i.indrelid IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name)"
)
_MAINTENANCE: Final = text(
    "SELECT c.relname, s.n_live_tup, s.n_dead_tup, c.reltuples, pg_catalog.age(c.relfrozenxid) "
    "FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid "
    "WHERE c.oid IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(CAST(:tables AS text[])) AS name) "
    "ORDER BY c.relname"
)

_FIELDS: Final = {"correlation": "correlation ids", "time": "the times at which events were recorded"}


class Severity(Enum):
    """How bad something is."""

    PROBLEM = "problem"
    """Events can be lost or missed, or something stands still."""
    WARNING = "warning"
    """It will be a problem, or is one for somebody."""
    HINT = "hint"
    """It could be better."""


class Finding(Struct, frozen=True):
    """Something that is not as it should be.

    Attributes:
        severity: How bad it is.
        subject: What it is about: "schema", "privileges", "isolation", "pooler", "transactions", "indexes", "maintenance",
            "subscriptions" or "database".
        problem: What was found.
        remedy: What to do.
    """

    severity: Severity
    subject: str
    problem: str
    remedy: str


Check = Callable[[Connection, EventStoreSchema], Iterator[Finding]]


def diagnose(connection: Connection, *, schema: EventStoreSchema | None = None) -> list[Finding]:
    """Return what is wrong with an event store, worst first; with asyncio: `await connection.run_sync(diagnose)`.

    It only reads, and works with the privileges of a reader; some checks see more with `pg_read_all_stats`. Run it on a
    connection whose transaction nobody else uses: a check that fails is rolled back.

    Args:
        connection: A connection to the database.
        schema: The event store; that of `EventStoreSchema()` by default.
    """
    store = schema_or_default(schema)
    found = [*_schema(connection, store)]
    if any(finding.severity is Severity.PROBLEM and finding.subject == "absence" for finding in found):
        return [Finding(each.severity, "schema", each.problem, each.remedy) for each in found]
    checks: list[tuple[str, Check]] = [("subscriptions", _subscriptions)]
    if connection.dialect.name == "postgresql":
        checks += [
            ("privileges", _privileges),
            ("isolation", _settings),
            ("pooler", _pooler),
            ("transactions", _transactions),
            ("indexes", _indexes),
            ("maintenance", _maintenance),
        ]
    elif connection.dialect.name == "sqlite":
        checks.append(("database", _sqlite))
    for subject, check in checks:
        found += _checked(connection, store, subject, check)
    order = [*Severity]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _checked(connection: Connection, schema: EventStoreSchema, subject: str, check: Check) -> list[Finding]:
    try:
        with connection.begin_nested():
            return [*check(connection, schema)]
    except (DBAPIError, EventStoreError) as error:
        said = error.message if isinstance(error, EventStoreError) else str(error.orig).partition("\n")[0]
        remedy = "grant this role what docs/roles.md says, or use another role"
        return [Finding(Severity.WARNING, subject, f"this could not be checked: {said}", remedy)]


def _schema(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    place = effective_schema(connection, schema.schema)
    absent = not inspect(connection).has_table(schema.version.name, schema=place)
    try:
        with connection.begin_nested():
            verify_schema(connection, schema=schema)
    except SchemaError as error:
        remedy = "follow the message, which names the commands"
        yield Finding(Severity.PROBLEM, "absence" if absent else "schema", error.message, remedy)


def _names(connection: Connection, schema: EventStoreSchema) -> dict[str, Any]:
    place = effective_schema(connection, schema.schema)
    return {
        "events": quoted(schema.events.name, place),
        "event_tags": quoted(schema.event_tags.name, place),
        "tables": [quoted(table.name, place) for table in schema.tables],
    }


def _given(statement: Any, names: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if name in statement.compile().params}


def _privileges(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    names = _names(connection, schema)
    unreadable = [*connection.scalars(_UNREADABLE, _given(_UNREADABLE, names))]
    if unreadable:
        yield Finding(
            Severity.WARNING,
            "privileges",
            f"this role may not read {', '.join(unreadable)}",
            f"GRANT SELECT ON {', '.join(unreadable)} TO the role, see docs/roles.md",
        )
    for table, role, privileges in connection.execute(_GRANTS, _given(_GRANTS, names)):
        yield Finding(
            Severity.WARNING,
            "privileges",
            f"role {role} has {privileges} on {table}: it can break what readers and writers rely on",
            f"REVOKE {privileges} ON {quoted(table, effective_schema(connection, schema.schema))} FROM {role}",
        )


def _settings(connection: Connection, _: EventStoreSchema) -> Iterator[Finding]:
    settings = {name: connection.scalar(select(func.pg_catalog.current_setting(name))) for name in _SETTINGS}
    isolation = settings["default_transaction_isolation"]
    if isolation not in ("read committed", "read uncommitted"):
        yield Finding(
            Severity.WARNING,
            "isolation",
            f"the default isolation level here is {isolation}: publishes within sessions are refused, and stores on engines "
            "need a statement more",
            "ALTER ROLE or ALTER DATABASE ... SET default_transaction_isolation = 'read committed', and ask for another "
            "level where it is needed",
        )
    if settings["session_replication_role"] == "replica":
        yield Finding(
            Severity.PROBLEM,
            "isolation",
            "session_replication_role is replica, so the triggers that keep readers complete do not fire",
            "reset it for every role that publishes",
        )
    if settings["synchronous_commit"] == "off":
        yield Finding(
            Severity.WARNING,
            "database",
            "synchronous_commit is off: after a crash, events that readers have acted on can be gone",
            "set it to on for roles that publish",
        )
    for name in ("fsync", "full_page_writes"):
        if settings[name] == "off":
            yield Finding(
                Severity.PROBLEM,
                "database",
                f"{name} is off: a crash of the server can lose or damage events",
                f"set {name} to on",
            )
    if settings["idle_in_transaction_session_timeout"] in ("0", "0ms"):
        yield Finding(
            Severity.HINT,
            "transactions",
            "idle_in_transaction_session_timeout is not set here: a forgotten transaction holds readers back for ever",
            "ALTER ROLE ... SET idle_in_transaction_session_timeout = '60s' for the roles of your application",
        )
    if connection.scalar(select(func.pg_catalog.pg_is_in_recovery())):
        yield Finding(
            Severity.PROBLEM,
            "database",
            "this server is a standby, which cannot tell how far the log is complete",
            "read the log and categories on the primary",
        )


def _pooler(connection: Connection, _: EventStoreSchema) -> Iterator[Finding]:
    driver: Any = connection.connection.driver_connection
    if connection.dialect.driver == "asyncpg":
        known = driver.get_server_pid()
    else:
        known = getattr(getattr(driver, "info", None), "backend_pid", None)
    if known is not None and known != connection.scalar(select(func.pg_catalog.pg_backend_pid())):
        yield Finding(
            Severity.HINT,
            "pooler",
            "this connection goes through a pooler",
            "in session mode it needs no setting; in transaction mode, set the driver as docs/databases.md says",
        )


def _transactions(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    holders: set[int | str | None] = set()
    if schema.locking_mode.has_watermark:
        report = server_of(schema, "postgresql").watermark(connection)
        now = datetime.now(UTC)
        for holder in report.holders:
            name = holder.application_name if holder.pid is None else holder.pid
            holders.add(name)
            if holder.since is not None and now - holder.since < _LONG_OPEN:
                continue
            who = (
                f"prepared transaction {name!r}"
                if holder.pid is None
                else f"process {name} ({holder.application_name!r})"
            )
            since = "" if holder.since is None else f" since {holder.since:%Y-%m-%d %H:%M:%S} UTC"
            yield Finding(
                Severity.PROBLEM,
                "transactions",
                f"{who} has had a transaction open{since} and holds all readers of the log back at number "
                f"{holder.sequence_number} of {report.last_number}",
                f"COMMIT PREPARED or ROLLBACK PREPARED '{name}'"
                if holder.pid is None
                else f"end that transaction, or SELECT pg_terminate_backend({name})",
            )
    for pid, application, state, age in connection.execute(_BACKENDS, {"age": _LONG_OPEN}):
        if pid not in holders:
            yield Finding(
                Severity.WARNING,
                "transactions",
                f"process {pid} ({application!r}) has been {state} for {age}, which keeps rows from being cleaned up",
                f"end that transaction, or SELECT pg_terminate_backend({pid})",
            )
    for gid, age in connection.execute(_PREPARED, {"age": _LONG_OPEN}):
        if gid not in holders:
            yield Finding(
                Severity.WARNING,
                "transactions",
                f"transaction {gid!r} has been prepared for {age}: it keeps its locks, and rows from being cleaned up",
                f"COMMIT PREPARED or ROLLBACK PREPARED '{gid}'",
            )


def _indexes(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    place = effective_schema(connection, schema.schema)
    for index in connection.scalars(_INVALID, _given(_INVALID, _names(connection, schema))):
        yield Finding(
            Severity.WARNING,
            "indexes",
            f"index {index} is invalid: every write pays for it, and no read uses it",
            f"REINDEX INDEX CONCURRENTLY {index}, or drop it",
        )
    catalogue = inspect(connection)
    for table in schema.tables:
        existing = {index["name"] for index in catalogue.get_indexes(table.name, place)}
        for index in table.indexes:
            if str(index.name) not in existing:
                yield Finding(
                    Severity.PROBLEM,
                    "indexes",
                    f"index {index.name} of table {table.name} is missing: reads go through all of the table",
                    f"execute: {creation_of(index)}",
                )
    server = server_of(schema, "postgresql")
    events = server.estimated_events(connection) or 0
    if events >= _MANY_EVENTS:
        for field in INSPECTION_INDEXES:
            if not server.has_index(connection, index_name(field, schema.prefix)):
                yield Finding(
                    Severity.HINT,
                    "indexes",
                    f"there are about {events} events, and no index for {_FIELDS[field]}",
                    f"if you often look for them, execute what `eventstore-sa schema index {field}` prints; every "
                    "publish then pays for it",
                )


def _maintenance(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    place = effective_schema(connection, schema.schema)
    for table, live, dead, known, age in connection.execute(
        _MAINTENANCE, _given(_MAINTENANCE, _names(connection, schema))
    ):
        name = quoted(table, place)
        if dead is not None and dead > _MANY_DEAD_ROWS and dead > (live or 0) / 4:
            yield Finding(
                Severity.WARNING,
                "maintenance",
                f"table {table} has {dead} dead rows beside {live} live ones",
                f"VACUUM {name}; and see whether autovacuum is on, and which open transaction holds it back",
            )
        if known < 0 and (live or 0) > _MANY_DEAD_ROWS:
            yield Finding(
                Severity.HINT, "maintenance", f"the planner has no statistics of table {table}", f"ANALYZE {name}"
            )
        if age > _OLD_TRANSACTIONS:
            yield Finding(
                Severity.WARNING,
                "maintenance",
                f"table {table} was last frozen {age} transactions ago; the server stops at two billion",
                f"VACUUM (FREEZE) {name}",
            )


def _sqlite(connection: Connection, _: EventStoreSchema) -> Iterator[Finding]:
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    if mode not in ("wal", "memory"):
        yield Finding(
            Severity.HINT,
            "database",
            f"the journal mode of this file is {mode}: readers and writers wait for each other",
            "call configure_sqlite(engine), which sets WAL",
        )


def _subscriptions(connection: Connection, schema: EventStoreSchema) -> Iterator[Finding]:
    dialect = event_dialect(connection.dialect.name, schema)
    c = schema.subscriptions.c
    last = dialect.last_number(connection)
    now = datetime.now(UTC)
    rows = connection.execute(
        select(c.name, c.partition, c.status, c.sequence_number, c.owner, dialect.time_column(c.moved_at)).order_by(
            c.name, c.partition
        )
    )
    for name, partition, status, number, owner, moved_at in rows:
        behind = last - number
        since = dialect.read_time(moved_at)
        where = f"partition {partition} of subscription {name!r}"
        if status == "stopped":
            yield Finding(
                Severity.PROBLEM,
                "subscriptions",
                f"{where} has stopped after an error, {behind} numbers behind",
                "see its last error with `eventstore-sa subscriptions list`, and resume it",
            )
        elif status == "paused":
            yield Finding(
                Severity.HINT,
                "subscriptions",
                f"{where} is paused, {behind} numbers behind",
                "resume it when that is over",
            )
        elif behind > 0 and now - since > _LAGGING:
            who = "no process runs it" if owner is None else "the process that runs it does not get on"
            yield Finding(
                Severity.WARNING,
                "subscriptions",
                f"{where} has been {behind} numbers behind since {since:%Y-%m-%d %H:%M:%S} UTC: {who}",
                "run it with `eventstore-sa run`" if owner is None else "see the log of that process",
            )
    parked = schema.parked_events
    counted = (
        select(parked.c.subscription, func.count()).group_by(parked.c.subscription).order_by(parked.c.subscription)
    )
    for name, count in connection.execute(counted):
        yield Finding(
            Severity.WARNING,
            "subscriptions",
            f"subscription {name!r} keeps {count} events aside",
            "see `eventstore-sa subscriptions parked`, repair the cause, and replay them",
        )
