"""The frame of every page, and the parts that pages have in common: links to streams, names of events, rows of the log."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from htpy import (
    Element,
    Node,
    Renderable,
    a,
    body,
    button,
    code,
    dialog,
    div,
    footer,
    form,
    h1,
    h2,
    head,
    header,
    html,
    input,  # noqa: A004 - the element
    kbd,
    label,
    link,
    main,
    meta,
    nav,
    p,
    script,
    span,
    table,
    tbody,
    td,
    th,
    thead,
    title,
    tr,
)

from eventstore_sa.browser.json_text import parsed
from eventstore_sa.browser.redaction import Redaction
from eventstore_sa.browser.requests import BrowserRequest
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import moment, printable, size, visible
from eventstore_sa.browser.tree import preview
from eventstore_sa.errors import SerialisationError, UnreadableEventError
from eventstore_sa.types import AnyStoredEvent

__all__ = [
    "ASSETS",
    "asset_url",
    "badge",
    "card",
    "crumbs",
    "empty",
    "event_link",
    "event_row",
    "event_table",
    "framed",
    "name_of",
    "notice",
    "pager",
    "scrolling",
    "stream_link",
    "tag_chips",
    "unreadable_row",
]

_LARGEST_PREVIEW: Final = 100_000

_FOLDER: Final = files("eventstore_sa.browser") / "assets"
_KINDS: Final = {
    "browser.css": "text/css; charset=utf-8",
    "browser.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
ASSETS: Final[dict[str, tuple[bytes, str]]] = {
    name: ((_FOLDER / name).read_bytes(), kind) for name, kind in _KINDS.items()
}
"""The files that pages load, with their types."""

_VERSIONS: Final = {name: sha256(content).hexdigest()[:12] for name, (content, _) in ASSETS.items()}

_SECTIONS: Final = (
    ("log", "/", "Log"),
    ("categories", "/categories", "Categories"),
    ("projections", "/projections", "Projections"),
    ("subscriptions", "/subscriptions", "Subscriptions"),
    ("watermark", "/watermark", "Watermark"),
)
_KEYS: Final = (
    ("j", "next row"),
    ("k", "previous row"),
    ("Enter", "open the row"),
    ("/", "go to an event, a stream or a text"),
    ("n", "older, or next page"),
    ("p", "newer, or previous page"),
    ("u", "up: to the stream, the category, the log"),
    ("l", "live tail on or off"),
    ("?", "this list"),
)


def asset_url(request: BrowserRequest, name: str) -> str:
    """Return the address of a file, which changes with its content."""
    return request.url(f"/assets/{name}", v=_VERSIONS[name])


def framed(
    site: Site, request: BrowserRequest, heading: str, *content: Node, section: str = "", lead: Node = None
) -> Renderable:
    """Return a whole page.

    Args:
        site: The browser.
        request: What was asked for.
        heading: The title of the page.
        content: What is on it.
        section: In which part of the browser it is.
        lead: What stands above its content; by default its title alone.
    """
    return html(lang="en")[
        head[
            meta(charset="utf-8"),
            meta(name="viewport", content="width=device-width, initial-scale=1"),
            meta(name="color-scheme", content="light dark"),
            title[f"{printable(heading, 120)} · {site.title}"],
            link(rel="icon", href=asset_url(request, "icon.svg")),
            link(rel="stylesheet", href=asset_url(request, "browser.css")),
            script(src=asset_url(request, "browser.js"), defer=True),
        ],
        body[
            a(".skip", href="#content")["Skip to content"],
            header(".top")[
                a(".brand", href=request.url("/"))[_mark(), span[site.title]],
                nav(aria_label="Sections")[
                    (
                        a(href=request.url(path), aria_current="page" if key == section else None)[text]
                        for key, path, text in _SECTIONS
                    )
                ],
                form(".goto", action=request.url("/go"), method="get", role="search")[
                    label(".hidden-label", for_="goto")["Go to an event, a stream or a text"],
                    input(
                        "#goto",
                        name="q",
                        type="search",
                        placeholder="Number, id, category/stream, tag, or text",
                        autocomplete="off",
                        spellcheck="false",
                        required=True,
                    ),
                    kbd(aria_hidden="true")["/"],
                ],
            ],
            main("#content", tabindex="-1")[div(".lead")[h1[heading]] if lead is None else lead, content],
            footer[
                span["Read only. Times are in UTC."],
                button(".link", type="button", data_opens="keys", hidden=True)["Keyboard ", kbd["?"]],
            ],
            _key_list(),
        ],
    ]


def _mark() -> Node:
    return span(".mark", aria_hidden="true")[span, span, span]


def _key_list() -> Node:
    return dialog("#keys", aria_labelledby="keys-title")[
        h2("#keys-title")["Keyboard"],
        table[tbody[(tr[th(scope="row")[kbd[key]], td[what]] for key, what in _KEYS)]],
        form(method="dialog")[button["Close"]],
    ]


def card(heading: Node, *content: Node, actions: Node = None, kind: str = "", id: str | None = None) -> Node:
    """Return a part of a page with a heading of its own."""
    return div(f".card{kind}", id=id)[
        (heading is not None or actions is not None)
        and div(".card-head")[heading is not None and h2[heading], actions is not None and div(".actions")[actions]],
        content,
    ]


def crumbs(*parts: Node) -> Node:
    """Return the way from the whole to where the page is."""
    return nav(".crumbs", aria_label="Breadcrumbs")[
        ([number > 0 and span(aria_hidden="true")["/"], part] for number, part in enumerate(parts))
    ]


def scrolling(what: str) -> Element:
    """Return a frame for a table that may be wider than the page."""
    return div(".grid-scroll", tabindex="0", role="region", aria_label=what)


def empty(what: str, *hints: Node) -> Node:
    """Return what stands where there is nothing."""
    return div(".empty")[p(".empty-title")[what], (p[hint] for hint in hints)]


def notice(*content: Node, kind: str = "info") -> Node:
    """Return something that the reader should know."""
    return div(f".notice.{kind}", role="note")[content]


def badge(text: Node, kind: str = "") -> Node:
    """Return a short word in a frame."""
    return span(f".badge{f'.{kind}' if kind else ''}")[text]


def name_of(event: AnyStoredEvent) -> Node:
    """Return the name of an event, with a colour that all events of this name have, and its version if that is not 1."""
    text = str(event.name)
    colour = zlib.crc32(text.encode(errors="replace")) % 8
    return [
        span(f".dot.hue{colour}", aria_hidden="true"),
        span(".name")[visible(text, 120)],
        event.version != 1 and span(".version", title=f"Version {event.version}")[f"v{event.version}"],
    ]


def event_link(request: BrowserRequest, event: AnyStoredEvent) -> Node:
    """Return the name of an event as a link to it."""
    return a(".event", href=request.url(f"/event/{event.sequence_number}"))[name_of(event)]


def stream_link(request: BrowserRequest, category: str, stream: str) -> Node:
    """Return the name of a stream as links to its category and to itself."""
    return span(".stream")[
        a(".quiet", href=request.url("/", category=category))[visible(category, 60)],
        span(".slash")["/"],
        a(href=request.url("/", category=category, stream=stream))[visible(stream, 80)],
    ]


def tag_chips(request: BrowserRequest, tags: Sequence[str], most: int = 100) -> Node:
    """Return tags as links to the events that have them."""
    return [
        (a(".chip", href=request.url("/", tag=tag))[visible(tag, 60)] for tag in tags[:most]),
        len(tags) > most and span(".muted")[f"+{len(tags) - most}"],
    ]


def event_table(
    request: BrowserRequest,
    events: Sequence[AnyStoredEvent],
    unreadable: Sequence[UnreadableEventError],
    *,
    redaction: Redaction,
    by_position: bool = False,
    tail: str | None = None,
) -> Node:
    """Return rows of the log, the newest first.

    Args:
        request: What was asked for.
        events: The events, with payloads as JSON text.
        unreadable: What is among them, but cannot be read.
        redaction: What is hidden in payloads.
        by_position: Whether they are of one stream.
        tail: Where later ones come from.
    """
    rows: list[tuple[int, Node]] = [
        (event.sequence_number, event_row(request, event, redaction=redaction, by_position=by_position))
        for event in events
    ]
    rows += [(error.sequence_number or 0, unreadable_row(error)) for error in unreadable]
    return table(".events", data_tail=tail)[
        thead[
            tr[
                th(".numeric", scope="col")["Position" if by_position else "Number"],
                th(scope="col")["Event"],
                th(scope="col")["Number" if by_position else "Stream"],
                th(scope="col")["Observed"],
                th(scope="col")["Payload"],
            ]
        ],
        tbody[(row for _, row in sorted(rows, key=lambda row: -row[0]))],
    ]


def event_row(
    request: BrowserRequest, event: AnyStoredEvent, *, redaction: Redaction, by_position: bool = False
) -> Renderable:
    """Return an event as a row."""
    return tr(data_row=True, id=f"e{event.sequence_number}")[
        td(".numeric", data_label="Position" if by_position else "Number")[
            a(href=request.url(f"/event/{event.sequence_number}"), tabindex="-1")[
                str(event.position if by_position else event.sequence_number)
            ]
        ],
        td(".what")[event_link(request, event), tag_chips(request, sorted(event.tags), 3)],
        td(".where")[
            span(".muted")[f"#{event.sequence_number}"]
            if by_position
            else [stream_link(request, event.category, event.stream), span(".at")[f"@{event.position}"]]
        ],
        td(".when")[moment(event.observed_at)],
        td(".preview")[_preview_of(event.payload, redaction)],
    ]


def unreadable_row(error: UnreadableEventError) -> Node:
    """Return an event that cannot be read as a row."""
    return tr(".broken")[
        td(".numeric")[str(error.sequence_number)],
        td(colspan=4)[badge("cannot be read", "bad"), " ", visible(error.message, 400)],
    ]


def _preview_of(payload: Any, redaction: Redaction) -> Node:
    length = len(payload)
    if length > _LARGEST_PREVIEW:
        return span(".muted")[f"{size(length)} of JSON"]
    try:
        return code[visible(preview(parsed(payload), redaction))]
    except SerialisationError:
        return span(".muted")["not JSON that can be read"]


def pager(newer: str | None, older: str | None, *, first: str | None = None, note: Node = None) -> Node:
    """Return links to the pages beside this one."""
    if newer is None and older is None and first is None and note is None:
        return None
    return nav(".pager", aria_label="Pages")[
        span(".pages")[
            first is not None and a(".button", href=first)["Newest"],
            newer is not None and a(".button", href=newer, rel="prev")["← Newer"],
            older is not None and a(".button", href=older, rel="next")["Older →"],
        ],
        note is not None and span(".muted")[note],
    ]
