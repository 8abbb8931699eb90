"""Which page answers which address, and what becomes of errors: one function for both faces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from inspect import isawaitable, iscoroutine
from typing import Any, Final

from htpy import Node, a, p

from eventstore_sa.browser.layout import ASSETS, card, framed
from eventstore_sa.browser.pages.event import event_json, event_page, step_page, value_page
from eventstore_sa.browser.pages.listing import categories_page, streams_page, watermark_page
from eventstore_sa.browser.pages.log import go_page, log_page
from eventstore_sa.browser.pages.projections import projection_page, projections_page
from eventstore_sa.browser.pages.subscriptions import subscription_page, subscriptions_page
from eventstore_sa.browser.pages.trace import trace_page
from eventstore_sa.browser.pages.travel import state_page
from eventstore_sa.browser.requests import Answer, BadRequestError, BrowserRequest, NotFoundError, asset, page_answer
from eventstore_sa.browser.security import Authenticate, host_of
from eventstore_sa.browser.site import Page, Site
from eventstore_sa.browser.text import visible
from eventstore_sa.errors import (
    ConfigurationError,
    EventStoreError,
    QueryError,
    SerialisationError,
    StorageError,
    UnreadableEventError,
)
from eventstore_sa.steps import Steps

__all__ = ["answered", "refused", "routed"]

_log = logging.getLogger("eventstore_sa.browser")

_PAGES: Final[dict[str, Page]] = {
    "/": log_page,
    "/categories": categories_page,
    "/go": go_page,
    "/projection": projection_page,
    "/projections": projections_page,
    "/state": state_page,
    "/step": step_page,
    "/streams": streams_page,
    "/subscription": subscription_page,
    "/subscriptions": subscriptions_page,
    "/watermark": watermark_page,
}
_FORMS: Final = ("payload", "metadata", "read")


def refused(request: BrowserRequest, auth: Authenticate | None, hosts: Collection[str] | None) -> Steps[Answer | None]:
    """Return the answer to a request that may not be served; None if it may."""
    if not host_of(request, hosts):
        return _plain(421, "This host is not served here: open the address that was printed at the start.")
    if request.method not in ("GET", "HEAD"):
        return _plain(405, "These pages are for reading only.", [("Allow", "GET, HEAD")])
    return None if auth is None else (yield from _not_admitted(request, auth))


def _not_admitted(request: BrowserRequest, auth: Authenticate) -> Steps[Answer | None]:
    try:
        if (yield from _is_admitted(request, auth)):
            return None
    except Exception:  # noqa: BLE001 - whatever a function of the application raises
        _log.exception("auth could not say whether %s may be served", request.path)
        return _plain(500, "Something went wrong: the log of the application says what.")
    challenge: str | None = getattr(auth, "challenge", None)
    if challenge is not None:
        return _plain(401, "A name and a password are needed.", [("WWW-Authenticate", challenge)])
    return _plain(403, "You may not see this.")


def _is_admitted(request: BrowserRequest, auth: Authenticate) -> Steps[bool]:
    admitted: object = yield partial(auth, request)
    if isawaitable(admitted):
        # Without asyncio nobody awaits it, and it is true, whatever it would have returned.
        if iscoroutine(admitted):
            admitted.close()
        raise TypeError("auth has returned an awaitable: with a SyncEventStore it is an ordinary function")
    return bool(admitted)


def answered(site: Site, request: BrowserRequest) -> Steps[Answer]:  # noqa: PLR0911 - a case a line
    """Answer a request that may be served, whatever happens."""
    try:
        return (yield from _page_of(request)(site, request))
    except BadRequestError as error:
        return _problem(site, request, 400, "That cannot be shown", str(error))
    except NotFoundError as error:
        return _problem(site, request, 404, "Nothing here", str(error))
    except UnreadableEventError as error:
        return _problem(site, request, 500, "This event cannot be read", error.message)
    except (SerialisationError, QueryError) as error:
        return _problem(site, request, 400, "That cannot be shown", error.message)
    except ConfigurationError as error:
        _log.warning("%s cannot be shown: %s", request.path, error)
        return _problem(site, request, 500, "This store does not allow that", error.message)
    except StorageError as error:
        _log.warning("%s could not be read: %s", request.path, error)
        return _problem(site, request, 503, "The database does not answer as it should", error.message)
    except EventStoreError as error:
        _log.warning("%s could not be read: %s", request.path, error)
        return _problem(site, request, 500, type(error).__name__, error.message)
    except Exception:  # noqa: BLE001 - whatever projectors and classes of the application raise
        _log.exception("%s could not be shown", request.path)
        return _problem(site, request, 500, "Something went wrong", "The log of the application says what.")


def routed(path: str) -> tuple[str, ...]:
    """Return the steps of a path."""
    return tuple(step for step in path.split("/") if step)


def _page_of(request: BrowserRequest) -> Page:
    page = _PAGES.get(request.path) or _PAGES.get(request.path.rstrip("/") or "/")
    if page is not None:
        return page
    found: Callable[[Site, BrowserRequest], Steps[Answer]]
    match routed(request.path):
        case ("assets", name) if name in ASSETS:
            found = partial(_asset, name)
        case ("event", number) if number.endswith(".json"):
            found = partial(_with, event_json, number.removesuffix(".json"), "event")
        case ("event", number):
            found = partial(_with, event_page, number)
        case ("event", number, "trace"):
            found = partial(_with, trace_page, number)
        case ("event", number, form) if form in _FORMS:
            found = partial(_with, value_page, number, form)
        case ("event", number, form) if form.endswith(".json") and form.removesuffix(".json") in _FORMS:
            found = partial(_with, event_json, number, form.removesuffix(".json"))
        case _:
            raise NotFoundError("There is no such page.")
    return found


def _with(page: Any, *arguments: str | Site | BrowserRequest) -> Any:
    *given, site, request = arguments
    return page(site, request, *given)


def _asset(name: str, site: Site, request: BrowserRequest) -> Steps[Answer]:
    yield from ()
    return asset(*ASSETS[name])


def _problem(site: Site, request: BrowserRequest, status: int, heading: str, message: str) -> Answer:
    content: list[Node] = [p[visible(message, 2000)], p[a(href=request.url("/"))["To the log"]]]
    return page_answer(framed(site, request, heading, card(None, content)), status)


def _plain(status: int, text: str, headers: list[tuple[str, str]] | None = None) -> Answer:
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=utf-8", headers or [])
