"""The log, a category, a stream, or what has a tag: pages of events, the newest first, with filters and a live tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from htpy import Node, a, button, details, div, form, h1, input, label, noscript, p, progress, span, summary  # noqa: A004

from eventstore_sa.browser.filters import FIELDS, Filters
from eventstore_sa.browser.layout import (
    card,
    crumbs,
    empty,
    event_table,
    framed,
    notice,
    pager,
)
from eventstore_sa.browser.reads import EventPage, Slice, place_of
from eventstore_sa.browser.requests import Answer, BadRequestError, BrowserRequest, page_answer, redirect
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import plural, visible
from eventstore_sa.errors import SerialisationError
from eventstore_sa.steps import Steps
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier

__all__ = ["go_page", "log_page"]

_LABELS: Final = {
    "category": "Category",
    "stream": "Stream",
    "name": "Name",
    "tag": "Tag",
    "from": "From",
    "to": "Before",
    "text": "Text in payload",
    "correlation": "Correlation",
}


def log_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show events that meet the filters of the address, a page at a time."""
    event_id = request.uuid("id")
    if event_id is not None:
        return redirect(request.url("/go", q=str(event_id)))
    filters = Filters.of(request)
    if filters.needs_search:
        return (yield from _searched(site, request, filters))
    before, after = request.number("before"), request.number("after")
    page: EventPage = yield site.run(site.reads.page, filters.target, before=before, after=after, size=site.page_size)
    places = [place_of(filters.target, event) for event in page.events]
    lowest, highest = (min(places), max(places)) if places else (before or 0, after or 0)
    at_start = lowest <= (0 if isinstance(filters.target, StreamIdentifier) else 1)
    older = request.here(before=lowest, after=None, live=None) if places and not at_start else None
    if after is None:
        older = older if page.more else None
        newer = request.here(before=None, after=highest, live=None) if before is not None and places else None
    else:
        newer = request.here(before=None, after=highest, live=None) if page.more else None
    is_end = before is None and after is None
    first = None if is_end else request.here(before=None, after=None, live=None)
    rows = _rows(site, request, filters, page.events, page.unreadable, live_after=max(places, default=None))
    return page_answer(_framed(site, request, filters, rows, pager(newer, older, first=first), is_end=is_end))


def _searched(site: Site, request: BrowserRequest, filters: Filters) -> Steps[Answer]:
    before = request.number("before")
    jumps = before is None and filters.end is not None and request.text("begin") != "end"
    if jumps and not isinstance(filters.target, StreamIdentifier):
        before = yield site.run(site.reads.number_near, filters.end)
    found: Slice = yield site.run(
        site.reads.search,
        filters.target,
        before=before,
        size=site.page_size,
        constraints=[*filters.constraints(site.redaction)],
        keep=filters.keep(site.redaction),
        budget_s=site.search_seconds,
    )
    total = request.number("of") or found.looked_from
    further = request.here(before=found.looked_to, of=total, live=None) if found.more else None
    first = request.here(before=None, of=None, live=None) if request.text("before") else None
    if jumps and before is not None:
        first = request.here(begin="end", live=None)
    rows = _rows(site, request, filters, found.events, found.unreadable, live_after=found.looked_from, searched=True)
    return page_answer(
        _framed(
            site,
            request,
            filters,
            rows,
            _progress(filters, found, total, further, first, jumped=jumps and before is not None),
            is_end=before is None and filters.end is None,
        )
    )


def _progress(
    filters: Filters, found: Slice, total: int, further: str | None, first: str | None, *, jumped: bool
) -> Node:
    what, floor = ("positions", 0) if isinstance(filters.target, StreamIdentifier) else ("numbers", 1)
    done = total - found.looked_to
    return div(".search-progress", role="status")[
        p[
            f"Looked at {what} {found.looked_from:,} down to {max(found.looked_to, floor):,}: ",
            plural(len(found.events), "event"),
            " found. ",
            "There is more below." if found.more else "That is all there is.",
            jumped and " It began near the time that was given, as if times grew with numbers.",
        ],
        total > 0 and progress(max=str(max(total, 1)), value=str(max(0, done)), aria_label="Looked at so far"),
        div(".pages")[
            first is not None and a(".button", href=first)["From the end" if jumped else "Newest"],
            further is not None and a(".button.primary", href=further, rel="next")["Continue →"],
        ],
    ]


def _rows(
    site: Site,
    request: BrowserRequest,
    filters: Filters,
    events: Sequence[AnyStoredEvent],
    unreadable: Sequence[Any],
    *,
    live_after: int | None,
    searched: bool = False,
) -> Node:
    by_position = isinstance(filters.target, StreamIdentifier)
    chosen = {name: request.query.get(name) for name in FIELDS}
    tail = request.url_of("/tail", {**chosen, "after": live_after}) if request.query.get("live") else None
    if not events and not unreadable and tail is None:
        if searched:
            return empty(
                "No event found so far", "Nothing in the part of the log that was looked at meets the filters."
            )
        return empty(
            "No events here",
            "Nothing has been published to this stream." if by_position else "Nothing has been published yet.",
        )
    return event_table(request, events, unreadable, redaction=site.redaction, by_position=by_position, tail=tail)


