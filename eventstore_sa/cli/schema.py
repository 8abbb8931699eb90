"""Commands about the schema: they print SQL for event stores without Alembic, and check a database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

import click
from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.mysql import mariadb
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import ExecutableDDLElement

from eventstore_sa.cli.opening import NOT_SO, REFUSED, engine_at, run, the_place, url_argument, url_option
from eventstore_sa.cli.options import locking_option, prefix_option, schema_option
from eventstore_sa.errors import ConfigurationError, SchemaError
from eventstore_sa.persistence.inspection.indexes import (
    INSPECTION_INDEXES,
    IndexedField,
    creation_of,
    inspection_index,
)
from eventstore_sa.persistence.schema import SCHEMA_VERSION, EventStoreSchema, verify_schema, versions
from eventstore_sa.persistence.schema.locking import (
    EventSerialisationGuarantee,
    RecordedLocking,
    recorded_locking_mode,
)
from eventstore_sa.persistence.schema.versions import Site, is_outside_transactions, migration, repair

__all__ = ["schema"]

_DIALECTS: Final[dict[str, Any]] = {
    "mariadb": mariadb.MariaDBDialect,
    "postgresql": postgresql.dialect,
    "sqlite": sqlite.dialect,
}


_dialect: Final = click.option("--dialect", type=click.Choice(sorted(_DIALECTS)), required=True, help="The database.")


@click.group()
def schema() -> None:
    """Create, change and check the tables, functions and triggers of an event store without Alembic."""


@schema.command()
@click.option("--from", "from_version", type=int, default=0, show_default=True, help="The installed version; 0: none.")
@click.option(
    "--to", "to_version", type=int, default=SCHEMA_VERSION, show_default=True, help="The version to migrate to."
)
@_dialect
@prefix_option
@schema_option
@locking_option
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
@prefix_option
@schema_option
def repair_command(dialect: str, prefix: str, schema: str | None) -> None:
    """Print the SQL that restores the functions and triggers of the newest version of the schema."""
    _print_script(repair(SCHEMA_VERSION, Site(dialect, prefix, schema)), dialect)


@schema.command()
@click.argument("field", type=click.Choice(INSPECTION_INDEXES))
@prefix_option
@schema_option
def index(*, field: IndexedField, prefix: str, schema: str | None) -> None:
    """Print the SQL that creates an optional index on PostgreSQL, while writers run; outside of a transaction.

    The one for `correlation` serves traces, the one for `time` reads of a range of times. Every publish pays for it.
    """
    store = EventStoreSchema(prefix=prefix, schema=schema)
    click.echo(f"{creation_of(inspection_index(field, schema=store))};")


@schema.command()
@url_argument
@url_option
@prefix_option
@schema_option
@locking_option
@click.option("--json", "as_json", is_flag=True, help='Print {"ok": ..., "version": ..., "problem": ...}.')
@click.pass_context
def check(
    context: click.Context,
    *,
    places: Sequence[str],
    url: str | None,
    prefix: str,
    schema: str | None,
    locking: RecordedLocking,
    as_json: bool,
) -> None:
    """Check the event store in a database, as the function `verify_schema` does. It only reads."""

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
        engine, known, _ = engine_at(the_place(url, places))
        run(engine, lambda: _verify(engine, known or store))
    except ConfigurationError as error:
        raise click.UsageError(error.message) from None
    except SchemaError as error:
        end(NOT_SO, error.message)
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        end(REFUSED, f"could not query the database: {type(cause).__name__}: {cause}")
    except OSError as error:
        end(REFUSED, str(error))
    end(0, None)


def _verify(engine: Engine, store: EventStoreSchema) -> None:
    with engine.connect() as connection:
        verify_schema(connection, schema=store)


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
