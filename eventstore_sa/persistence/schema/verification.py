"""Checks at startup that the database has what this version of the library needs.

Everything is checked that can be checked without writing: tables, version, functions and triggers (`drift`), and whatever
could make them unsafe (`safety`). Alembic's comparison also looks at columns and indexes.
"""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import ProgrammingError

from eventstore_sa.errors import ConfigurationError, SchemaError
from eventstore_sa.persistence.schema.ddl import MARIADB
from eventstore_sa.persistence.schema.drift import differences
from eventstore_sa.persistence.schema.encoding import wrong_encoding
from eventstore_sa.persistence.schema.listeners import site_on
from eventstore_sa.persistence.schema.locking import FENCE
from eventstore_sa.persistence.schema.recorded_locking import NO_VERSION
from eventstore_sa.persistence.schema.safety import unsafe_parts
from eventstore_sa.persistence.schema.schema import EventStoreSchema, schema_or_default
from eventstore_sa.persistence.schema.versions import Site, latest, locking_change

__all__ = ["installed_version", "verify_schema"]


def verify_schema(connection: Connection, *, schema: EventStoreSchema | None = None) -> None:
    """Check that the tables, functions and triggers of an event store exist and fit this version of the library.

    It only reads. With asyncio: `await async_connection.run_sync(verify_schema)`.

    Args:
        connection: A connection to the database.
        schema: The event store; that of `EventStoreSchema()` by default.

    Raises:
        SchemaError: If something is missing, of another version, changed, or not safe. The message names it, and the
            commands that fix it, with Alembic and without.
        ConfigurationError: If `connection` is not a Connection.
    """
    checked: object = connection
    if not isinstance(checked, Connection):
        raise ConfigurationError(
            f"verify_schema takes a Connection; got {type(checked).__name__}: write `with engine.connect() as connection: "
            "verify_schema(connection)`, or with asyncio `await async_connection.run_sync(verify_schema)`"
        )
    try:
        _verify(connection, schema_or_default(schema))
    except ProgrammingError as error:
        (said, *_) = str(error.orig).splitlines()
        raise SchemaError(
            f"could not inspect the event store ({said}): grant this role SELECT on its tables and on their sequences, "
            "or verify with another role"
        ) from error.orig


def _verify(connection: Connection, expected: EventStoreSchema) -> None:
    wrong_text = wrong_encoding(connection)
    if wrong_text is not None:
        raise SchemaError(wrong_text)
    site = site_on(connection, expected.prefix, expected.schema)
    try:
        expected.locking_record.check_database(connection)
    except ConfigurationError as error:
        raise SchemaError(error.message) from error
    version, needed = installed_version(connection, expected), latest().number
    if version > needed:
        raise SchemaError(
            f"the event store's schema has version {version}, but this version of the library needs {needed}: install "
            "the version of eventstore-sa that created it"
        )
    missing = _missing_tables(connection, expected, site)
    if version == needed and missing:
        raise SchemaError(
            f"the event store's tables {', '.join(missing)} are missing, although version {version} has them: restore them "
            "from a backup, or create them with store.create_schema() or metadata.create_all(), which keep the other tables"
        )
    if version < needed:
        found = (
            f"the event store's tables {', '.join(missing)} are missing"
            if version == 0
            else f"the event store's schema has version {version}, but this version of the library needs {needed}"
        )
        raise SchemaError(f"{found}: {_migrate(version, needed, expected, site)}")
    wrong = [*differences(connection, site, needed)]
    locking = [*_other_locking(connection, expected, site)]
    if wrong or locking:
        remedy = f". {_repair(site)}" if wrong else ""
        raise SchemaError(f"the event store's schema is not as it should be: {'; '.join([*wrong, *locking])}{remedy}")
    unsafe = [*unsafe_parts(connection, expected, site)] if site.database == "postgresql" else []
    if unsafe:
        raise SchemaError(f"the event store is not safe to use: {'; '.join(unsafe)}")


def installed_version(connection: Connection, schema: EventStoreSchema) -> int:
    """Return the version of the schema in the database, or 0 if there is none.

    Raises:
        SchemaError: If there are tables of the event store, but no record of their version.
    """
    site = site_on(connection, schema.prefix, schema.schema)
    missing = _missing_tables(connection, schema, site)
    if schema.version.name in missing:
        if len(missing) == len(schema.tables):
            return 0
        version: int | None = None
    else:
        version = connection.scalar(select(func.max(schema.version.c.version)))
    if version is None:
        raise SchemaError(NO_VERSION.format(table=schema.version.name))
    return version


def _missing_tables(connection: Connection, schema: EventStoreSchema, site: Site) -> list[str]:
    existing = set(inspect(connection).get_table_names(schema=site.schema))
    return [table.name for table in schema.tables if table.name not in existing]


def _migrate(version: int, needed: int, expected: EventStoreSchema, site: Site) -> str:
    recorded = expected.locking_mode.recorded
    locking = f" --locking {quote(recorded)}" if version == 0 and recorded != FENCE.recorded else ""
    return (
        "with Alembic, run `alembic revision --autogenerate` once for your project, then `alembic upgrade head`; without "
        f"it, execute what `eventstore-sa schema sql --from {version} --to {needed}{_options(site)}{locking}` prints"
        + ("; in development and tests, store.create_schema() or metadata.create_all()" if version == 0 else "")
    )


def _repair(site: Site) -> str:
    return (
        "Repair it first: with Alembic by `alembic revision --autogenerate` and `alembic upgrade head`, without it by "
        f"executing what `eventstore-sa schema repair{_options(site)}` prints"
    )


def _options(site: Site) -> str:
    return (
        f" --dialect {'mariadb' if site.database in MARIADB else site.database}"
        + (f" --prefix {quote(site.prefix)}" if site.prefix != "es_" else "")
        + (f" --schema {quote(site.schema)}" if site.schema is not None else "")
    )


def _other_locking(connection: Connection, expected: EventStoreSchema, site: Site) -> Iterator[str]:
    recorded, wanted = connection.scalar(select(expected.version.c.locking)), expected.locking_mode.recorded
    if recorded != wanted:
        yield (
            f"it records locking {recorded!r}, but this EventStoreSchema has {wanted!r}: give it that locking and "
            "serialisation_guarantee; or, to change it for all stores, end every writer, then run `alembic revision "
            f"--autogenerate` and `alembic upgrade head`, or execute {'; '.join(locking_change(wanted, site))}"
        )
