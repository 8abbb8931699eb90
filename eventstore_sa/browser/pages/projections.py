"""Stored projections: their names, those of a name, a search among them, and a single one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
    li,
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
    ul,
)
from msgspec import Struct

from eventstore_sa.browser.json_text import parsed
from eventstore_sa.browser.layout import card, crumbs, empty, framed, pager, scrolling
from eventstore_sa.browser.pages.listing import just_before
from eventstore_sa.browser.requests import Answer, BadRequestError, BrowserRequest, NotFoundError, page_answer
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import plural, size, visible
from eventstore_sa.browser.tree import preview, tree
from eventstore_sa.contracts.projection_records import ProjectionRecord
from eventstore_sa.errors import SerialisationError
from eventstore_sa.projection import ProjectionStore, SyncProjectionStore
from eventstore_sa.projection.adapters import SyncProjectionStorageAdapter
from eventstore_sa.query import FilterClause, Operator, Path
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.evaluation import FIELDS, Evaluation
from eventstore_sa.steps import Steps
from eventstore_sa.types import decode_json

__all__ = ["projection_page", "projections_page"]

_SIZE: Final = 50
_SEARCHED: Final = 500
_LARGEST_PREVIEW: Final = 100_000
_OPERATORS: Final = {
    "=": Operator.EQUAL,
    "≠": Operator.NOT_EQUAL,
    ">": Operator.GREATER_THAN,
    "≥": Operator.GREATER_THAN_OR_EQUAL,
    "<": Operator.LESS_THAN,
    "≤": Operator.LESS_THAN_OR_EQUAL,
    "has": Operator.CONTAINS,
}


class _Found(Struct, frozen=True):
    """Some projections of a name.

    Attributes:
        records: Those that were found.
        looked_at: How many were looked at.
        last_id: The last id that was looked at.
        more: Whether there may be more.
    """

    records: Sequence[ProjectionRecord]
    looked_at: int
    last_id: str | None
    more: bool


def projections_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """List the names of projections, or the projections of a name."""
    name = request.text("name")
    storage = _storage(site)
    if name is None:
        return (yield from _names_page(site, request, storage))
    begin, after = request.text("begin"), request.text("after")
    above = after if after is not None else None if begin is None else just_before(begin)
    clause = _clause(site, request)
    found: _Found = yield site.run(_looked_for, site, storage, name, above, clause)
    listed = [_row(site, request, record) for record in found.records]
    further = request.here(after=found.last_id, begin=None) if found.more else None
    first = request.here(after=None, begin=None) if above is not None else None
    return page_answer(
        framed(
            site,
            request,
            f"Projections {name}",
            _search_form(request, name),
            card(
                None,
                scrolling("Projections")[
                    table(".grid")[
                        thead[tr[(th(scope="col")[text] for text in ("Id", "Version", "State"))]],
                        tbody[listed],
                    ]
                ],
                kind=".flush",
            )
            if listed
            else empty("No projection found", "There are none, or none of those looked at meets the condition."),
            pager(
                None,
                further,
                first=first,
                note=clause is not None
                and f"{plural(found.looked_at, 'projection')} looked at, in the order of their ids"
                + ("." if not found.more else ", and there are more."),
            ),
            section="projections",
            lead=div(".lead")[
                div[
                    crumbs(a(href=request.url("/projections"))["Projections"]),
                    h1(data_up=request.url("/projections"))[visible(name, 200)],
                ]
            ],
        )
    )


def projection_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show a projection."""
    name, id = request.needed("name"), request.needed("id")  # noqa: A001
    batch: Any = yield site.run(_storage(site).load_batch, name=name, ids=[id])
    record: ProjectionRecord | None = batch.get(id)
    if record is None:
        raise NotFoundError("There is no such projection.")
    source, source_link = _source(request, record)
    facts: list[tuple[str, Node]] = [
        ("Id", visible(record.id, 400)),
        ("Source", source_link),
        ("Version", [str(record.version), span(".muted")[" saved so many times"]]),
        (
            "Last event",
            span(".muted")["saved by hand"]
            if record.sequence_number is None
            else a(href=request.url(f"/event/{record.sequence_number}"))[str(record.sequence_number)],
        ),
    ]
    projector = site.projectors.get(name)
    travels = projector is not None and projector.projects_streams and source is not None
    above = request.url("/projections", name=name)
    return page_answer(
        framed(
            site,
            request,
            f"{name} {id}",
            div(".columns")[
                div(".main-column")[
                    card("State", _tree(site, record.state)),
                    card("Metadata", _tree(site, record.metadata)),
                ],
                div(".side-column")[card("Projection", dl(".facts")[([dt[key], dd[value]] for key, value in facts)])],
            ],
            section="projections",
            lead=div(".lead")[
                div[
                    crumbs(a(href=request.url("/projections"))["Projections"], a(href=above)[visible(name, 80)]),
                    h1(data_up=above)[visible(id, 200)],
                ],
                travels
                and source is not None
                and div(".actions")[
                    a(
                        ".button",
                        href=request.url("/state", projector=name, category=source[0], stream=source[1]),
                    )["Time travel"]
                ],
            ],
        )
    )


def _storage(site: Site) -> SyncProjectionStorageAdapter:
    adapter: Any = ProjectionStore(site.store).adapter if site.is_async else SyncProjectionStore(site.store).adapter
    found: SyncProjectionStorageAdapter = adapter.sync_adapter if site.is_async else adapter
    return found


