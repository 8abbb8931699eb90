"""The command `eventstore-sa browse`: the browser alone, over the database at a URL, in a server of its own.

What serves the pages is imported when the command is called.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore_sa.cli.opening import address_of, ending, engine_at, the_place, url_argument, url_option
from eventstore_sa.cli.options import prefix_option, schema_option
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.importing import imported
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.schema.locking import EventSerialisationGuarantee, recorded_locking_mode
from eventstore_sa.store import EventStore, SyncEventStore

if TYPE_CHECKING:
    from eventstore_sa.browser.application import EventBrowser, SyncEventBrowser

__all__ = ["browse"]

_VARIABLE: Final = "EVENTSTORE_SA_BROWSE_AUTH"


@click.command()
@url_argument
@url_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8420, show_default=True)
@prefix_option
@schema_option
@click.option("--locking", default="fence", show_default=True, help="How its writers exclude each other, as recorded.")
@click.option("--projectors", metavar="MODULE:NAME", help="A list of projectors, for time travel.")
@click.option("--types", "types_at", metavar="MODULE:NAME", help="The EventTypes of the store.")
@click.option("--redact", multiple=True, metavar="FIELD", help="A field that is hidden; may be given several times.")
@click.option(
    "--auth-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help=f"A file with name:password, a line for each, for those who may see it. [default: from {_VARIABLE}]",
)
@click.option("--allow-host", "allowed", multiple=True, metavar="NAME", help="A name under which it may be asked for.")
def browse(
    *,
    places: Sequence[str],
    url: str | None,
    host: str,
    port: int,
    prefix: str,
    schema: str | None,
    locking: str,
    projectors: str | None,
    types_at: str | None,
    redact: Sequence[str],
    auth_file: Path | None,
    allowed: Sequence[str],
) -> None:
    """Browse the events in a database, in a web browser. It only reads.

    Listens on this machine alone; on any other address only with --auth-file, and then put TLS in front of it.
    """
    try:
        from eventstore_sa.browser import BasicAuth, SyncEventBrowser, event_browser  # noqa: PLC0415 - as it is needed
        from eventstore_sa.browser.security import is_loopback  # noqa: PLC0415
    except ImportError as error:
        raise click.UsageError("the browser is not installed: pip install 'eventstore-sa[browser]'") from error
    users = _users(auth_file)
    if not users and not is_loopback(host):
        raise click.UsageError(
            f"{host} can be reached from other machines, and the pages show every event: give --auth-file, or listen on "
            "127.0.0.1"
        )
    with ending():
        mode = recorded_locking_mode(locking)
        tables = EventStoreSchema(
            prefix=prefix,
            schema=schema,
            locking=mode.locking,
            serialisation_guarantee=EventSerialisationGuarantee(mode.level),
            labels=mode.labels,
        )
        store = _store(the_place(url, places), tables, None if types_at is None else imported(types_at))
        browser: EventBrowser | SyncEventBrowser = event_browser(
            store,
            projectors=_listed(projectors),
            redact=list(redact) or None,
            auth=BasicAuth(users) if users else None,
            hosts=_hosts(host, allowed) if is_loopback(host) or allowed else None,
        )
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Browse the events at http://{shown}:{port}/ and end this with Ctrl+C.")
    if isinstance(browser, SyncEventBrowser):
        with browser.site.store:
            _serve_in_threads(browser, host, port)
            _engine_of(browser.site.store).dispose()
    else:
        asyncio.run(_serve(browser, host, port))


async def _serve(browser: EventBrowser, host: str, port: int) -> None:
    import uvicorn  # noqa: PLC0415 - not needed to show the help

    config = uvicorn.Config(
        browser,
        host=host,
        port=port,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    async with browser.site.store:
        await uvicorn.Server(config).serve()
        # It raises again the signal that has ended it, which cancels this task: here, and not when the store is closed.
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        await AsyncEngine(_engine_of(browser.site.store)).dispose()


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request, for drivers that do not work with asyncio."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


class _Handler(WSGIRequestHandler):
    """Does not log each request."""

    server_version = "browser"
    sys_version = ""

    def log_message(self, format: str, *args: object) -> None:
        pass


def _serve_in_threads(browser: SyncEventBrowser, host: str, port: int) -> None:
    with make_server(host, port, browser, server_class=_Server, handler_class=_Handler) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def _store(where: str, tables: EventStoreSchema, types: Any) -> EventStore | SyncEventStore:
    if "://" not in where:
        engine, known, known_types = engine_at(where)
        options: dict[str, Any] = {"schema": known or tables, "types": types or known_types}
        if engine.dialect.is_async:
            return EventStore(AsyncEngine(engine), **options)
        return SyncEventStore(engine, **options)
    address = address_of(where)
    try:
        # With asyncio where the driver of the URL can do it: a tail costs no thread then.
        return EventStore(address, schema=tables, types=types)
    except ConfigurationError:
        return SyncEventStore(address, schema=tables, types=types)


def _engine_of(store: EventStore | SyncEventStore) -> Engine:
    # A store closes its engine only if it has made it itself.
    adapter: Any = store.adapter
    engine: Engine = adapter.bind.engine
    return engine


def _users(auth_file: Path | None) -> dict[str, str]:
    text = os.environ.get(_VARIABLE, "") if auth_file is None else auth_file.read_text(encoding="utf-8")
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not all(name and password for name, _, password in pairs):
        raise click.UsageError("who may see it is written as name:password, a line for each")
    return {name: password for name, _, password in pairs}


def _hosts(host: str, allowed: Sequence[str]) -> list[str]:
    return [*allowed, host.lower(), "localhost", "127.0.0.1", "::1"]


def _listed(where: str | None) -> list[Any]:
    if where is None:
        return []
    found: Any = imported(where)
    return [*found] if isinstance(found, list | tuple) else [found]
