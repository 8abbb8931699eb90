"""Opening the event store that a command is about: from a URL, or from an object of the application, `module:engine`.

Commands are synchronous. Over an asyncio driver they run in a greenlet, as the library itself does.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

import click
from click.core import ParameterSource
from sqlalchemy import URL, Engine, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.cli.options import prefix_option, schema_option
from eventstore_sa.cli.output import complain
from eventstore_sa.errors import ConfigurationError, EventStoreError, SchemaError
from eventstore_sa.importing import imported
from eventstore_sa.inspection import SyncInspection
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, recorded_locking_mode
from eventstore_sa.persistence.sqlalchemy_internals import run_in_greenlet
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.store.adapters import SQLAlchemyEventStorageAdapter, SyncSQLAlchemyEventStorageAdapter
from eventstore_sa.types import EventTypes

__all__ = [
    "NOT_SO",
    "REFUSED",
    "NoFileError",
    "OpenStore",
    "address_of",
    "ending",
    "engine_at",
    "engine_of_url",
    "on_database",
    "on_store",
    "run",
    "the_place",
    "url_argument",
    "url_option",
]

NOT_SO: Final = 1
"""Exit code: what was looked for is not there, or not as it should be."""
REFUSED: Final = 3
"""Exit code: the database could not be reached, or refused."""
_INTERRUPTED: Final = 130
_PIPE_CLOSED: Final = 141

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


class NoFileError(ConnectionError):
    """The URL names a file of SQLite's that does not exist; connecting would create it."""


class OpenStore:
    """An event store in a database, while a command runs.

    Attributes:
        store: The store, without event types: events come as they are stored.
        inspection: Questions about it.
        engine: Its connections.
        schema: Its tables.
        types: The event types of the application's store, if that was named.
    """

    def __init__(self, engine: Engine, schema: EventStoreSchema, types: EventTypes[Any] | None = None) -> None:
        self.engine: Engine = engine
        self.schema: EventStoreSchema = schema
        self.types: EventTypes[Any] | None = types
        adapter = (
            SQLAlchemyEventStorageAdapter(AsyncEngine(engine), schema=schema).sync_adapter
            if engine.dialect.is_async
            else SyncSQLAlchemyEventStorageAdapter(engine, schema=schema)
        )
        self.store: SyncEventStore = SyncEventStore(adapter)
        self.inspection: SyncInspection = SyncInspection(self.store)


url_option: Final = click.option(
    "--url",
    "-u",
    envvar="EVENTSTORE_SA_URL",
    show_envvar=True,
    metavar="URL",
    help="A SQLAlchemy URL; or module:name, for an engine or a store of your application.",
)
url_argument: Final = click.argument("places", nargs=-1, metavar="[URL]")
"""For commands that take the URL as their first argument too; above their other arguments."""


def the_place(url: str | None, places: Sequence[str] = ()) -> str:
    """Return which event store a command is about.

    Args:
        url: What `url_option` has found: in the options or in the environment.
        places: What `url_argument` has found; it goes before the environment.
    """
    if len(places) > 1:
        raise click.UsageError(f"there are too many arguments: {' '.join(places[1:])}")
    if places:
        if click.get_current_context().get_parameter_source("url") is ParameterSource.COMMANDLINE:
            raise click.UsageError("give the URL once, as --url or as the first argument")
        return places[0]
    if url is None:
        raise click.UsageError("which event store is it about? Give --url, or set EVENTSTORE_SA_URL")
    return url


def on_store(command: Command) -> Command:
    """Give a command the options that say which event store; call it with that, opened, as its first argument."""
    return _on_store(command, must_exist=True)


def on_database(command: Command) -> Command:
    """The same for a command that finds out itself whether there is an event store in the database."""
    return _on_store(command, must_exist=False)


def _on_store(command: Command, *, must_exist: bool) -> Command:
    @functools.wraps(command)
    def opened(*, url: str | None, prefix: str, schema: str | None, places: Sequence[str] = (), **options: Any) -> None:
        with ending():
            engine, known, types = engine_at(the_place(url, places))

            def work() -> None:
                tables = known or _stored_schema(engine, prefix, schema, must_exist=must_exist)
                command(OpenStore(engine, tables, types), **options)

            run(engine, work)

    decorated: Any = opened
    for option in (schema_option, prefix_option, url_option):
        decorated = option(decorated)
    result: Command = decorated
    return result


def run(engine: Engine, work: Callable[[], T]) -> T:
    """Call a function that uses an engine, and end its connections."""
    if engine.dialect.is_async:
        return asyncio.run(_in_greenlet(engine, work))
    try:
        return work()
    finally:
        engine.dispose()


