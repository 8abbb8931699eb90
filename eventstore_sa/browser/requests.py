"""Requests and answers of the browser, whatever server they come through.

The faces in `application.py` make one of these of what ASGI or WSGI gives them. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

from htpy import Renderable
from msgspec import Struct

from eventstore_sa.types.codec import encode_json, text_problem
from eventstore_sa.types.numbers import LARGEST_NUMBER

__all__ = [
    "Answer",
    "BadRequestError",
    "BrowserRequest",
    "NotFoundError",
    "asset",
    "json_answer",
    "page_answer",
    "redirect",
]

_MOST_FIELDS: Final = 64
_LONGEST_FIELD: Final = 30_000


class BadRequestError(Exception):
    """The request asks for something that cannot be; the message is shown."""


class NotFoundError(Exception):
    """There is nothing of that kind; the message is shown."""


class BrowserRequest(Struct, frozen=True):
    """A request, as pages and `auth` functions see it.

    Attributes:
        method: In upper case.
        path: Below where the browser is mounted, beginning with a slash.
        root: Where it is mounted: "" or a path without a slash at its end.
        query: The fields of the query string; of a field that is given several times, the last.
        headers: By name in lower case; of a header that is sent several times, the last.
        client: The address of the client, if the server knows it.
    """

    method: str
    path: str
    root: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str | None = None

    def url(self, path: str, /, **query: object) -> str:
        """Return the address of another page; fields that are None or empty are left out."""
        return self.url_of(path, query)

    def url_of(self, path: str, query: Mapping[str, object]) -> str:
        """Return the address of another page, with the fields of a query by name."""
        fields = [(name, str(value)) for name, value in query.items() if value is not None and value != ""]
        return f"{quote(self.root)}{quote(path)}{'?' if fields else ''}{urlencode(fields)}"

    def here(self, **query: object) -> str:
        """Return the address of this page with some fields changed; None removes a field."""
        return self.url_of(self.path, {**self.query, **query})

    def text(self, name: str) -> str | None:
        """Return a field that is a text; None if it is missing or empty.

        Raises:
            BadRequestError: If nothing in a store can be called so.
        """
        value = self.query.get(name)
        if not value:
            return None
        problem = text_problem(value)
        if problem is not None or len(value) > _LONGEST_FIELD:
            raise BadRequestError(f"The field “{name}” {problem or 'is too long'}.")
        return value

    def needed(self, name: str) -> str:
        """Return a field that is a text.

        Raises:
            BadRequestError: If it is missing, or nothing can be called so.
        """
        value = self.text(name)
        if value is None:
            raise BadRequestError(f"The field “{name}” is missing.")
        return value

    def number(self, name: str) -> int | None:
        """Return a field that is a number of 0 or more; None if it is missing or empty.

        Raises:
            BadRequestError: If it is something else.
        """
        value = self.query.get(name)
        return None if not value else number_of(value, name)

    def moment(self, name: str) -> datetime | None:
        """Return a field that is a time; one without a time zone is in UTC.

        Raises:
            BadRequestError: If it is something else.
        """
        value = self.text(name)
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value.strip())
            moment = moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment
            return moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise BadRequestError(
                f"“{name}” is a time such as 2026-01-31 or 2026-01-31T17:05; got “{value:.40}”."
            ) from error

    def uuid(self, name: str) -> UUID | None:
        """Return a field that is a UUID.

        Raises:
            BadRequestError: If it is something else.
        """
        value = self.text(name)
        if value is None:
            return None
        try:
            return UUID(value.strip())
        except ValueError as error:
            raise BadRequestError(f"The id of an event is a UUID; got “{value:.40}”.") from error


def number_of(text: str, name: str) -> int:
    """Return the number that a text is.

    Raises:
        BadRequestError: If it is not a number that something in a store could have.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= LARGEST_NUMBER):
        raise BadRequestError(f"“{name}” is a number of 0 or more; got “{text:.40}”.")
    return int(text)


def query_of(text: str) -> dict[str, str]:
    """Return the fields of a query string.

    Raises:
        BadRequestError: If there are too many.
    """
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError as error:
        raise BadRequestError("The address has too many fields.") from error


class Answer(Struct, frozen=True):
    """What is sent back.

    Attributes:
        status: The status code.
        body: The body.
        content_type: What it is.
        headers: Further headers.
    """

    status: int
    body: bytes
    content_type: str
    headers: Sequence[tuple[str, str]] = ()


def page_answer(page: Renderable, status: int = 200) -> Answer:
    """Answer with a page."""
    return Answer(status, str(page).encode(), "text/html; charset=utf-8")


def json_answer(value: Any, status: int = 200) -> Answer:
    """Answer with JSON: a value, or bytes that are JSON already."""
    body = value if isinstance(value, bytes) else encode_json(value)
    # Whatever a browser makes of it, it has no rights here.
    return Answer(status, body, "application/json; charset=utf-8", [("Content-Security-Policy", "sandbox")])


def redirect(url: str) -> Answer:
    """Answer that the page is elsewhere."""
    return Answer(303, b"", "text/plain; charset=utf-8", [("Location", url)])


def asset(body: bytes, content_type: str) -> Answer:
    """Answer with a file that never changes under its address."""
    return Answer(200, body, content_type, [("Cache-Control", "public, max-age=31536000, immutable")])
