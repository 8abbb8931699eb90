"""One event: what it says, when, of what, in the form that is stored and in the one that the application reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from htpy import Node, a, button, code, dd, div, dl, dt, h1, p, pre, span

from eventstore_sa.browser.filters import causation_of, correlation_of
from eventstore_sa.browser.json_text import parsed
from eventstore_sa.browser.layout import badge, card, crumbs, framed, name_of, notice, tag_chips
from eventstore_sa.browser.reads import EventPage
from eventstore_sa.browser.requests import (
    Answer,
    BrowserRequest,
    NotFoundError,
    json_answer,
    number_of,
    page_answer,
    redirect,
)
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import ago, moment, size, visible
from eventstore_sa.browser.tree import NO_SUCH_PLACE, Place, TreeLinks, place_of_text, text_of_place, tree, walk_to
from eventstore_sa.errors import EventStoreError, SerialisationError
from eventstore_sa.steps import Steps
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier, serialise_to_json_value
from eventstore_sa.types.event_types import with_payload

__all__ = ["event_json", "event_of", "event_page", "step_page", "value_page"]

_RAW_TEXT_SHOWN: Final = 20_000


def event_of(site: Site, number: str) -> Steps[AnyStoredEvent]:
    """Return an event, with JSON text as its payload.

    Raises:
        NotFoundError: If there is none.
    """
    wanted = number_of(number, "event")
    found: Sequence[AnyStoredEvent] = yield site.run(site.reads.find, sequence_numbers=[wanted])
    if not found:
        raise NotFoundError(
            f"There is no event {wanted}. Numbers have gaps: those of transactions that were rolled back are not used again."
        )
    return found[0]


def event_page(site: Site, request: BrowserRequest, number: str) -> Steps[Answer]:
    """Show an event."""
    event = yield from event_of(site, number)
    read, problem = _as_read(site, event)
    forms: list[Node] = []
    try:
        stored = parsed(event.payload)
    except SerialisationError as error:
        forms.append(_unparsed(site, request, event, error))
    else:
        if read is not None and (read != stored or problem is not None):
            forms.append(
                _form(site, request, event, "read", value=read, heading="Payload", note="as the application reads it")
            )
            forms.append(
                _form(
                    site,
                    request,
                    event,
                    "payload",
                    value=stored,
                    heading="Payload as stored",
                    note=f"version {event.version}",
                )
            )
        else:
            forms.append(
                _form(site, request, event, "payload", value=stored, heading="Payload", note=size(len(event.payload)))
            )
    if problem is not None:
        forms.insert(0, notice(badge("cannot be read", "bad"), " ", visible(problem, 1000), kind="bad"))
    return page_answer(
        framed(
            site,
            request,
            f"{event.name} {event.sequence_number}",
            div(".columns")[
                div(".main-column")[
                    forms,
                    _form(site, request, event, "metadata", value=event.metadata, heading="Metadata", note=None),
                ],
                div(".side-column")[_facts(site, request, event), _connections(site, request, event)],
            ],
            section="log",
            lead=_lead(request, event),
        )
    )


def event_json(site: Site, request: BrowserRequest, number: str, form: str) -> Steps[Answer]:
    """Return an event, or one form of its payload or its metadata, as JSON."""
    event = yield from event_of(site, number)
    if form == "event":
        value = with_payload(event, event.name, site.redaction.applied(parsed(event.payload))).serialise()
        return json_answer({**value, "metadata": site.redaction.applied(event.metadata)})
    if form == "payload" and not site.redaction.is_active:
        return json_answer(event.payload if isinstance(event.payload, bytes) else event.payload.encode())
    return json_answer(site.redaction.applied(_value_of(site, event, form)))


def step_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Lead to the event before or after another in its stream, or to the stream if there is none."""
    category, stream = request.needed("category"), request.needed("stream")
    position = request.number("position") or 0
    way = {"before": position} if request.text("to") == "back" else {"after": position}
    page: EventPage = yield site.run(site.reads.page, StreamIdentifier(category, stream), **way, size=1)
    if page.events:
        return redirect(request.url(f"/event/{page.events[0].sequence_number}"))
    return redirect(request.url("/", category=category, stream=stream))


