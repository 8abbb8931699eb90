"""Subscriptions: how far each is, who runs it, and which events it keeps aside."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from htpy import Node, a, div, h1, p, span, table, tbody, td, th, thead, tr

from eventstore_sa.browser.layout import badge, card, crumbs, empty, framed, notice, pager, scrolling, stream_link
from eventstore_sa.browser.requests import Answer, BrowserRequest, NotFoundError, page_answer
from eventstore_sa.browser.site import Site
from eventstore_sa.browser.text import ago, duration, plural, visible
from eventstore_sa.contracts.subscriptions import (
    ParkedEvent,
    ParkedState,
    PartitionRecord,
    PartitionState,
    SubscriptionStorage,
    Survey,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.steps import Steps

__all__ = ["subscription_page", "subscriptions_page"]

_PARKED: Final = 100
_MOST_LAGS: Final = 8
_MOST_LOOKED_INTO: Final = 20
_NUMBERS: Final = ("Checkpoint", "Behind", "Waiting", "Handled", "Per second", "Partition", "Attempts", "Event")
_STATES: Final = {PartitionState.RUNNING: "good", PartitionState.PAUSED: "warn", PartitionState.STOPPED: "bad"}
_PARKED_STATES: Final = {ParkedState.PARKED: "bad", ParkedState.HELD: "warn", ParkedState.SKIPPED: ""}


def subscriptions_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """List the subscriptions."""
    try:
        storage: SubscriptionStorage = site.reads.adapter.subscription_storage()
    except ConfigurationError as error:
        return page_answer(
            framed(
                site,
                request,
                "Subscriptions",
                empty("No subscriptions here", visible(error.message, 300)),
                section="subscriptions",
            )
        )
    survey: Survey = yield site.run(storage.survey)
    end: int = yield site.run(storage.last_number)
    found = {name: list(records) for name, records in groupby(survey.partitions, lambda record: record.name)}
    parking: set[str] = set()
    for name in list(found)[:_MOST_LOOKED_INTO]:
        if (yield site.run(storage.has_parked, name)):
            parking.add(name)
    rows = [_row(site, request, records, end, is_parking=name in parking) for name, records in found.items()]
    rows += [
        tr[
            td[visible(name, 120)],
            td[badge("never run", "")],
            td(".numeric")["–"],
            td(".numeric")["–"],
            td["–"],
            td["–"],
        ]
        for name in site.subscriptions
        if name not in found
    ]
    return page_answer(
        framed(
            site,
            request,
            "Subscriptions",
            card(
                None,
                scrolling("Subscriptions")[
                    table(".grid")[
                        thead[
                            tr[
                                (
                                    _head(text)
                                    for text in ("Name", "State", "Checkpoint", "Behind", "Run by", "Last moved")
                                )
                            ]
                        ],
                        tbody[rows],
                    ]
                ],
                kind=".flush",
            )
            if rows
            else empty("No subscriptions", "They are listed here once they have run, or been given to the browser."),
            p(".muted")[
                plural(len(survey.nodes), "process runs", "processes run") if survey.nodes else "No process runs",
                " subscriptions at the moment",
                [
                    [": " if index == 0 else ", ", visible(node.name, 80)]
                    for index, node in enumerate(survey.nodes[:20])
                ],
                ".",
            ],
            section="subscriptions",
        )
    )


def subscription_page(site: Site, request: BrowserRequest) -> Steps[Answer]:
    """Show a subscription: its partitions, and what it keeps aside."""
    name = request.needed("name")
    storage: SubscriptionStorage = site.reads.adapter.subscription_storage()
    survey: Survey = yield site.run(storage.survey, [name])
    if not survey.partitions:
        raise NotFoundError("There is no such subscription, or it has never run.")
    end: int = yield site.run(storage.last_number)
    records = sorted(survey.partitions, key=lambda record: record.partition)
    # Each costs a read; those that are furthest behind say enough.
    slowest = sorted(records, key=lambda record: record.sequence_number)[:_MOST_LAGS]
    lags: dict[int, float] = {}
    for record in slowest:
        _, lags[record.partition] = yield site.run(storage.lag, record)
    after = request.number("after") or 0
    parked: Sequence[ParkedEvent] = yield site.run(storage.parked_events, name, after=after, limit=_PARKED)
    errors = [record for record in records if record.last_error]
    further = request.here(after=parked[-1].sequence_number) if len(parked) == _PARKED else None
    return page_answer(
        framed(
            site,
            request,
            f"Subscription {name}",
            (
                notice(
                    f"Last error in partition {record.partition}: ", visible(record.last_error or "", 600), kind="bad"
                )
                for record in errors[:5]
            ),
            card(
                "Partitions",
                scrolling("Partitions")[_partitions(site, records, end, lags)],
                kind=".flush",
            ),
            card(
                ["Kept aside", span(".muted.note")[plural(len(parked), "event") if parked else "nothing"]],
                scrolling("Kept aside")[_parked(site, request, parked)] if parked else None,
                kind=".flush" if parked else "",
            ),
            pager(None, further),
            section="subscriptions",
            lead=div(".lead")[
                div[
                    crumbs(a(href=request.url("/subscriptions"))["Subscriptions"]),
                    h1(data_up=request.url("/subscriptions"))[visible(name, 200)],
                ]
            ],
        )
    )


def _head(text: str) -> Node:
    return th(".numeric" if text in _NUMBERS else "", scope="col")[text]


def _row(
    site: Site, request: BrowserRequest, records: Sequence[PartitionRecord], end: int, *, is_parking: bool
) -> Node:
    name = records[0].name
    states = sorted({record.state for record in records}, key=lambda state: list(_STATES).index(state))
    checkpoint = min(record.sequence_number for record in records)
    owners = sorted({record.owner_name for record in records if record.owner_name and not record.expired})
    moved = max(record.moved_at for record in records)
    return tr(data_row=True)[
        td[
            a(".main-link", href=request.url("/subscription", name=name))[visible(name, 120)],
            len(records) > 1 and span(".muted")[f" {len(records)} partitions"],
        ],
        td[
            ([badge(state.value, _STATES[state]), " "] for state in states),
            any(each.last_error for each in records) and [badge("error", "bad"), " "],
            is_parking and badge("parked events", "warn"),
        ],
        td(".numeric")[a(href=request.url(f"/event/{checkpoint}"))[str(checkpoint)] if checkpoint else "0"],
        td(".numeric")[f"{max(0, end - checkpoint):,}"],
        td[visible(", ".join(owners), 80) if owners else span(".muted")["nobody"]],
        td(".muted")[ago(moved, site.now())],
    ]


def _partitions(site: Site, records: Sequence[PartitionRecord], end: int, lags: dict[int, float]) -> Node:
    heads = ("Partition", "State", "Checkpoint", "Behind", "Waiting", "Handled", "Per second", "Run by", "Last moved")
    return table(".grid")[
        thead[tr[map(_head, heads)]],
        tbody[
            (
                tr[
                    td(".numeric")[str(record.partition)],
                    td[badge(record.state.value, _STATES[record.state])],
                    td(".numeric")[str(record.sequence_number)],
                    td(".numeric")[f"{max(0, end - record.sequence_number):,}"],
                    td(".numeric")[duration(lags[record.partition]) if record.partition in lags else "–"],
                    td(".numeric")[f"{record.handled:,}"],
                    td(".numeric")[f"{record.events_per_s:.1f}"],
                    td[
                        visible(record.owner_name, 80)
                        if record.owner_name and not record.expired
                        else span(".muted")["nobody"]
                    ],
                    td(".muted")[ago(record.moved_at, site.now())],
                ]
                for record in records
            )
        ],
    ]


def _parked(site: Site, request: BrowserRequest, parked: Sequence[ParkedEvent]) -> Node:
    heads = ("Event", "Stream", "State", "Attempts", "Error", "Since")
    return table(".grid")[
        thead[tr[map(_head, heads)]],
        tbody[
            (
                tr(data_row=True)[
                    td(".numeric")[a(href=request.url(f"/event/{event.sequence_number}"))[str(event.sequence_number)]],
                    td[stream_link(request, event.stream.category, event.stream.stream)],
                    td[badge(event.state.value, _PARKED_STATES[event.state])],
                    td(".numeric")[str(event.attempts)],
                    td[visible(event.error or "", 300)],
                    td(".muted")[ago(event.parked_at, site.now())],
                ]
                for event in parked
            )
        ],
    ]
