"""Cases about applying events to stored projections, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from eventstore_sa.attempts import Backoff
from eventstore_sa.contracts.projection_records import record_of
from eventstore_sa.errors import ConcurrencyError, ConfigurationError, SerialisationError
from eventstore_sa.projection import batches
from eventstore_sa.projection.adapters import ProjectionStorageAdapter
from eventstore_sa.projection.projection_store import ProjectionStore
from eventstore_sa.projection.projector import MissingHandlerBehaviour, Projector
from eventstore_sa.query import Search
from eventstore_sa.sources import InMemoryEventSource, SyncInMemoryEventSource
from eventstore_sa.testing.builders import StoredEventBuilder
from eventstore_sa.testing.cases.projection_setting import projection
from eventstore_sa.testing.cases.tables import in_turn
from eventstore_sa.types import (
    AnyStoredEvent,
    CategoryIdentifier,
    EventSourceIdentifier,
    LogIdentifier,
    NewEvent,
    StreamIdentifier,
)

__all__ = ["ProjectionBatchCases"]


class _TotalProjector(Projector[Any, dict[str, int], dict[str, int]]):
    """The total of each order."""

    name = "total"
    missing_handler_behaviour = MissingHandlerBehaviour.IGNORE

    def initial_state_factory(self) -> dict[str, int]:
        return {"total": 0}

    def initial_metadata_factory(self) -> dict[str, int]:
        return {"events": 0}

    def id_factory(self, state: dict[str, int], source: StreamIdentifier) -> str:
        return source.stream

    def update_metadata(self, state: dict[str, int], metadata: dict[str, int], event: AnyStoredEvent) -> dict[str, int]:
        return {"events": metadata["events"] + 1}

    def item_added(self, state: dict[str, int], event: AnyStoredEvent) -> dict[str, int]:
        state["total"] += event.payload
        return state


class _CustomerProjector(_TotalProjector):
    """The totals of the customers, and of all of them together, from orders and payments."""

    name = "customer"
    categories = ("orders", "payments")

    def ids(self, event: AnyStoredEvent) -> Iterable[str]:
        return [event.payload["customer"], "all"]

    def item_added(self, state: dict[str, int], event: AnyStoredEvent) -> dict[str, int]:
        return {"total": state["total"] + event.payload["price"]}

    def paid(self, state: dict[str, int], event: AnyStoredEvent) -> dict[str, int]:
        return {"total": state["total"] - event.payload["amount"]}


class _BasketProjector(_TotalProjector):
    """Baskets whose states are made of payloads, and changed by later events."""

    name = "basket"

    def ids(self, event: AnyStoredEvent) -> Iterable[str]:
        return event.payload["baskets"]  # type: ignore[no-any-return]

    def filled(self, state: Any, event: AnyStoredEvent) -> Any:
        return event.payload

    def item_added(self, state: Any, event: AnyStoredEvent) -> Any:
        state["items"].append(event.payload["item"])
        return state


class _SpoilingProjector(_BasketProjector):
    """Makes a state that cannot be stored."""

    name = "basket"

    def item_added(self, state: Any, event: AnyStoredEvent) -> Any:
        return {"items": []}

    def spoilt(self, state: Any, event: AnyStoredEvent) -> Any:
        return {"items": [float("nan")]}


class _OvertakenBasketProjector(_BasketProjector):
    """Loses its first race, when all but the last event of the batch are handled."""

    def __init__(self, store: ProjectionStore, events: Sequence[AnyStoredEvent]) -> None:
        self._store = store
        self._events = events

    async def taken(self, state: Any, event: AnyStoredEvent) -> Any:
        await self._store.project(_OverfilledProjector(), events=self._events)
        return state


class _OverfilledProjector(_BasketProjector):
    """Saves a projection in the meantime, so that the caller loses a race."""

    def filled(self, state: Any, event: AnyStoredEvent) -> Any:
        return {"items": ["of another"]}


class _OvertakenProjector(_TotalProjector):
    """Loses its races: while the first handler of an attempt runs, another writer applies the same event."""

    def __init__(self, store: ProjectionStore, events: Sequence[AnyStoredEvent], times: int) -> None:
        self._store = store
        self._events = events
        self._times = times

    async def item_added(self, state: Any, event: AnyStoredEvent) -> Any:  # type: ignore[override]
        if self._times > 0 and "overtaken" not in state:
            self._times -= 1
            await self._store.project(_TotalProjector(), events=self._events[: event.sequence_number])
            state["overtaken"] = True
        return state | {"total": state["total"] + event.payload}


def _event(
    number: int, stream: str = "1", payload: Any = 1, *, name: str = "item-added", category: str = "orders"
) -> Any:
    builder = StoredEventBuilder().with_name(name).with_stream(stream).with_category(category).with_payload(payload)
    return builder.with_sequence_number(number).with_position(number).build()


def _note_of(projector: str, event: AnyStoredEvent) -> str:
    return (
        f"projector {projector!r} was at event {event.name!r} (id {event.id}) of stream "
        f"'{event.category}/{event.stream}', position {event.position}"
    )


async def _stored(adapter: ProjectionStorageAdapter) -> dict[tuple[str, str], tuple[Any, Any, int | None]]:
    found = await adapter.find_many(search=Search())
    return {(each.name, each.id): (each.state, each.metadata, each.version) for each in found}


class ProjectionBatchCases:
    """`load_batch` and `save_batch`, and what projection stores make of them."""

    async def test_a_batch_is_loaded_as_it_was_saved(self, adapter: ProjectionStorageAdapter) -> None:
        states: list[Any] = [None, 0, 1.5, 10**30, "ü", [], {"a": [None, {"b": True}]}]
        saved = [
            replace(record_of(projection(f"{number} '\"ü", state, metadata=state)), sequence_number=number or None)
            for number, state in enumerate(states)
        ]

        assert await adapter.save_batch(records=saved) == len(saved)
        loaded = await adapter.load_batch(name="summary", ids=[record.id for record in saved])

        assert [loaded[record.id].projection() for record in saved] == [record.projection() for record in saved]
        assert [loaded[record.id].sequence_number for record in saved] == [None, 1, 2, 3, 4, 5, 6]
        assert {record.version for record in loaded.values()} == {1}

    async def test_what_is_not_there_is_not_loaded(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save_all(projections=[projection("1"), projection("2"), projection("1", name="other")])

        assert set(await adapter.load_batch(name="summary", ids=["1", "3"])) == {"1"}
        assert await adapter.load_batch(name="summary", ids=[]) == {}
        assert await adapter.load_batch(name="another", ids=["1"]) == {}

    async def test_what_others_have_saved_meanwhile_is_left_alone(self, adapter: ProjectionStorageAdapter) -> None:
        await adapter.save_all(projections=[projection("1", "old"), projection("2", "old")])
        loaded = await adapter.load_batch(name="summary", ids=["1", "2"])
        await adapter.save_all(projections=[projection("2", "of another"), projection("3", "of another")])

        changed = [replace(record, state='"mine"') for record in loaded.values()]
        new = [record_of(projection(id, "mine")) for id in ("3", "4")]  # noqa: A001
        saved = await adapter.save_batch(records=changed + new)

        assert saved == 2
        assert {id: state for (_, id), (state, _, _) in (await _stored(adapter)).items()} == {  # noqa: A001
            "1": "mine",
            "2": "of another",
            "3": "of another",
            "4": "mine",
        }

    async def test_a_batch_may_be_large(self, adapter: ProjectionStorageAdapter) -> None:
        events = [_event(number, str(number % 2500)) for number in range(1, 5001)]

        assert await ProjectionStore(adapter).project(_TotalProjector(), events=events) == 2500

        stored = await _stored(adapter)
        assert len(stored) == 2500
        assert {total["total"] for total, _, _ in stored.values()} == {2}

    async def test_applying_a_batch_again_changes_nothing(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        events = [_event(1), _event(2, "2"), _event(3), _event(4, name="unknown"), _event(5, "3", 7)]

        assert await store.project(_TotalProjector(), events=events) == 3
        first = await _stored(adapter)
        assert await store.project(_TotalProjector(), events=events) == 0
        assert await store.project(_TotalProjector(), events=events[1:3]) == 0

        assert await _stored(adapter) == first
        assert first == {
            ("total", "1"): ({"total": 2}, {"events": 2}, 1),
            ("total", "2"): ({"total": 1}, {"events": 1}, 1),
            ("total", "3"): ({"total": 7}, {"events": 1}, 1),
        }

    async def test_only_what_is_new_is_applied(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        await store.project(_TotalProjector(), events=[_event(1), _event(2, "2")])

        assert await store.project(_TotalProjector(), events=[_event(1), _event(2, "2"), _event(3)]) == 1

        assert await _stored(adapter) == {
            ("total", "1"): ({"total": 2}, {"events": 2}, 2),
            ("total", "2"): ({"total": 1}, {"events": 1}, 1),
        }

    async def test_a_save_by_hand_keeps_what_was_applied(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        await store.project(_TotalProjector(), events=[_event(1)])
        loaded = await store.load(id="1", name="total")
        assert loaded is not None
        await store.save(projection=replace(loaded, state={"total": 100}))

        await store.project(_TotalProjector(), events=[_event(1), _event(2)])

        assert (await _stored(adapter))["total", "1"] == ({"total": 101}, {"events": 2}, 3)

    async def test_a_batch_of_nothing_is_nothing(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)

        assert await store.project(_TotalProjector(), events=[]) == 0
        assert await store.project(_TotalProjector(), events=[_event(1, name="unknown")]) == 0
        assert await _stored(adapter) == {}

    async def test_nothing_is_applied_twice_when_another_is_faster(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        events = [_event(1), _event(2), _event(3, "2")]

        await store.project(_OvertakenProjector(store, events, times=1), events=events)

        totals = {key: state for key, (state, _, _) in (await _stored(adapter)).items()}
        assert totals == {("total", "1"): {"total": 2}, ("total", "2"): {"total": 1}}

    async def test_who_is_always_slower_gives_up(
        self, adapter: ProjectionStorageAdapter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batches, "_BACKOFF", Backoff(first_s=0.0, longest_s=0.0))
        store = ProjectionStore(adapter)
        events = [_event(number) for number in range(1, 12)]

        with pytest.raises(ConcurrencyError, match="'total' first, 10 times"):
            await store.project(_OvertakenProjector(store, events, times=10), events=events)

    async def test_several_streams_feed_a_projection(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        events = [
            _event(1, "1", {"customer": "ann", "price": 10}),
            _event(2, "2", {"customer": "ann", "price": 20}),
            _event(3, "3", {"customer": "bob", "price": 5}),
            _event(4, "1", {"customer": "ann", "amount": 30}, name="paid", category="payments"),
            _event(5, "1", {"customer": "ann", "amount": 30}, name="paid", category="refunds"),
        ]

        await store.project(_CustomerProjector(), events=events)
        await store.project(_CustomerProjector(), events=events)

        stored = await _stored(adapter)
        assert stored == {
            ("customer", "ann"): ({"total": 0}, {"events": 3}, 1),
            ("customer", "bob"): ({"total": 5}, {"events": 1}, 1),
            ("customer", "all"): ({"total": 5}, {"events": 4}, 1),
        }

    @in_turn(
        "categories, source",
        [(("orders",), CategoryIdentifier("orders")), (("orders", "payments"), None), (None, None)],
    )
    async def test_such_a_projection_is_one_of_the_category_or_the_log(
        self, adapter: ProjectionStorageAdapter, categories: Any, source: EventSourceIdentifier | None
    ) -> None:
        projector = _CustomerProjector()
        projector.categories = categories
        for each in await adapter.find_many(search=Search()):
            await adapter.delete(name=each.name, id=each.id)

        await ProjectionStore(adapter).project(projector, events=[_event(1, payload={"customer": "ann", "price": 1})])

        expected = {"type": "log"} if source is None else source.serialise()
        assert [each.source.serialise() for each in await adapter.find_many(search=Search())] == [expected] * 2

    async def test_projections_that_an_event_feeds_share_nothing(self, adapter: ProjectionStorageAdapter) -> None:
        events = [
            _event(1, payload={"baskets": ["1", "2"], "items": [["a"]]}, name="filled"),
            _event(2, payload={"baskets": ["1"], "item": "b"}),
        ]

        await ProjectionStore(adapter).project(_BasketProjector(), events=events)

        stored = {id: state["items"] for (_, id), (state, _, _) in (await _stored(adapter)).items()}  # noqa: A001
        assert stored == {"1": [["a"], "b"], "2": [["a"]]}

    async def test_handlers_do_not_change_the_events_of_the_caller(self, adapter: ProjectionStorageAdapter) -> None:
        events = [
            _event(1, payload={"baskets": ["1"], "items": []}, name="filled"),
            _event(2, payload={"baskets": ["1"], "item": "b"}),
        ]

        await ProjectionStore(adapter).project(_BasketProjector(), events=events)

        assert events[0].payload == {"baskets": ["1"], "items": []}

    async def test_what_a_lost_try_has_made_of_events_is_forgotten(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        events = [
            _event(2, payload={"baskets": ["1", "2"], "items": []}, name="filled"),
            _event(3, payload={"baskets": ["1", "2"], "item": "b"}),
            _event(4, payload={"baskets": ["2"]}, name="taken"),
        ]
        of_another = [_event(1, payload={"baskets": ["1", "2"]}, name="filled")]

        await store.project(_OvertakenBasketProjector(store, of_another), events=events)

        stored = {id: state["items"] for (_, id), (state, _, _) in (await _stored(adapter)).items()}  # noqa: A001
        assert stored == {"1": ["b"], "2": ["b"]}

    @in_turn("id", ["", "\0", "\ud800", "x" * 1001, 1])
    async def test_ids_that_cannot_be_stored_are_refused(self, adapter: ProjectionStorageAdapter, id: Any) -> None:
        events = [
            _event(1, payload={"baskets": ["1"], "items": []}, name="filled"),
            _event(2, payload={"baskets": [id]}),
        ]

        with pytest.raises(SerialisationError, match="projection id's name") as caught:
            await ProjectionStore(adapter).project(_BasketProjector(), events=events)

        assert caught.value.__notes__ == [_note_of("basket", events[1])]
        assert await _stored(adapter) == {}

    @in_turn("ids", ["ann", b"ann", None, 7])
    async def test_ids_come_in_a_list(self, adapter: ProjectionStorageAdapter, ids: Any) -> None:
        events = [_event(1, payload={"baskets": ids})]

        with pytest.raises(ConfigurationError, match=r"_BasketProjector\.ids\(event\) returned .*: write \[") as caught:
            await ProjectionStore(adapter).project(_BasketProjector(), events=events)

        assert caught.value.__notes__ == [_note_of("basket", events[0])]
        assert await _stored(adapter) == {}

    async def test_a_state_that_cannot_be_stored_is_named(self, adapter: ProjectionStorageAdapter) -> None:
        events = [_event(1, payload={"baskets": ["1"], "item": "kept"})]
        events.append(_event(2, payload={"baskets": ["7"]}, name="spoilt"))

        with pytest.raises(SerialisationError, match="state of projection 'basket' with id '7'") as caught:
            await ProjectionStore(adapter).project(_SpoilingProjector(), events=events)

        assert caught.value.__notes__ == [_note_of("basket", events[1])]
        assert await _stored(adapter) == {}

    async def test_a_stored_state_of_another_type_is_named(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        await store.project(_TotalProjector(), events=[_event(1, payload=1)])
        projector, events = _TotalProjector(), [_event(2, payload=1)]
        projector.state_type = list[int]

        with pytest.raises(SerialisationError) as caught:
            await store.project(projector, events=events)

        assert "the stored state of projection 'total' with id '1' is not what the projector wants now" in str(
            caught.value
        )
        assert caught.value.__notes__ == [_note_of("total", events[0])]

    async def test_an_event_counts_once_and_in_its_order(self, adapter: ProjectionStorageAdapter) -> None:
        store = ProjectionStore(adapter)
        filled = _event(1, payload={"baskets": ["1"], "items": []}, name="filled")
        first, second = (_event(number, payload={"baskets": ["1"], "item": number}) for number in (2, 3))

        await store.project(_BasketProjector(), events=[second, first, filled, second, first])

        assert {key[1]: state for key, (state, _, _) in (await _stored(adapter)).items()} == {
            "1": {"baskets": ["1"], "items": [2, 3]}
        }
        assert await store.project(_BasketProjector(), events=[second]) == 0

    async def test_what_is_no_batch_of_stored_events_is_refused(self, adapter: ProjectionStorageAdapter) -> None:
        source = InMemoryEventSource([_event(1)], identifier=LogIdentifier())
        new = NewEvent(name="item-added", payload=1)
        sync_source = SyncInMemoryEventSource([_event(1)], identifier=LogIdentifier())

        for mistake in (source, sync_source, None, 7, "events", [new], [None], {"1": 2}):
            wrong: Any = mistake
            with pytest.raises(ConfigurationError, match=r"events are applied in batches|only stored events"):
                await ProjectionStore(adapter).project(_TotalProjector(), events=wrong)