def value_page(site: Site, request: BrowserRequest, number: str, form: str) -> Steps[Answer]:
    """Show a part of a payload or of metadata that has no room on the page of the event."""
    event = yield from event_of(site, number)
    place, start = place_of_text(request.text("at")), request.number("start") or 0
    whole = _value_of(site, event, form)
    path, value = ((), NO_SUCH_PLACE) if place is None else walk_to(whole, place, site.redaction)
    if place is None or value is NO_SUCH_PLACE:
        raise NotFoundError("There is nothing at this place.")
    own = request.url(f"/event/{event.sequence_number}/{form}")
    steps = [a(href=own)[form]]
    for length in range(max(1, len(path) - 3), len(path) + 1):
        if path:
            step = path[length - 1]
            steps.append(a(href=_value_url(request, event, form, place[:length], 0))[visible(str(step), 40)])
    links = _links(request, event, form)
    return page_answer(
        framed(
            site,
            request,
            f"{form} of {event.name} {event.sequence_number}",
            card(
                crumbs(*steps[:1], *([span["…"]] if len(path) > 4 else []), *steps[1:]),
                tree(value, redaction=site.redaction, links=links, path=path, place=place, start=start),
                actions=start > 0
                and a(".button", href=_value_url(request, event, form, place, 0))["From the beginning"],
            ),
            section="log",
            lead=_lead(request, event, within=form),
        )
    )


def _lead(request: BrowserRequest, event: AnyStoredEvent, within: str | None = None) -> Node:
    here = request.url(f"/event/{event.sequence_number}")
    stream = request.url("/", category=event.category, stream=event.stream)
    return div(".lead")[
        div[
            crumbs(
                a(href=request.url("/"))["Log"],
                a(href=request.url("/", category=event.category))[visible(event.category, 80)],
                a(href=stream)[visible(event.stream, 80)],
                *([a(href=here)[f"event {event.sequence_number}"]] if within is not None else []),
            ),
            h1(".event-title", data_up=here if within is not None else stream)[name_of(event)],
        ],
        within is None
        and div(".actions")[
            a(
                ".button",
                href=request.url(
                    "/step", category=event.category, stream=event.stream, position=event.position, to="back"
                ),
                data_key="p",
                title="The event before it in its stream",
            )["← Previous"]
            if event.position > 0
            else None,
            a(
                ".button",
                href=request.url(
                    "/step", category=event.category, stream=event.stream, position=event.position, to="on"
                ),
                data_key="n",
                title="The event after it in its stream",
            )["Next →"],
            a(".button", href=request.url(f"/event/{event.sequence_number}/trace"))["Causes and effects"],
        ],
    ]


def _facts(site: Site, request: BrowserRequest, event: AnyStoredEvent) -> Node:
    tags = sorted(event.tags)
    at = request.url("/", category=event.category, stream=event.stream, before=event.position + 26)
    around = request.url("/", before=event.sequence_number + 26)
    facts: list[tuple[str, Node]] = [
        ("Number", a(href=around, title="In the log")[str(event.sequence_number)]),
        (
            "Stream",
            a(href=request.url("/", category=event.category, stream=event.stream))[
                visible(event.category, 80), span(".slash")["/"], visible(event.stream, 200)
            ],
        ),
        ("Position", a(href=at, title="In the stream")[str(event.position)]),
        ("Version", str(event.version)),
        ("Occurred", moment(event.occurred_at)),
        ("Observed", [moment(event.observed_at), div(".since")[ago(event.observed_at, site.now())]]),
        ("Id", code(".id")[str(event.id)]),
    ]
    if tags:
        facts.append(("Tags", div(".chips")[tag_chips(request, tags)]))
    return card(
        "Event",
        dl(".facts")[([dt[name], dd[value]] for name, value in facts)],
        actions=_copying(request.url(f"/event/{event.sequence_number}.json")),
    )


