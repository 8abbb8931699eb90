"""What led to an event, and what followed from it.

Causes are found by their ids. What has the same correlation is found by the optional index of
`inspection_index("correlation")`; without it, it is looked for around the event, within a range of numbers that links make
larger, and so is what names the event as its cause and has another correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from htpy import Node, a, details, div, h1, p, summary

from eventstore_sa.browser.filters import causation_of, correlation_of
from eventstore_sa.browser.graph import forest_of, outline, picture
from eventstore_sa.browser.layout import card, crumbs, framed, name_of
from eventstore_sa.browser.pages.event import event_of
from eventstore_sa.browser.reads import Slice
from eventstore_sa.browser.requests import Answer, BrowserRequest, page_answer
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import plural, visible
from eventstore_sa.contracts.inspection import TraceSlice
from eventstore_sa.sources.constraints import metadata_contains
from eventstore_sa.steps import Steps
from eventstore_sa.types import AnyStoredEvent, LogIdentifier

__all__ = ["trace_page"]

_MOST_CAUSES: Final = 25
_MOST_EVENTS: Final = 150
_AROUND: Final = 5_000
_GROWTH: Final = 10


def trace_page(site: Site, request: BrowserRequest, number: str) -> Steps[Answer]:
    """Show causes and effects of an event."""
    event = yield from event_of(site, number)
    causes = yield from _causes(site, event)
    correlation = correlation_of(event, site.redaction) or str(event.id)
    around = request.number("around") or _AROUND
    first = min((each.sequence_number for each in causes), default=event.sequence_number)
    end: int = yield site.run(site.reads.end)
    low, high = max(1, first - around), min(event.sequence_number + around, max(end, event.sequence_number))
    # Looks at one number, unless there is an index: then it returns all of them.
    indexed: TraceSlice = yield site.run(
        site.reads.inspection.trace, correlation, before=None, limit=_MOST_EVENTS, within=1
    )
    is_indexed = indexed.next_before is None or len(indexed.events) > 1
    found: list[Slice] = []
    texts = {str(event.id)} if is_indexed else {correlation, str(event.id)}
    for text in sorted(texts):

        def belongs(other: AnyStoredEvent) -> bool:
            return (
                correlation_of(other, site.redaction) == correlation or causation_of(other, site.redaction) == event.id
            )

        found.append(
            (
                yield site.run(
                    site.reads.search,
                    LogIdentifier(),
                    before=high + 1,
                    floor=low,
                    size=_MOST_EVENTS,
                    constraints=[metadata_contains(text)],
                    keep=belongs,
                    budget_s=site.search_seconds,
                )
            )
        )
    events = {
        each.id: each for each in [event, *causes, *indexed.events, *(each for part in found for each in part.events)]
    }
    reached = max(low, *(part.looked_to for part in found))
    forest = forest_of(list(events.values()), site.redaction)
    wider = request.here(around=around * _GROWTH) if low > 1 or high < end else None
    return page_answer(
        framed(
            site,
            request,
            f"Causes and effects of {event.name} {event.sequence_number}",
            card(
                None,
                picture(request, forest, event.id),
            ),
            div(".search-progress", role="status")[
                p[
                    plural(len(events), "event"),
                    " with the correlation ",
                    visible(correlation, 80),
                    ", or on the way to this one. ",
                    "An index has found those with the correlation. " if is_indexed else None,
                    f"Looked at numbers {high:,} down to {reached:,}.",
                    len(events) >= _MOST_EVENTS and f" Only {_MOST_EVENTS} are drawn.",
                ],
                div(".pages")[
                    wider is not None and a(".button", href=wider)["Look further"],
                    a(".button", href=request.url("/", correlation=correlation))["As a list"],
                ],
            ],
            card(None, details(".as-text")[summary["As text"], outline(request, forest, event.id)]),
            section="log",
            lead=_lead(request, event),
        )
    )


def _causes(site: Site, event: AnyStoredEvent) -> Steps[Sequence[AnyStoredEvent]]:
    """Return what led to an event, the nearest first: one statement by id for each."""
    causes: list[AnyStoredEvent] = []
    last = event
    while len(causes) < _MOST_CAUSES and (cause := causation_of(last, site.redaction)) is not None:
        found: Sequence[AnyStoredEvent] = yield site.run(site.reads.find, ids=[cause])
        if not found or found[0].sequence_number >= last.sequence_number:
            break
        last = found[0]
        causes.append(last)
    return causes


def _lead(request: BrowserRequest, event: AnyStoredEvent) -> Node:
    here = request.url(f"/event/{event.sequence_number}")
    return div(".lead")[
        div[
            crumbs(
                a(href=request.url("/"))["Log"],
                a(href=request.url("/", category=event.category))[visible(event.category, 80)],
                a(href=request.url("/", category=event.category, stream=event.stream))[visible(event.stream, 80)],
                a(href=here)[f"event {event.sequence_number}"],
            ),
            h1(".event-title", data_up=here)["Causes and effects of ", name_of(event)],
        ]
    ]
