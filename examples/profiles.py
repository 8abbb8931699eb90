"""Profiles of people, built from the events of a stream: publish, project, read.

Everything is in memory: no database is needed. Run it with `python examples/profiles.py`.
"""

from __future__ import annotations

import asyncio

from eventstore_sa.projection import Projector
from eventstore_sa.store import EventStore, adapters
from eventstore_sa.types import NewEvent, StoredEvent, StreamIdentifier

Profile = dict[str, str]
History = dict[str, int]


class ProfileProjector(Projector[StreamIdentifier, Profile, History]):
    """The current profile of a person; the metadata says how often it changed."""

    def initial_state_factory(self) -> Profile:
        return {}

    def initial_metadata_factory(self) -> History:
        return {"changes": 0}

    def id_factory(self, state: Profile, source: StreamIdentifier) -> str:
        return source.stream

    def update_metadata(self, state: Profile, metadata: History, event: StoredEvent) -> History:
        return {"changes": metadata["changes"] + 1}

    def profile_created(self, state: Profile, event: StoredEvent[str, Profile]) -> Profile:
        return event.payload

    def address_changed(self, state: Profile, event: StoredEvent[str, Profile]) -> Profile:
        return state | {"address": event.payload["address"]}


async def main() -> None:
    store = EventStore(adapters.InMemoryEventStorageAdapter())
    stream = store.stream(category="profiles", stream="ada")

    await stream.publish(
        events=[
            NewEvent(name="profile-created", payload={"name": "Ada", "address": "12 St James's Square, London"}),
            NewEvent(name="address-changed", payload={"address": "6 Great Cumberland Place, London"}),
        ]
    )

    profile = await ProfileProjector().project(source=stream)

    print(f"{profile.name}/{profile.id}: {profile.state['name']}, {profile.state['address']}")
    print(f"changes: {profile.metadata['changes']}, read from {profile.source}")


if __name__ == "__main__":
    asyncio.run(main())
