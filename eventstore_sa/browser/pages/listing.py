"""The categories, the streams of a category, and how far the log is complete."""

from __future__ import annotations

from collections.abc import Sequence

from htpy import Node, a, button, code, dd, div, dl, dt, form, h1, input, label, li, p, span, strong, ul  # noqa: A004

from eventstore_sa.browser.layout import badge, card, crumbs, empty, framed, pager
from eventstore_sa.browser.requests import Answer, BrowserRequest, page_answer
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import ago, moment, visible
from eventstore_sa.steps import Steps
from eventstore_sa.types import CategoryIdentifier, StreamIdentifier
from eventstore_sa.types.watermark import Watermark, WatermarkHolder

__all__ = ["categories_page", "just_before", "streams_page", "watermark_page"]

_SIZE = 200


def categories_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """List the categories."""
    after = request.text("after")
    found: Sequence[CategoryIdentifier] = yield site.run(site.reads.adapter.category_page, after=after, size=_SIZE)
    names = [each.category for each in found]
    listed = [
        li(data_row=True)[
            a(".main-link", href=request.url("/", category=name))[visible(name, 200)],
            a(".quiet", href=request.url("/streams", category=name))["streams"],
        ]
        for name in names
    ]
    return page_answer(
        framed(
            site,
            request,
            "Categories",
            card(None, ul(".list")[listed], kind=".flush")
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
    found: Sequence[StreamIdentifier] = yield site.run(
        site.reads.adapter.stream_page, category=category, after=above, size=_SIZE
    )
    names = [each.stream for each in found]
    listed = [
        li(data_row=True)[a(".main-link", href=request.url("/", category=category, stream=name))[visible(name, 200)]]
        for name in names
    ]
    return page_answer(
        framed(
            site,
            request,
            f"Streams of {category}",
            card(None, ul(".list.dense")[listed], kind=".flush") if listed else empty("No streams from here on"),
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


def watermark_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show how far the log is complete, and who holds it back."""
    watermark: Watermark = yield site.run(site.reads.adapter.watermark)
    holder = watermark.holder
    facts: list[tuple[str, Node]] = [
        (
            "Complete up to",
            a(href=request.url("/", before=watermark.sequence_number + 1))[strong[str(watermark.sequence_number)]],
        ),
        ("State", badge("held back", "bad") if holder is not None else badge("free", "good")),
    ]
    if holder is not None:
        facts += _holder(site, holder)
    return page_answer(
        framed(
            site,
            request,
            "Watermark",
            card(
                "The log",
                dl(".facts.wide")[([dt[name], dd[value]] for name, value in facts)],
            ),
            card(
                "What it means",
                p[
                    "Every event up to the watermark that will ever be stored can be seen. Later events may still be joined "
                    "by others with lower numbers, so readers of the log and of categories, subscriptions among them, wait "
                    "at the watermark. A transaction that has published and does not end holds it back."
                ],
                holder is not None
                and p[
                    "End that transaction, or the process that has forgotten it. On PostgreSQL: ",
                    code[
                        f"SELECT pg_terminate_backend({holder.pid})"
                        if holder.pid is not None
                        else "ROLLBACK PREPARED, or COMMIT PREPARED, with its name"
                    ],
                    ". An idle_in_transaction_session_timeout ends forgotten transactions by itself.",
                ],
            ),
            section="watermark",
        )
    )


def _holder(site: Site, holder: WatermarkHolder) -> list[tuple[str, Node]]:
    prepared = holder.pid is None
    return [
        ("Held back by", "a prepared transaction" if prepared else f"process {holder.pid}"),
        ("Name" if prepared else "Application", visible(holder.application_name or "unnamed", 200)),
        (
            "Since",
            span(".muted")["not visible for this role: grant it pg_read_all_stats"]
            if holder.since is None
            else [moment(holder.since), span(".muted")[" ", ago(holder.since, site.now())]],
        ),
    ]
