"""The command line: manages the schema of an event store without Alembic, and checks how its event types change.

See `eventstore-sa --help`. It needs the extra `cli`. Scripts can rely on the exit codes:

    0  success: the schema is correct, the event types are compatible
    1  the schema is missing, of another version, or not as it should be; or the types are not as the file says
    2  the command was called incorrectly
    3  the database could not be reached, or refused
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.mysql import mariadb
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.errors import ConfigurationError, SchemaError
from eventstore_sa.importing import imported
from eventstore_sa.persistence.schema import SCHEMA_VERSION, EventStoreSchema, verify_schema, versions
from eventstore_sa.persistence.schema.locking import (
    FENCE,
    EventSerialisationGuarantee,
    RecordedLocking,
    recorded_locking_mode,
)
from eventstore_sa.persistence.schema.versions import Site, is_outside_transactions, migration, repair
from eventstore_sa.types import EventTypes
from eventstore_sa.types.type_history import described, incompatible_changes

try:
    import click

    from eventstore_sa.store.commands import backfill_tags_command
    from eventstore_sa.subscriptions.commands import run_command, subscriptions
except ImportError as _error:
    raise ImportError("the command line needs click: install it with the extra 'eventstore-sa[cli]'") from _error

__all__ = ["main"]

_WRONG: Final = 1
_REFUSED: Final = 3

_DIALECTS: Final[dict[str, Any]] = {
    "mariadb": mariadb.MariaDBDialect,
    "postgresql": postgresql.dialect,
    "sqlite": sqlite.dialect,
}


def _checked_locking(_: click.Context, __: click.Parameter, locking: str) -> RecordedLocking:
    try:
        return recorded_locking_mode(locking).recorded
    except ConfigurationError as error:
        raise click.BadParameter(error.message) from error


_prefix: Final = click.option(
    "--prefix", default="es_", show_default=True, help="The prefix of the names of its tables."
)
_schema: Final = click.option("--schema", help="Its database schema. [default: determined by the search path]")
_locking: Final = click.option(
    "--locking",
    callback=_checked_locking,
    default=FENCE.recorded,
    show_default=True,
    help="How its writers exclude each other, at which level, and which tags are labels: 'fence', 'advisory/log', "
    "'fence labels=tenant:'.",
)
_dialect: Final = click.option("--dialect", type=click.Choice(sorted(_DIALECTS)), required=True, help="The database.")


@click.group()
@click.version_option(package_name="eventstore-sa", message="%(version)s")
def main() -> None:
    """Manage an event store."""


main.add_command(backfill_tags_command)
main.add_command(subscriptions)
main.add_command(run_command)


@main.group()
def schema() -> None:
    """Create, change and check the tables, functions and triggers of an event store without Alembic."""


@schema.command()
@click.option("--from", "from_version", type=int, default=0, show_default=True, help="The installed version; 0: none.")
@click.option(
    "--to", "to_version", type=int, default=SCHEMA_VERSION, show_default=True, help="The version to migrate to."
)
@_dialect
@_prefix
@_schema
@_locking
def sql(
    *, from_version: int, to_version: int, dialect: str, prefix: str, schema: str | None, locking: RecordedLocking
) -> None:
    """Print the SQL that migrates an event store from one version to another; a migration down to 0 deletes all events."""
    site = Site(dialect, prefix, schema)
    if dialect == "mariadb" and from_version == 0 and not locking.startswith("row"):
        raise click.UsageError(f"MariaDB does not support locking {locking!r}: use --locking row/log")
    try:
        statements = [*migration(from_version, to_version, site, locking)]
    except SchemaError as error:
        raise click.UsageError(error.message) from error
    for version in versions.VERSIONS[from_version:to_version]:
        click.echo(f"-- To version {version.number}. Locks: {version.locks}")
    _print_script(statements, dialect)


@schema.command(name="repair")
@_dialect
@_prefix
@_schema
def repair_command(dialect: str, prefix: str, schema: str | None) -> None:
    """Print the SQL that restores the functions and triggers of the newest version of the schema."""
    _print_script(repair(SCHEMA_VERSION, Site(dialect, prefix, schema)), dialect)


@schema.command()
@click.argument("url")
@_prefix
@_schema
@_locking
@click.option("--json", "as_json", is_flag=True, help='Print {"ok": ..., "version": ..., "problem": ...}.')
@click.pass_context
def check(
    context: click.Context, *, url: str, prefix: str, schema: str | None, locking: RecordedLocking, as_json: bool
) -> None:
    """Check the event store in the database at URL, as the function `verify_schema` does. It only reads."""

    def end(code: int, problem: str | None) -> NoReturn:
        fine = f"The event store's schema is correct: version {SCHEMA_VERSION}."
        if as_json:
            click.echo(json.dumps({"ok": problem is None, "version": SCHEMA_VERSION, "problem": problem}))
        else:
            click.echo(problem or fine, err=problem is not None)
        context.exit(code)

    try:
        mode = recorded_locking_mode(locking)
        store = EventStoreSchema(
            prefix=prefix,
            schema=schema,
            locking=mode.locking,
            serialisation_guarantee=EventSerialisationGuarantee(mode.level),
            labels=mode.labels,
        )
        _verify(url, store)
    except (ArgumentError, NoSuchModuleError, ConfigurationError) as error:
        # A URL that cannot be parsed is not shown: it may contain a password.
        problem = "URL is not a valid SQLAlchemy URL, such as postgresql+psycopg://user@host/database"
        raise click.UsageError(str(error) if isinstance(error, ConfigurationError) else problem) from None
    except ImportError as error:
        raise click.UsageError(f"the driver of this URL is not installed: {error}") from error
    except SchemaError as error:
        end(_WRONG, error.message)
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        end(_REFUSED, f"could not query the database: {type(cause).__name__}: {cause}")
    end(0, None)


@main.group()
def types() -> None:
    """Check how event types change."""


@types.command(name="check")
@click.argument("where", metavar="MODULE:NAME")
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("event-types.json"),
    show_default=True,
    help="Where the types are described as they were; keep it with the code.",
)
@click.option(
    "--update", is_flag=True, help="Write the types to the file if they are compatible with it, or it is new."
)
@click.pass_context
def check_types(context: click.Context, *, where: str, file: Path, update: bool) -> None:
    """Check that the EventTypes at MODULE:NAME have not changed incompatibly without a new version."""
    now = described(_event_types(where))
    try:
        before: Any = json.loads(file.read_text(encoding="utf-8") if file.exists() else "{}")
        problems = incompatible_changes(before, now)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError(f"{file} does not hold the description of event types: {error!r}") from error
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo("Give these types a new version and an upcast, or undo the change.", err=True)
    elif update and before != now:
        file.write_text(json.dumps(now, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        click.echo(f"{file} is up to date now.")
        return
    elif before != now:
        click.echo(f"The types have changed compatibly, but {file} does not say so: run this with --update.", err=True)
    else:
        click.echo("The event types are as the file says.")
        return
    context.exit(_WRONG)


def _event_types(where: str) -> EventTypes[Any]:
    try:
        found = imported(where)
    except ConfigurationError as error:
        raise click.UsageError(error.message) from error
    if not isinstance(found, EventTypes):
        raise click.UsageError(f"{where!r} is a {type(found).__name__}, not EventTypes")
    types: EventTypes[Any] = found  # pyright: ignore[reportUnknownVariableType]
    return types


def _verify(url: str, store: EventStoreSchema) -> None:
    address = make_url(url)
    if address.get_dialect().is_async:
        asyncio.run(_verify_with_asyncio(url, store))
        return
    engine = create_engine(address, poolclass=NullPool)
    with engine.connect() as connection:
        verify_schema(connection, schema=store)


async def _verify_with_asyncio(url: str, store: EventStoreSchema) -> None:
    engine = create_async_engine(make_url(url), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(lambda sync_connection: verify_schema(sync_connection, schema=store))


def _print_script(statements: Iterable[ExecutableDDLElement], dialect: str) -> None:
    click.echo("\n\n".join(_script(statements, dialect)))


def _script(statements: Iterable[ExecutableDDLElement], database: str) -> Iterator[str]:
    """Yield a script in a transaction, which is interrupted for statements that cannot be part of one."""
    # Some parameter styles would double percent signs.
    dialect: Any = _DIALECTS[database](paramstyle="named")
    yield "BEGIN;"
    for statement in statements:
        compiled: Any = statement.compile(dialect=dialect)
        text = f"{str(compiled).strip()};"
        outside = is_outside_transactions(statement) and database == "postgresql"
        yield f"COMMIT;\n\n{text}\n\nBEGIN;" if outside else text
    yield "COMMIT;"


if __name__ == "__main__":
    main()