async def _in_greenlet(engine: Engine, work: Callable[[], T]) -> T:
    try:
        return await run_in_greenlet(work)
    finally:
        await run_in_greenlet(engine.dispose)


def engine_at(where: str) -> tuple[Engine, EventStoreSchema | None, EventTypes[Any] | None]:
    """Return the engine of a URL, or of an object of the application, and what that knows: tables, event types."""
    if "://" in where or "@" in where:
        return engine_of_url(where), None, None
    try:
        found = imported(where)
    except ConfigurationError as error:
        raise click.UsageError(f"{error.message}, or a URL such as postgresql+psycopg://user@host/database") from None
    kind = type(found).__name__
    if isinstance(found, AsyncEngine):
        return found.sync_engine, None, None
    if isinstance(found, Engine):
        return found, None, None
    if isinstance(found, EventStore | SyncEventStore):
        store = cast("Any", found)
        engine = getattr(getattr(store.adapter, "bind", None), "engine", None)
        if isinstance(engine, Engine):
            return engine, store.adapter.schema, store.types
    raise click.UsageError(f"{where} is of type {kind}: give an Engine, an AsyncEngine, or a store on one of them")


def engine_of_url(url: str, *, hint: str = "--url") -> Engine:
    """Return an engine for a URL; see `address_of`."""
    address = address_of(url, hint=hint)
    store = EventStore(address) if address.get_dialect().is_async else SyncEventStore(address)
    adapter: Any = store.adapter
    engine: Engine = adapter.bind.engine
    return engine


def address_of(url: str, *, hint: str = "--url") -> URL:
    """Return a URL that can be connected to, as far as can be told before.

    Args:
        url: The URL.
        hint: Which option or argument it is, for the message.

    Raises:
        BadParameter: If it is not a URL, or its driver is not installed.
        NoFileError: If it names a file that does not exist.
    """
    try:
        address = make_url(url)
        address.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # It is not shown: it may contain a password.
        message = "it is not a valid SQLAlchemy URL, such as postgresql+psycopg://user@host/database"
        raise click.BadParameter(message, param_hint=hint) from None
    except ImportError as error:
        raise click.BadParameter(f"its driver is not installed: {error}", param_hint=hint) from error
    if address.get_backend_name() == "sqlite" and "mode" not in address.query:
        file = address.database
        if file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
            raise NoFileError(
                f"there is no file {file!r}: check the URL, or create an event store there with `alembic upgrade head` or "
                f"`eventstore-sa schema sql --dialect sqlite | sqlite3 {shlex.quote(file)}`"
            )
    return address


def _stored_schema(engine: Engine, prefix: str, schema: str | None, *, must_exist: bool = True) -> EventStoreSchema:
    """Return the tables with the locking that is recorded in the database."""
    plain = EventStoreSchema(prefix=prefix, schema=schema)
    with engine.connect() as connection:
        if not inspect(connection).has_table(plain.version.name, schema=schema):
            if not must_exist:
                return plain
            place = "" if schema is None else f" in schema {schema!r}"
            raise SchemaError(
                f"there is no event store with prefix {prefix!r}{place} in this database: create it with `alembic upgrade "
                "head` or, without Alembic, with what `eventstore-sa schema sql` prints; if it is there, give --prefix and "
                "--schema, and check the URL"
            )
        recorded = connection.scalar(select(plain.version.c.locking))
    if recorded is None or recorded == plain.locking_mode.recorded:
        return plain
    mode = recorded_locking_mode(recorded)
    return EventStoreSchema(
        prefix=prefix,
        schema=schema,
        locking=mode.locking,
        serialisation_guarantee=EventSerialisationGuarantee(mode.level),
        labels=mode.labels,
    )


@contextmanager
def ending() -> Generator[None]:
    """Turn what ends a command early into a message and an exit code."""
    with _interruptible():
        try:
            yield
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:
            _leave_closed_pipe()
        except SchemaError as error:
            _fail(error.message, NOT_SO)
        except ConfigurationError as error:
            raise click.UsageError(error.message) from error
        except EventStoreError as error:
            _fail(error.message, REFUSED)
        except SQLAlchemyError as error:
            # SQLAlchemy's own message shows parameters.
            cause = getattr(error, "orig", None) or error
            _fail(f"could not query the database: {type(cause).__name__}: {cause}", REFUSED)
        except OSError as error:
            _fail(str(error), REFUSED)


def _fail(message: str, code: int) -> NoReturn:
    complain(message)
    sys.exit(code)


def _leave_closed_pipe() -> NoReturn:
    """End as a program does that a closed pipe ends, without a message when the interpreter flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_PIPE_CLOSED)


@contextmanager
def _interruptible() -> Generator[None]:
    """Have Ctrl-C interrupt what runs now, in a greenlet too; asyncio would wait for the next await."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