def _names_page(site: Site, request: BrowserRequest, storage: SyncProjectionStorageAdapter) -> Steps[Answer]:
    after = request.text("after")
    names: Sequence[str] = yield site.run(storage.name_page, after=after, size=200)
    further = request.here(after=names[-1]) if len(names) == 200 else None
    return page_answer(
        framed(
            site,
            request,
            "Projections",
            card(
                None,
                ul(".list")[
                    (
                        li(data_row=True)[
                            a(".main-link", href=request.url("/projections", name=name))[visible(name, 200)],
                            name in site.projectors and span(".muted")["time travel"],
                        ]
                        for name in names
                    )
                ],
                kind=".flush",
            )
            if names
            else empty(
                "No stored projections", "A ProjectionStore, inline projections and subscriptions keep them here."
            ),
            pager(None, further),
            section="projections",
        )
    )


def _looked_for(
    site: Site, storage: SyncProjectionStorageAdapter, name: str, after: str | None, clause: FilterClause | None
) -> _Found:
    """Read projections in the order of their ids; with a condition, a part of them is looked at."""
    if clause is None:
        records, more = storage.record_page(name=name, after=after, size=_SIZE)
        return _Found(records, len(records), records[-1].id if records else after, more and bool(records))
    records, more = storage.record_page(name=name, after=after, size=_SEARCHED)
    evaluation = Evaluation(QueryConverters())
    found: list[ProjectionRecord] = []
    looked_at = 0
    for record in records:
        looked_at += 1
        if evaluation.meets(_shown(site, record), [clause]):
            found.append(record)
            if len(found) == _SIZE:
                break
    last = records[looked_at - 1].id if looked_at else after
    return _Found(found, looked_at, last, bool(records) and (more or looked_at < len(records)))


def _shown(site: Site, record: ProjectionRecord) -> Any:
    """Return what conditions are compared with: what is hidden cannot be found by its value."""
    document = record.document()
    parts = {part: site.redaction.applied(document[part]) for part in ("state", "metadata")}
    return {**document, **parts}


def _clause(site: Site, request: BrowserRequest) -> FilterClause | None:
    field, value = request.text("field"), request.query.get("value", "")
    if field is None:
        return None
    operator = _OPERATORS.get(request.text("is") or "=")
    if operator is None:
        raise BadRequestError("There is no such comparison.")
    top, *steps = field.split(".")
    if top not in FIELDS:
        top, steps = "state", [top, *steps]
    below = tuple(int(step) if step.isascii() and step.isdecimal() and len(step) < 9 else step for step in steps)
    # By names alone; what a function says of values is asked for each projection.
    names = tuple(step for step in below if isinstance(step, str))
    if site.redaction.is_active and any(
        site.redaction.hides(path[:length], None) for path in (below, names) for length in range(1, len(path) + 1)
    ):
        raise BadRequestError("This field is hidden, so it cannot be looked for.")
    return FilterClause(operator, Path(top, *below), _value(value))


def _value(text: str) -> Any:
    try:
        return decode_json(text)
    except SerialisationError:
        return text


def _search_form(request: BrowserRequest, name: str) -> Node:
    return form(".inline", action=request.url("/projections"), method="get")[
        input(type="hidden", name="name", value=name),
        label(".hidden-label", for_="begin")["Begin at id"],
        input("#begin", name="begin", value=request.query.get("begin") or None, placeholder="Begin at id…"),
        label(".hidden-label", for_="field")["Field"],
        input(
            "#field", name="field", value=request.query.get("field") or None, placeholder="Field, such as state.total"
        ),
        label(".hidden-label", for_="is")["Comparison"],
        select("#is", name="is")[
            (option(value=key, selected=key == request.query.get("is"))[key] for key in _OPERATORS)
        ],
        label(".hidden-label", for_="value")["Value"],
        input("#value", name="value", value=request.query.get("value") or None, placeholder="Value"),
        button["Search"],
    ]


def _row(site: Site, request: BrowserRequest, record: ProjectionRecord) -> Node:
    return tr(data_row=True)[
        td[a(".main-link", href=request.url("/projection", name=record.name, id=record.id))[visible(record.id, 200)]],
        td(".numeric")[str(record.version)],
        td(".preview")[_preview(site, record.state)],
    ]


def _preview(site: Site, text: str) -> Node:
    if len(text) > _LARGEST_PREVIEW:
        return span(".muted")[f"{size(len(text))} of JSON"]
    try:
        return code[visible(preview(parsed(text), site.redaction))]
    except SerialisationError:
        return span(".muted")["not JSON that can be read"]


def _tree(site: Site, text: str) -> Node:
    try:
        value = parsed(text)
    except SerialisationError as error:
        return p(".muted")[visible(error.message, 300)]
    return p(".muted")["None"] if value is None else tree(value, redaction=site.redaction, links=None)


def _source(request: BrowserRequest, record: ProjectionRecord) -> tuple[tuple[str, str] | None, Node]:
    match decode_json(record.source):
        case {"type": "stream", "category": str(category), "stream": str(stream)}:
            return (category, stream), a(href=request.url("/", category=category, stream=stream))[
                visible(category, 80), "/", visible(stream, 120)
            ]
        case {"type": "category", "category": str(category)}:
            return None, a(href=request.url("/", category=category))["category ", visible(category, 120)]
        case {"type": "log"}:
            return None, a(href=request.url("/"))["the log"]
        case _:
            return None, code[visible(record.source, 300)]
