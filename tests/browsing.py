"""Visiting the event browser without a server: requests to an ASGI or a WSGI application, and its live tail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from eventstore_sa.browser import EventBrowser
from tests.patience import PATIENCE_S

__all__ = ["Reply", "Tail", "Visitor"]


class Reply(msgspec.Struct, frozen=True):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Visitor:
    """Asks an application for pages.

    Args:
        app: The application.
        root: Where it is mounted.
    """

    def __init__(self, app: Any, root: str = "") -> None:
        self.app = app
        self._root = root

    async def get(self, url: str, *, method: str = "GET", **headers: str) -> Reply:
        """Ask for a page; header names are written with underscores."""
        given = {"host": "browser", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if isinstance(self.app, EventBrowser):
            return await self._get_of_asgi(url, method, given)
        return self._get_of_wsgi(url, method, given)

    async def page(self, url: str) -> str:
        """Return a page that has to be there; follow where it leads."""
        reply = await self.get(url)
        while reply.status == 303:
            reply = await self.get(reply.headers["location"].removeprefix(self._root))
        assert reply.status == 200, (url, reply.status, reply.text[-2000:])
        return reply.text

    @asynccontextmanager
    async def tail(self, url: str, **headers: str) -> AsyncIterator[Tail]:
        """Open a live tail; with WSGI it is asked for again and again, as browsers do."""
        tail = Tail(self, url, {name.replace("_", "-"): value for name, value in headers.items()})
        try:
            yield tail
        finally:
            await tail.close()

    def _scope(self, url: str, method: str, headers: Mapping[str, str]) -> dict[str, Any]:
        split = urlsplit(url)
        return {
            "type": "http",
            "method": method,
            "path": self._root + unquote(split.path),
            "root_path": self._root,
            "query_string": split.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
        }

    async def _get_of_asgi(self, url: str, method: str, headers: Mapping[str, str]) -> Reply:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(self._scope(url, method, headers), receive, send)
        body = b"".join(message["body"] for message in sent[1:])
        return _reply(sent[0]["status"], [(n.decode(), v.decode()) for n, v in sent[0]["headers"]], body)

    def _get_of_wsgi(self, url: str, method: str, headers: Mapping[str, str]) -> Reply:
        split = urlsplit(url)
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": self._root,
            "PATH_INFO": unquote(split.path).encode().decode("latin-1"),
            "QUERY_STRING": split.query,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
        }
        begun: list[Any] = []
        body = b"".join(self.app(environ, lambda status, sent: begun.append((status, sent))))
        ((status, sent),) = begun
        return _reply(int(status.split()[0]), sent, body)


class Tail:
    """A live tail."""

    def __init__(self, visitor: Visitor, url: str, headers: dict[str, str]) -> None:
        self._visitor = visitor
        self._url = url
        self._headers = headers
        self._parts: asyncio.Queue[str] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._text = ""
        self._handed_out = 0
        self.last_id: str | None = None
        self.rows: list[str] = []

    async def row(self) -> str:
        """Return the next row that comes."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.rows) == self._handed_out:
                await self._more()
        self._handed_out += 1
        return self.rows[self._handed_out - 1]

    async def settle(self) -> None:
        """Take in what there is until an id has been sent."""
        before = self.last_id
        async with asyncio.timeout(PATIENCE_S):
            while self.last_id == before:
                await self._more()

    async def close(self) -> None:
        """Go away, as a browser does."""
        self._gone.set()
        if self._task is not None:
            async with asyncio.timeout(PATIENCE_S):
                await self._task

    async def _more(self) -> None:
        if isinstance(self._visitor.app, EventBrowser):
            if self._task is None:
                self._task = asyncio.create_task(self._run())
            self._take(await self._parts.get())
            return
        headers = self._headers if self.last_id is None else {"last-event-id": self.last_id}
        reply = await self._visitor.get(self._url, **headers)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        self._take(reply.text)
        await asyncio.sleep(0.01)

    async def _run(self) -> None:
        scope = self._visitor._scope(self._url, "GET", {"host": "browser", **self._headers})
        first = True

        async def receive() -> Any:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": b""}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                return
            await self._parts.put(message["body"].decode())

        await self._visitor.app(scope, receive, send)

    def _take(self, text: str) -> None:
        self._text += text
        *messages, self._text = self._text.split("\n\n")
        for message in messages:
            fields = dict(line.split(": ", 1) for line in message.split("\n") if not line.startswith(":"))
            self.last_id = fields.get("id", self.last_id)
            assert fields.get("event") != "problem", fields
            if fields.get("event") in ("event", "unreadable"):
                self.rows.append(msgspec.json.decode(fields["data"])["row"])


def _reply(status: int, headers: list[tuple[str, str]], body: bytes) -> Reply:
    lower = {name.lower(): value for name, value in headers}
    assert len(lower) == len(headers)
    return Reply(status, lower, body)
