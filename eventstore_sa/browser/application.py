"""`event_browser`: the pages as an ASGI application, or as a WSGI application for a store without asyncio.

Both faces are thin: they turn what a server gives them into a `BrowserRequest`, drive the steps of a page, and send the
answer. Neither needs a framework, so the browser can be mounted in any.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias, overload

from eventstore_sa.browser.filters import Filters
from eventstore_sa.browser.redaction import Redact
from eventstore_sa.browser.requests import Answer, BadRequestError, BrowserRequest, query_of
from eventstore_sa.browser.routing import answered, refused
from eventstore_sa.browser.security import HEADERS, Authenticate
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.tail import Chunk, chunk, start_of
from eventstore_sa.errors import ConfigurationError, EventStoreError
from eventstore_sa.projection import Projector
from eventstore_sa.steps import Steps, drive, drive_async
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions import Subscription, SyncSubscription

__all__ = ["EventBrowser", "SyncEventBrowser", "event_browser"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Environment: TypeAlias = MutableMapping[str, Any]
StartResponse: TypeAlias = Callable[..., Any]

_log = logging.getLogger("eventstore_sa.browser")

_LONGEST_TAIL_S: Final = 600.0
_KEEP_ALIVE_S: Final = 15.0
_RETRY_MS: Final = 2000


class _Browser:
    """What both faces have."""

    def __init__(self, site: Site, auth: Authenticate | None, hosts: Collection[str] | None) -> None:
        self.site: Final = site
        self._auth = auth
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    def _answer(self, request: BrowserRequest) -> Steps[Answer | None]:
        """Return the answer to a request; None if it is for the live tail."""
        refusal = yield from refused(request, self._auth, self._hosts)
        if refusal is not None:
            return refusal
        if _is_tail(request):
            return None if request.method == "GET" else _STREAM
        return (yield from answered(self.site, request))

    def _begin_tail(self, request: BrowserRequest) -> tuple[Filters, int]:
        filters = Filters.of(request)
        return filters, start_of(request, filters)


class EventBrowser(_Browser):
    """The pages as an ASGI application; see `event_browser`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            request = _request_of_scope(scope)
            answer = await drive_async(self._answer(request))
            if answer is None:
                await self._tail(request, receive, send)
                return
        except BadRequestError as error:
            answer, request = _bad(error), None
        await _send(send, answer, with_body=request is None or request.method != "HEAD")

    async def _tail(self, request: BrowserRequest, receive: Receive, send: Send) -> None:
        filters, after = self._begin_tail(request)
        await send({"type": "http.response.start", "status": 200, "headers": _encoded([*_headers(_STREAM)])})
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await self._send_tail(request, filters, after, send, gone)
        finally:
            gone.cancel()

    async def _send_tail(
        self, request: BrowserRequest, filters: Filters, after: int, send: Send, gone: asyncio.Future[None]
    ) -> None:
        async def say(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        await say(f"retry: {_RETRY_MS}\n\n")
        began = said = time.monotonic()
        try:
            while not gone.done() and time.monotonic() - began < _LONGEST_TAIL_S:
                part: Chunk = await drive_async(chunk(self.site, request, filters, after))
                after = part.after
                if part.text or time.monotonic() - said > _KEEP_ALIVE_S:
                    await say(part.text or ": still here\n\n")
                    said = time.monotonic()
                if part.is_end:
                    await asyncio.wait({gone}, timeout=self.site.poll_seconds)
        except EventStoreError as error:
            await say(_failed(error))
        if not gone.done():
            # The browser connects again, and its rights are checked again.
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class SyncEventBrowser(_Browser):
    """The pages as a WSGI application; see `event_browser`.

    A live tail keeps no worker: each answer holds what there is, and the browser asks again after two seconds.
    """

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        request = None
        try:
            request = _request_of_environment(environ)
            answer = drive(self._answer(request)) or self._tail(request)
        except BadRequestError as error:
            answer = _bad(error)
        body = b"" if request is not None and request.method == "HEAD" else answer.body
        status = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        start_response(status, [*_headers(answer), ("Content-Length", str(len(answer.body)))])
        return [body]

    def _tail(self, request: BrowserRequest) -> Answer:
        filters, after = self._begin_tail(request)
        try:
            text = drive(chunk(self.site, request, filters, after)).text
        except EventStoreError as error:
            text = _failed(error)
        return Answer(200, f"retry: {_RETRY_MS}\n\n{text}".encode(), _STREAM.content_type, _STREAM.headers)


@overload
def event_browser(
    store: EventStore[Any],
    *,
    projectors: Sequence[Projector[Any, Any, Any]] = (),
    subscriptions: Sequence[Subscription] = (),
    redact: Redact | None = None,
    auth: Authenticate | None = None,
    hosts: Collection[str] | None = None,
    title: str = "Events",
) -> EventBrowser: ...


@overload
def event_browser(
    store: SyncEventStore[Any],
    *,
    projectors: Sequence[Projector[Any, Any, Any]] = (),
    subscriptions: Sequence[SyncSubscription] = (),
    redact: Redact | None = None,
    auth: Authenticate | None = None,
    hosts: Collection[str] | None = None,
    title: str = "Events",
) -> SyncEventBrowser: ...


def event_browser(
    store: EventStore[Any] | SyncEventStore[Any],
    *,
    projectors: Sequence[Projector[Any, Any, Any]] = (),
    subscriptions: Sequence[Any] = (),
    redact: Redact | None = None,
    auth: Authenticate | None = None,
    hosts: Collection[str] | None = None,
    title: str = "Events",
) -> EventBrowser | SyncEventBrowser:
    """Return read-only web pages over a store: an ASGI application, or a WSGI application for a `SyncEventStore`.

    It has no users of its own: whoever reaches it sees every event. Mount it behind what protects the rest of the
    application, or pass `auth`. It only reads, so the store may connect with the role of a reader.

    Args:
        store: The store, on an engine, a session factory or a URL; or in memory.
        projectors: Projectors whose states can be looked at, at any position of a stream.
        subscriptions: Subscriptions to be listed even if they have never run.
        redact: Names of fields that are hidden wherever they occur in payloads, metadata and states, such as "password" or
            "card.number"; or a function that is given a path and a value and returns whether it is hidden.
        auth: Called with each `BrowserRequest`; returns whether it may be served. It may be a coroutine function with an
            `EventStore`. `BasicAuth` is one.
        hosts: The host names under which the pages may be asked for; None: any.
        title: What the pages are called.

    Raises:
        ConfigurationError: If the store is within a session, or one of the others cannot be used.
    """
    given: object = store
    if not isinstance(given, EventStore | SyncEventStore):
        raise ConfigurationError(f"a browser is given an EventStore or a SyncEventStore; got {type(given).__name__}")
    checked_auth: object = auth
    if checked_auth is not None and not callable(checked_auth):
        raise ConfigurationError(
            f"auth is a function of a request, such as BasicAuth({{'ada': password}}); got {type(checked_auth).__name__}"
        )
    site = Site(store, projectors=projectors, subscriptions=subscriptions, redact=redact, title=title)
    return EventBrowser(site, auth, hosts) if site.is_async else SyncEventBrowser(site, auth, hosts)


_STREAM: Final = Answer(200, b"", "text/event-stream; charset=utf-8", [("X-Accel-Buffering", "no")])


def _is_tail(request: BrowserRequest) -> bool:
    return request.path == "/tail"


def _request_of_scope(scope: Scope) -> BrowserRequest:
    root = str(scope.get("root_path") or "").rstrip("/")
    path = str(scope["path"])
    client = scope.get("client")
    return BrowserRequest(
        scope["method"].upper(),
        (path.removeprefix(root) if path.startswith(f"{root}/") or path == root else path) or "/",
        root,
        query_of(scope.get("query_string", b"").decode("latin-1")),
        {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        client[0] if client else None,
    )


def _request_of_environment(environ: Environment) -> BrowserRequest:
    def decoded(value: str) -> str:
        # WSGI hands out bytes as if they were in latin-1.
        return value.encode("latin-1").decode(errors="replace")

    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return BrowserRequest(
        str(environ["REQUEST_METHOD"]).upper(),
        decoded(environ.get("PATH_INFO", "")) or "/",
        decoded(environ.get("SCRIPT_NAME", "")).rstrip("/"),
        query_of(environ.get("QUERY_STRING", "")),
        headers,
        environ.get("REMOTE_ADDR"),
    )


def _headers(answer: Answer) -> list[tuple[str, str]]:
    return [*{**HEADERS, "Content-Type": answer.content_type, **dict(answer.headers)}.items()]


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _send(send: Send, answer: Answer, *, with_body: bool) -> None:
    headers = _encoded([*_headers(answer), ("Content-Length", str(len(answer.body)))])
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


async def _live(receive: Receive, send: Send) -> None:
    """Say that there is nothing to start or to end: the store belongs to the application."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _failed(error: EventStoreError) -> str:
    _log.warning("the live tail could not be read: %s", error)
    return f"event: problem\ndata: {type(error).__name__}\n\n"


def _bad(error: BadRequestError) -> Answer:
    return Answer(400, f"{error}\n".encode(), "text/plain; charset=utf-8")