def _connections(site: Site, request: BrowserRequest, event: AnyStoredEvent) -> Node:
    cause, correlation = causation_of(event, site.redaction), correlation_of(event, site.redaction)
    facts: list[tuple[str, Node]] = []
    if cause is not None:
        facts.append(("Caused by", a(href=request.url("/go", q=str(cause)))[code(".id")[str(cause)]]))
    if correlation is not None:
        facts.append(("Correlation", a(href=request.url("/", correlation=correlation))[visible(correlation, 100)]))
    states = [
        a(
            ".row-link",
            href=request.url(
                "/state", projector=name, category=event.category, stream=event.stream, position=event.position
            ),
        )["State of ", span(".name")[visible(name, 60)], " after this event"]
        for name, projector in site.projectors.items()
        if projector.projects_streams and projector.takes(event)
    ]
    if not facts and not states:
        return None
    return card("Connections", facts and dl(".facts")[([dt[name], dd[value]] for name, value in facts)], states)


def _form(
    site: Site, request: BrowserRequest, event: AnyStoredEvent, form: str, *, value: Any, heading: str, note: Node
) -> Node:
    return card(
        [heading, note is not None and span(".muted.note")[note]],
        p(".muted.none")["None"]
        if value is None
        else tree(value, redaction=site.redaction, links=_links(request, event, form)),
        actions=None if value is None else _copying(_json_url(request, event, form)),
        id=form,
    )


def _unparsed(site: Site, request: BrowserRequest, event: AnyStoredEvent, error: SerialisationError) -> Node:
    text = event.payload if isinstance(event.payload, str) else event.payload.decode(errors="replace")
    return card(
        ["Payload", span(".muted.note")[size(len(text))]],
        notice("It cannot be shown as a tree: ", visible(error.message, 300), kind="bad"),
        not site.redaction.is_active and pre(".raw")[visible(text, _RAW_TEXT_SHOWN)],
        actions=not site.redaction.is_active and _copying(_json_url(request, event, "payload")),
    )


def _copying(url: str) -> Node:
    return [
        button(".button", type="button", data_copy=url, hidden=True)["Copy as JSON"],
        a(".button", href=url)["JSON"],
    ]


def _json_url(request: BrowserRequest, event: AnyStoredEvent, form: str) -> str:
    return request.url(f"/event/{event.sequence_number}/{form}.json")


def _value_url(request: BrowserRequest, event: AnyStoredEvent, form: str, place: Place, start: int) -> str:
    return request.url(f"/event/{event.sequence_number}/{form}", at=text_of_place(place), start=start or None)


def _links(request: BrowserRequest, event: AnyStoredEvent, form: str) -> TreeLinks:
    return partial(_value_url, request, event, form)


def _value_of(site: Site, event: AnyStoredEvent, form: str) -> Any:
    if form == "payload":
        return parsed(event.payload)
    if form == "metadata":
        return event.metadata
    read, _ = _as_read(site, event)
    if form != "read" or read is None:
        raise NotFoundError("There is no such form of this event.")
    return read


def _as_read(site: Site, event: AnyStoredEvent) -> tuple[Any, str | None]:
    """Return the payload as the event types of the store read it, as JSON; or None, and why they cannot."""
    if site.types is None:
        return None, None
    try:
        read = site.as_read(with_payload(event, event.name, parsed(event.payload)))
        return (None, None) if read is None else (serialise_to_json_value(read.payload), None)
    except EventStoreError as error:
        return None, f"{type(error).__name__}: {error.message}"
    except Exception as error:  # noqa: BLE001 - whatever the classes of the application raise
        return None, type(error).__name__