def _framed(site: Site, request: BrowserRequest, filters: Filters, rows: Node, below: Node, *, is_end: bool) -> Any:
    live = bool(request.query.get("live"))
    heading, lead = _lead(site, request, filters, live=live, is_end=is_end)
    return framed(
        site,
        request,
        heading,
        _filter_form(request),
        live
        and notice(
            span("#tail-state", role="status", aria_live="polite")["Waiting for events…"],
            noscript["A live tail needs JavaScript: reload the page to see what is new."],
            kind="live",
        ),
        card(None, rows, kind=".flush"),
        below,
        section="log",
        lead=lead,
    )


def _lead(site: Site, request: BrowserRequest, filters: Filters, *, live: bool, is_end: bool) -> tuple[str, Node]:
    parts: list[Node] = [a(href=request.url("/"))["Log"]]
    heading: Node
    if filters.stream is not None and filters.category is not None:
        parts.append(a(href=request.url("/", category=filters.category))[visible(filters.category, 80)])
        heading, plain, up = visible(filters.stream, 200), f"{filters.category}/{filters.stream}", 1
    elif filters.category is not None:
        heading, plain, up = visible(filters.category, 200), filters.category, 0
    elif filters.tag is not None:
        heading, plain, up = ["Tag ", visible(filters.tag, 200)], f"Tag {filters.tag}", 0
    else:
        heading, plain, up = "Log", "Log", 0
    nested = plain != "Log"
    upwards = request.url("/", category=filters.category if up else None)
    actions = div(".actions")[
        filters.category is not None
        and filters.stream is None
        and a(".button", href=request.url("/streams", category=filters.category))["Streams"],
        filters.stream is not None
        and [
            a(".button", href=request.url("/state", projector=name, category=filters.category, stream=filters.stream))[
                "State ", visible(name, 40)
            ]
            for name in list(site.projectors)[:4]
        ],
        is_end
        and a(
            f".button{'.on' if live else ''}",
            href=request.here(live=None if live else 1, before=None, after=None, of=None),
            data_key="l",
        )[span(".pulse", aria_hidden="true"), "Live"],
    ]
    return plain, div(".lead")[
        div[nested and crumbs(*parts), h1(data_up=upwards if nested else None)[heading]],
        actions,
    ]


def _filter_form(request: BrowserRequest) -> Node:
    chosen = [(name, value) for name in FIELDS if (value := request.query.get(name))]
    from_the_end = {"begin": None, "before": None, "after": None, "of": None, "live": None}
    return div(".filters")[
        details(open=bool(set(dict(chosen)) & {"from", "to", "text", "name"}))[
            summary(".button")["Filter"],
            form(action=request.url("/"), method="get")[
                div(".fields")[
                    (
                        label[
                            span[_LABELS[name]],
                            input(
                                name=name,
                                value=request.query.get(name) or None,
                                placeholder="2026-01-31T17:05" if name in ("from", "to") else None,
                                autocomplete="off",
                                spellcheck="false",
                            ),
                        ]
                        for name in FIELDS
                    ),
                    label[span["Event id"], input(name="id", autocomplete="off", spellcheck="false")],
                ],
                div(".form-end")[
                    button(".primary")["Show events"],
                    p(".muted")[
                        "An index finds streams, categories, tags and ids. For names, times and text the log is looked "
                        "through backwards, a part at a time."
                    ],
                ],
            ],
        ],
        chosen
        and div(".chips")[
            (
                a(
                    ".chip.removable",
                    href=request.here(**{**from_the_end, **_without(name)}),
                    title="Remove this filter",
                )[span(".muted")[_LABELS[name]], " ", visible(value, 60), span(".cross", aria_hidden="true")["×"]]
                for name, value in chosen
            )
        ],
    ]


def _without(name: str) -> dict[str, None]:
    # A stream has no meaning without its category.
    return {"category": None, "stream": None} if name == "category" else {name: None}


def go_page(site: Site, request: BrowserRequest) -> Steps[Answer]:  # noqa: PLR0911 - a case a line
    """Lead to what the text of the search box names: an event, a stream, a tag, a category; or else look for the text."""
    text = request.needed("q").strip()
    if not text:
        raise BadRequestError("There is nothing to look for.")
    if text.isascii() and text.lstrip("#").isdecimal() and len(text) < 20:
        return redirect(request.url(f"/event/{int(text.lstrip('#'))}"))
    event_id = _uuid(text)
    if event_id is not None:
        found: Sequence[AnyStoredEvent] = yield site.run(site.reads.find, ids=[event_id])
        return redirect(
            request.url(f"/event/{found[0].sequence_number}") if found else request.url("/", correlation=text)
        )
    category, _, stream = text.partition("/")
    if category and stream:
        return redirect(request.url("/", category=category, stream=stream))
    try:
        tagged: EventPage = yield site.run(site.reads.page, Filters(tag=text).target, size=1)
        if tagged.events:
            return redirect(request.url("/", tag=text))
        if (yield site.run(site.reads.inspection.streams, category=text, after=None, limit=1)):
            return redirect(request.url("/", category=text))
    except SerialisationError:
        # Too long for a name.
        return redirect(request.url("/", text=text))
    return redirect(request.url("/", text=text))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
