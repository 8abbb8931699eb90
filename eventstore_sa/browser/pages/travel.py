"""Time travel: the state of a projector after any event of a stream, and what that event changed in it.

The projector of the application runs here, on the events up to there. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from htpy import (
    Node,
    a,
    button,
    div,
    form,
    h1,
    input,  # noqa: A004 - the element
    label,
    option,
    p,
    select,
    span,
    table,
    tbody,
    td,
    th,
    thead,
    tr,
)
from msgspec import Struct

from eventstore_sa.browser.difference import Change, differences
from eventstore_sa.browser.layout import badge, card, crumbs, event_link, framed, notice
from eventstore_sa.browser.reads import EventPage
from eventstore_sa.browser.redaction import HIDDEN, Redaction
from eventstore_sa.browser.requests import Answer, BadRequestError, BrowserRequest, NotFoundError, page_answer
from eventstore_sa.browser.site import AnyProjector, Site
from eventstore_sa.browser.text import moment, shortened, visible
from eventstore_sa.browser.tree import preview, tree
from eventstore_sa.sources.constraints import position_after, position_before
from eventstore_sa.steps import Steps
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier, decode_json, encode_json, serialise_to_json_value

__all__ = ["state_page"]

_PART: Final = 500
_MOST_EVENTS: Final = 50_000
_MOST_CHANGES: Final = 200


class _Failed(Exception):  # noqa: N818 - it never leaves this module
    """The projector, or reading an event, has failed."""

    def __init__(self, error: Exception, position: int) -> None:
        super().__init__()
        self.error = error
        self.position = position


class _State(Struct, frozen=True):
    """A state as JSON, before and after the last event."""

    before: Any
    after: Any


def state_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show the state of a projector after an event of a stream."""
    name = request.needed("projector")
    projector = site.projectors.get(name)
    if projector is None:
        raise NotFoundError("This browser was not given a projector of this name.")
    if not projector.projects_streams:
        raise BadRequestError(
            "The projections of this projector are made of several streams, so it has no state of one of them."
        )
    stream = StreamIdentifier(request.needed("category"), request.needed("stream"))
    last: EventPage = yield site.run(site.reads.page, stream, size=1)
    if not last.events:
        raise NotFoundError("This stream has no events.")
    end = last.events[0].position
    asked = request.number("position")
    position = end if asked is None else min(asked, end)
    shown: EventPage = yield site.run(site.reads.page, stream, before=position + 1, size=1)
    event = next(iter(shown.events), None)
    content: Node
    try:
        state = yield from _projected(site, projector, stream, position)
    except _Failed as failure:
        content = notice(
            badge("failed", "bad"),
            f" No state can be made of the events up to position {failure.position}: ",
            _reason(site, failure.error),
            kind="bad",
        )
    else:
        content = [
            _changes(state, site.redaction),
            card("State after it", tree(state.after, redaction=site.redaction, links=None)),
        ]
    return page_answer(
        framed(
            site,
            request,
            f"State {name} of {stream.category}/{stream.stream} at {position}",
            _navigation(site, request, name, stream, position=position, end=end),
            event is not None and _event(request, event),
            content,
            section="log",
            lead=_lead(request, name, stream, position),
        )
    )


def _projected(site: Site, projector: AnyProjector, stream: StreamIdentifier, position: int) -> Steps[_State]:
    """Return the state before and after the event at a position.

    Raises:
        BadRequestError: If there are too many events.
        _Failed: If that is not possible.
    """
    if position >= _MOST_EVENTS:
        raise BadRequestError(
            f"A state is made here of at most {_MOST_EVENTS:,} events: look at an earlier position, or at what is stored."
        )
    source: Any = site.store.stream(category=stream.category, stream=stream.stream)
    reached = -1
    state: Any = projector.initial_state_factory()
    metadata: Any = projector.initial_metadata_factory()
    before: Any = _json_of(state, reached)
    while reached < position:
        # The last event by itself, because handlers may change the state that they are given.
        until = position if reached == position - 1 else min(reached + _PART, position - 1)
        constraints = frozenset({position_after(reached), position_before(until + 1)})
        if until == position:
            before = _json_of(state, reached)
        try:
            events: Sequence[AnyStoredEvent] = yield partial(source.read, constraints=constraints)
            reduce = projector.reduce if site.is_async else projector.reduce_sync
            state, metadata = yield partial(reduce, events=events, state=state, metadata=metadata)
        except Exception as error:
            raise _Failed(error, until) from error
        reached = until
    return _State(before, _json_of(state, reached))


