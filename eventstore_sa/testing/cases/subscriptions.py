"""Cases: checkpoints, leases and parked events are kept beside the events, for one owner of a partition at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from eventstore_sa.contracts.subscriptions import (
    Advance,
    Definition,
    Lease,
    Node,
    ParkedState,
    PartitionRecord,
    PartitionState,
)
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.sources.constraints import sequence_number_after, sequence_number_before
from eventstore_sa.store.adapters.event_contract import EventStorageAdapter
from eventstore_sa.store.adapters.storage_adapter import AwaitableStorageAdapter
from eventstore_sa.testing.cases.setting import LOG, EventStorageSetting, stored_in, stream
from eventstore_sa.testing.cases.tables import in_turn

__all__ = ["SubscriptionCases"]

LEASE_S = 600.0
SOURCE = '{"type": "log"}'


class _Storage:
    """Calls the storage of an adapter, which is synchronous, in the way of the adapter."""

    def __init__(self, adapter: EventStorageAdapter) -> None:
        self._adapter = adapter
        self._storage = adapter.subscription_storage()

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        work = getattr(self._storage, method)
        if isinstance(self._adapter, AwaitableStorageAdapter):
            return await self._adapter.runner.run(work, *arguments, **options)
        return work(*arguments, **options)

    async def node(self, name: str = "billing", *, lease_s: float = LEASE_S) -> Node:
        """Have a node that is alive, or has expired if its lease has no time."""
        node = Node(uuid4(), f"{name} 🎉:1", frozenset({name}))
        await self.call("heartbeat", node, lease_s)
        return node

    async def record(self, name: str = "billing", partition: int = 0) -> PartitionRecord:
        survey = await self.call("survey", [name])
        found: PartitionRecord = survey.partitions[partition]
        return found

    async def taken(self, name: str = "billing", partition: int = 0) -> Lease:
        """Have a node take a partition."""
        node = await self.node(name)
        lease: Lease | None = await self.call("take", node.id, await self.record(name, partition))
        assert lease is not None
        return lease


class SubscriptionCases(EventStorageSetting):
    """What is kept of subscriptions; adapters that keep none refuse."""

    @pytest.fixture
    def storage(self, adapter: EventStorageAdapter) -> _Storage:
        """Provide the storage of subscriptions, and skip the case where there is none."""
        if not self.keeps_subscriptions:
            with pytest.raises(ConfigurationError):
                adapter.subscription_storage()
            pytest.skip("this adapter keeps no subscriptions, and says so")
        return _Storage(adapter)

    @in_turn("name", ["billing", "naïve 🎉 'it' \\ %s :a", "x" * 200])
    async def test_a_subscription_begins_where_it_says(self, storage: _Storage, name: str) -> None:
        await storage.call("register", Definition(name, SOURCE, 3, 7))
        await storage.call("register", Definition(name, SOURCE, 3, 0))

        survey = await storage.call("survey", [name])
        assert [(each.partition, each.sequence_number, each.state) for each in survey.partitions] == [
            (number, 7, PartitionState.RUNNING) for number in range(3)
        ]
        assert {(each.owner, each.is_free, each.generation) for each in survey.partitions} == {(None, True, 1)}
        with pytest.raises(ConfigurationError, match="is stored with the source"):
            await storage.call("register", Definition(name, '{"type": "category"}', 3, 0))
        assert await storage.call("forget", name) is True
        assert await storage.call("forget", name) is False

    async def test_a_partition_has_one_owner_whose_token_counts(self, storage: _Storage) -> None:
        await storage.call("register", Definition("billing", SOURCE, 1, 0))
        free = await storage.record()
        first, second = await storage.node(), await storage.node()

        lease = await storage.call("take", first.id, free)
        assert (lease.owner, lease.epoch, lease.sequence_number) == (first.id, free.epoch + 1, 0)
        assert await storage.call("take", second.id, free) is None
        assert await storage.call("take", second.id, await storage.record()) is None
        assert await storage.call("renewed", lease) == lease
        await storage.call("release", lease)
        assert await storage.call("renewed", lease) is None
        after = await storage.call("take", second.id, await storage.record())
        assert after.epoch > lease.epoch
        assert await storage.call("advance", None, lease, Advance(0, 5)) is None
        assert await storage.call("stop", lease, "late") is False
        await storage.call("leave", second.id)
        assert (await storage.record()).is_free

    async def test_a_node_that_is_not_heard_of_loses_its_partitions(self, storage: _Storage) -> None:
        await storage.call("register", Definition("billing", SOURCE, 1, 0))
        gone = await storage.node()
        assert await storage.call("take", gone.id, await storage.record()) is not None
        assert not (await storage.record()).is_free

        await storage.call("heartbeat", gone, 0.0)

        record = await storage.record()
        assert (record.owner, record.owner_name, record.is_free) == (gone.id, None, True)
        assert gone not in (await storage.call("survey")).nodes
        heir = await storage.node()
        assert (await storage.call("take", heir.id, record)).owner == heir.id

    async def test_a_checkpoint_moves_from_where_it_was_only(
        self, storage: _Storage, adapter: EventStorageAdapter
    ) -> None:
        stored = await stored_in(adapter, stream(), events=3)
        first, last = stored[0].sequence_number, stored[-1].sequence_number
        await storage.call("register", Definition("billing", SOURCE, 1, 0))
        lease = await storage.taken()

        assert await storage.call("advance", None, lease, Advance(first, last)) is None
        assert (await storage.call("advance", None, lease, Advance(0, first, 1, 2.5))).to == first
        assert await storage.call("advance", None, lease, Advance(0, last)) is None
        record = await storage.record()
        assert (record.sequence_number, record.handled, record.events_per_s) == (first, 1, 2.5)
        renewed = await storage.call("renewed", lease)
        assert (renewed.sequence_number, renewed.is_behind_its_log) == (first, False)
        assert (await storage.call("lag", record))[0] == last - first
        assert (await storage.call("advance", None, lease, Advance(first, last))).to == last
        assert (await storage.record()).moved_at > record.moved_at

    async def test_what_is_steered_from_outside_takes_the_lease(self, storage: _Storage) -> None:
        await storage.call("register", Definition("billing", SOURCE, 1, 4))
        for method, *arguments in (
            ("set_state", PartitionState.PAUSED),
            ("set_state", PartitionState.RUNNING),
            ("move", 2),
        ):
            lease = None if (await storage.record()).state is not PartitionState.RUNNING else await storage.taken()
            assert await storage.call(method, "billing", *arguments) is True
            assert lease is None or await storage.call("renewed", lease) is None
            assert await storage.call(method, "unknown", *arguments) is False
        assert (await storage.record()).sequence_number == 2

        assert await storage.call("stop", await storage.taken(), "poison") is True
        record = await storage.record()
        assert (record.state, record.last_error, record.is_free) == (PartitionState.STOPPED, "poison", False)

    async def test_partitions_are_divided_anew_from_the_highest_checkpoint(self, storage: _Storage) -> None:
        await storage.call("register", Definition("billing", SOURCE, 2, 0))
        lease = await storage.taken()
        await storage.call("advance", None, lease, Advance(0, 9))

        await storage.call("register", Definition("billing", SOURCE, 3, 0))
        assert await storage.call("renewed", lease) is None
        assert [(await storage.record(partition=each)).drain_to for each in range(2)] == [9, 9]
        assert await storage.call("resplit", "billing") is False
        last = await storage.taken(partition=1)
        await storage.call("advance", None, last, Advance(0, 9))
        assert await storage.call("resplit", "billing") is True

        records = (await storage.call("survey", ["billing"])).partitions
        assert [(each.partitions, each.sequence_number, each.generation, each.drain_to) for each in records] == [
            (3, 9, 2, None)
        ] * 3
        await storage.call("set_state", "billing", PartitionState.PAUSED)
        with pytest.raises(ConfigurationError, match="stopped or paused"):
            await storage.call("register", Definition("billing", SOURCE, 1, 0))

    async def test_parked_events_hold_their_stream_until_the_last_is_gone(
        self, storage: _Storage, adapter: EventStorageAdapter
    ) -> None:
        poison, other = await stored_in(adapter, stream("naïve 🎉"), stream("other"))
        (held,) = await stored_in(adapter, stream("naïve 🎉"))
        await storage.call("register", Definition("billing", SOURCE, 1, 0))
        lease = await storage.taken()

        async def set_aside(since: int, event: Any, state: ParkedState) -> bool:
            advance = Advance(since, event.sequence_number)
            aside: bool = await storage.call(
                "set_aside", lease, advance, event, state=state, attempts=3, error="poison 🎉"
            )
            return aside

        assert await set_aside(0, poison, ParkedState.PARKED) is True
        assert await set_aside(0, poison, ParkedState.PARKED) is False
        assert await set_aside(poison.sequence_number, other, ParkedState.SKIPPED) is True
        streams = {stream("naïve 🎉"), stream("other")}
        assert set(await storage.call("parked_streams", None, "billing", streams)) == {stream("naïve 🎉")}
        await storage.call("advance", None, lease, Advance(other.sequence_number, held.sequence_number), [held])

        parked = await storage.call("parked_events", "billing")
        assert [(each.event_id, each.state, each.attempts, each.error) for each in parked] == [
            (poison.id, ParkedState.PARKED, 3, "poison 🎉"),
            (other.id, ParkedState.SKIPPED, 3, "poison 🎉"),
            (held.id, ParkedState.HELD, 0, None),
        ]
        assert (await storage.call("find_event", parked[0])).id == poison.id
        assert await storage.call("first_parked", None, "billing", stream("naïve 🎉")) == parked[0]
        await storage.call("failed_again", parked[0], "again")
        found = await storage.call("find_parked", "billing", poison.sequence_number)
        assert (found.attempts, found.error) == (4, "again")
        assert await storage.call("discard", None, parked[0]) is True
        assert await storage.call("discard", None, parked[0]) is False
        assert await storage.call("has_parked", "billing") is True
        assert await storage.call("discard", None, parked[2]) is True
        assert await storage.call("has_parked", "billing") is False

    async def test_moving_back_forgets_what_is_parked_beyond(
        self, storage: _Storage, adapter: EventStorageAdapter
    ) -> None:
        first, second = await stored_in(adapter, stream("1"), stream("2"))
        await storage.call("register", Definition("billing", SOURCE, 1, 0))
        lease, since = await storage.taken(), 0
        for event in (first, second):
            advance = Advance(since, event.sequence_number)
            await storage.call("set_aside", lease, advance, event, state=ParkedState.PARKED, attempts=1, error="poison")
            since = event.sequence_number

        await storage.call("move", "billing", first.sequence_number)

        assert [each.event_id for each in await storage.call("parked_events", "billing")] == [first.id]

    async def test_pages_are_read_up_to_where_the_log_is_complete(
        self, storage: _Storage, adapter: EventStorageAdapter
    ) -> None:
        stored = await stored_in(adapter, stream("1"), stream("2"), stream("3"))
        last, complete = await storage.call("complete_up_to")
        assert (last, complete) == (stored[-1].sequence_number,) * 2
        assert await storage.call("last_number") == last

        bounds = frozenset({sequence_number_after(0), sequence_number_before(complete + 1)})
        page, more = await storage.call("page", LOG, bounds, 2)
        assert ([each.id for each in page], more) == ([each.id for each in stored[:2]], True)
        assert await storage.call("number_at", stored[0].observed_at) == stored[0].sequence_number - 1
        assert await storage.call("number_at", stored[-1].observed_at + timedelta(days=1)) == last

    async def test_a_log_that_is_not_what_it_was_is_noticed(self, storage: _Storage) -> None:
        await storage.call("register", Definition("billing", SOURCE, 1, 7))

        assert (await storage.taken()).is_behind_its_log
