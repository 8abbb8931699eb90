"""Which projections of a publish are known before its events are stored."""

from __future__ import annotations

from typing import Any

from eventstore_sa import NewEvent, StreamIdentifier
from eventstore_sa.contracts.inline_projections import combined, known_ids
from eventstore_sa.projection import Projector
from eventstore_sa.publishing import StreamPublication, publications
from tests.projectors import CustomerProjector, OrderProjector


class LastProjector(OrderProjector):
    name = "zzz"


class UnknownProjector(OrderProjector):
    """The id depends on the state."""

    name = "unknown"

    def id_factory(self, state: dict[str, Any], source: StreamIdentifier) -> str:
        return str(state["never"])


def published(*names: str, category: str = "orders") -> StreamPublication:
    (part,) = publications(
        target=StreamIdentifier(category, "1-1"), events=[NewEvent(name=name, payload=None) for name in names]
    )
    return part


def known(part: StreamPublication, *projectors: Projector[Any, Any, Any]) -> dict[str, str]:
    return known_ids(combined(projectors), part)


def test_projections_of_the_stream_are_known() -> None:
    assert known(published("something-happened"), LastProjector(), OrderProjector()) == {"order": "1-1", "zzz": "1-1"}


def test_projections_behind_an_unknown_one_are_loaded_after_it() -> None:
    part = published("something-happened")

    assert known(part, CustomerProjector(), OrderProjector()) == {}
    assert known(part, OrderProjector(), UnknownProjector(), LastProjector()) == {"order": "1-1"}


def test_projections_that_take_no_event_are_not_loaded() -> None:
    assert known(published("something-happened", category="payments"), OrderProjector()) == {}
    assert known(published(), OrderProjector()) == {}