def _json_of(state: Any, position: int) -> Any:
    try:
        return decode_json(encode_json(serialise_to_json_value(state)))
    except Exception as error:
        raise _Failed(error, max(position, 0)) from error


def _reason(site: Site, error: Exception) -> Node:
    # A message may quote what is to be hidden.
    text = type(error).__name__ if site.redaction.is_active else f"{type(error).__name__}: {error}"
    notes = [] if site.redaction.is_active else getattr(error, "__notes__", [])
    return [visible(shortened(text, 600)), (p[visible(note, 300)] for note in notes[:3])]


def _changes(state: _State, redaction: Redaction) -> Node:
    changes = list(islice(differences(state.before, state.after), _MOST_CHANGES + 1))
    if not changes:
        return card("What it changed", p(".muted")["Nothing: the state is the same as before this event."])
    cut = len(changes) > _MOST_CHANGES
    return card(
        "What it changed",
        table(".changes")[
            thead(".hidden-label")[tr[th(scope="col")["Kind"], th(scope="col")["Where"], th(scope="col")["Value"]]],
            tbody[(_change(state, change, redaction) for change in changes[:_MOST_CHANGES])],
        ],
        cut and p(".muted")[f"and more than {_MOST_CHANGES} others"],
    )


def _change(state: _State, change: Change, redaction: Redaction) -> Node:
    added = change.kind == "added"
    hidden = _is_hidden(state.after if added else state.before, change.path, redaction)
    value = HIDDEN if hidden else preview(change.value, _Below(redaction, change.path), 400)
    return tr(f".{change.kind}")[
        td(".sign")[span(aria_hidden="true")["+" if added else "−"], span(".hidden-label")[change.kind]],
        td(".path")[visible(".".join(map(str, change.path)) or "the whole state", 200)],
        td(".value")[visible(value)],
    ]


def _is_hidden(value: Any, path: tuple[str | int, ...], redaction: Redaction) -> bool:
    """Return whether the value at a path is hidden, or something on the way to it."""
    for length, step in enumerate(path, start=1):
        value = value[step]
        if redaction.hides(path[:length], value):
            return True
    return False


class _Below(Redaction):
    """What is hidden in a part of a value."""

    def __init__(self, redaction: Redaction, path: tuple[str | int, ...]) -> None:
        super().__init__(lambda steps, value: redaction.hides((*path, *steps), value))


def _event(request: BrowserRequest, event: AnyStoredEvent) -> Node:
    return card(
        None,
        div(".timeline")[
            span(".muted")["After"],
            event_link(request, event),
            span(".muted")[f"@{event.position}"],
            moment(event.observed_at),
        ],
    )


def _navigation(
    site: Site, request: BrowserRequest, name: str, stream: StreamIdentifier, *, position: int, end: int
) -> Node:
    names = [each for each, projector in site.projectors.items() if projector.projects_streams]
    return div(".inline")[
        a(".button", href=request.here(position=position - 1), data_key="p")["← Before"] if position > 0 else None,
        a(".button", href=request.here(position=position + 1), data_key="n")["After →"] if position < end else None,
        form(".inline", action=request.url("/state"), method="get")[
            input(type="hidden", name="category", value=stream.category),
            input(type="hidden", name="stream", value=stream.stream),
            label(".hidden-label", for_="projector")["Projector"],
            select("#projector", name="projector")[
                (option(value=each, selected=each == name)[shortened(each, 60)] for each in names)
            ],
            label(".hidden-label", for_="position")["Position"],
            input("#position", name="position", type="number", min="0", max=str(end), value=str(position)),
            button["Show"],
            span(".muted")[f"of {end}"],
        ],
    ]


def _lead(request: BrowserRequest, name: str, stream: StreamIdentifier, position: int) -> Node:
    up = request.url("/", category=stream.category, stream=stream.stream)
    return div(".lead")[
        div[
            crumbs(
                a(href=request.url("/"))["Log"],
                a(href=request.url("/", category=stream.category))[visible(stream.category, 80)],
                a(href=up)[visible(stream.stream, 80)],
                span["state"],
            ),
            h1(data_up=up)[visible(name, 80), span(".at-position")[f" at position {position}"]],
        ]
    ]
