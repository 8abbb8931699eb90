"""The categories, the streams of a category, and how far the log is complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from htpy import (
    Node,
    a,
    button,
    code,
    dd,
    div,
    dl,
    dt,
    form,
    h1,
    input,  # noqa: A004 - the element
    label,
    p,
    span,
    strong,
    table,
    tbody,
    td,
    th,
    thead,
    tr,
)

from eventstore_sa.browser.layout import badge, card, crumbs, empty, framed, pager, scrolling
from eventstore_sa.browser.requests import Answer, BrowserRequest, page_answer
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import ago, moment, plural, visible
from eventstore_sa.contracts.inspection import CategorySummary, HeldBack, StreamSummary, WatermarkReport
from eventstore_sa.steps import Steps

__all__ = ["categories_page", "just_before", "streams_page", "watermark_page"]

_SIZE: Final = 100
_CATEGORY_HEADS: Final = ("Category", "Last event", "Observed", "Streams")
_STREAM_HEADS: Final = ("Stream", "Events", "Last event", "Name", "Observed")
_HOLDER_HEADS: Final = ("Held back by", "Application", "Role", "State", "At", "Since")
_NUMBERS: Final = ("Last event", "Events", "At")


def categories_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """List the categories."""
    after = request.text("after")
    found: Sequence[CategorySummary] = yield site.run(site.reads.inspection.categories, after=after, limit=_SIZE)
    names = [each.category for each in found]
    listed = [
        tr(data_row=True)[
            td[a(".main-link", href=request.url("/", category=each.category))[visible(each.category, 200)]],
            td(".numeric")[_event(request, each.last_sequence_number)],
            td(".when")[moment(each.last_observed_at)],
            td[a(".quiet", href=request.url("/streams", category=each.category))["streams"]],
        ]
        for each in found
    ]
    return page_answer(
        framed(
            site,
            request,
            "Categories",
            _table("Categories", _CATEGORY_HEADS, listed)
            if listed
            else empty("No categories", "Nothing is published yet."),
            _next(request, names, after),
            section="categories",
        )
    )


def streams_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """List the streams of a category."""
    category = request.needed("category")
    begin, after = request.text("begin"), request.text("after")
    above = after if after is not None else None if begin is None else just_before(begin)
    found: Sequence[StreamSummary] = yield site.run(
        site.reads.inspection.streams, category=category, after=above, limit=_SIZE
    )
    names = [each.stream for each in found]
    listed = [
        tr(data_row=True)[
            td[
                a(".main-link", href=request.url("/", category=category, stream=each.stream))[visible(each.stream, 200)]
            ],
            td(".numeric")[f"{each.events:,}"],
            td(".numeric")[_event(request, each.last_sequence_number)],
            td[visible(each.last_name, 120)],
            td(".when")[moment(each.last_observed_at)],
        ]
        for each in found
    ]
    return page_answer(
        framed(
            site,
            request,
            f"Streams of {category}",
            _table("Streams", _STREAM_HEADS, listed) if listed else empty("No streams from here on"),
            _next(request, names, above),
            section="categories",
            lead=div(".lead")[
                div[
                    crumbs(
                        a(href=request.url("/categories"))["Categories"],
                        a(href=request.url("/", category=category))[visible(category, 80)],
                    ),
                    h1(data_up=request.url("/categories"))["Streams"],
                ],
                form(".inline", action=request.url("/streams"), method="get")[
                    input(type="hidden", name="category", value=category),
                    label(".hidden-label", for_="begin")["Begin at"],
                    input("#begin", name="begin", value=begin, placeholder="Begin at…", autocomplete="off"),
                    button["Show"],
                ],
            ],
        )
    )


def _next(request: BrowserRequest, names: Sequence[str], after: str | None) -> Node:
    further = request.here(after=names[-1], begin=None) if len(names) == _SIZE else None
    first = request.here(after=None, begin=None) if after is not None else None
    return pager(None, further, first=first) if further or first else None


def just_before(begin: str) -> str | None:
    """Return a text that sorts before another, with next to nothing in between."""
    last = ord(begin[-1]) - 1
    if last <= 0:
        return begin[:-1] or None
    return f"{begin[:-1]}{chr(last if not 0xD800 <= last <= 0xDFFF else 0xD7FF)}\U0010ffff"


def _table(what: str, heads: Sequence[str], rows: Sequence[Node]) -> Node:
    return card(
        None,
        scrolling(what)[
            table(".grid")[
                thead[tr[(th(".numeric" if head in _NUMBERS else "", scope="col")[head] for head in heads)]],
                tbody[rows],
            ]
        ],
        kind=".flush",
    )


def _event(request: BrowserRequest, sequence_number: int) -> Node:
    return a(".quiet", href=request.url(f"/event/{sequence_number}"))[str(sequence_number)]


def watermark_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show how far the log is complete, and who holds it back."""
    report: WatermarkReport = yield site.run(site.reads.inspection.watermark)
    number = report.sequence_number
    facts: list[tuple[str, Node]] = [
        ("Complete up to", a(href=request.url("/", before=number + 1))[strong[str(number)]]),
        ("Last number", str(report.last_number)),
        ("Behind", plural(max(0, report.last_number - number), "number")),
        ("State", badge("held back", "bad") if report.holders else badge("free", "good")),
    ]
    return page_answer(
        framed(
            site,
            request,
            "Watermark",
            card("The log", dl(".facts.wide")[([dt[name], dd[value]] for name, value in facts)]),
            _table("Held back by", _HOLDER_HEADS, [_holder(site, each) for each in report.holders])
            if report.holders
            else None,
            card(
                "What it means",
                p[
                    "Every event up to the watermark that will ever be stored can be seen. Later events may still be joined "
                    "by others with lower numbers, so readers of the log and of categories, subscriptions among them, wait "
                    "at the watermark. A transaction that has published and does not end holds it back."
                ],
                p["To end one, on PostgreSQL: ", code[_remedy(report.holders[0])]] if report.holders else None,
                p["An idle_in_transaction_session_timeout ends forgotten transactions by itself."],
            ),
            section="watermark",
        )
    )


def _remedy(holder: HeldBack) -> str:
    if holder.pid is None:
        return "ROLLBACK PREPARED, or COMMIT PREPARED, with its name"
    return f"SELECT pg_terminate_backend({holder.pid})"


def _holder(site: Site, holder: HeldBack) -> Node:
    unseen = span(".muted")["not shown to this role"]
    return tr[
        td["a prepared transaction" if holder.pid is None else f"process {holder.pid}"],
        td[visible(holder.application_name or "unnamed", 200)],
        td[unseen if holder.user is None else visible(holder.user, 100)],
        td[unseen if holder.state is None else visible(holder.state, 100)],
        td(".numeric")[str(holder.sequence_number)],
        td[
            unseen
            if holder.since is None
            else [moment(holder.since), span(".muted")[" ", ago(holder.since, site.now())]]
        ],
    ]
