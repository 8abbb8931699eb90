"""A snapshot as a value: the state that a projector has reached at an event of a source, so that reading can begin there.

State and metadata are JSON text, and storage returns them letter for letter: a checksum tells when it did not. When
snapshots are taken and trusted is the business of `eventstore_sa.projection`; nothing here does I/O.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types.identifiers import EventSourceIdentifier, check_name

__all__ = ["SNAPSHOT_FORMAT", "Snapshot", "SnapshotKey", "Snapshots", "SyncSnapshots", "version_text"]

SNAPSHOT_FORMAT: Final = 1
"""How the snapshots are made that this version of the library takes; it reads no others."""


class SnapshotKey(Struct, frozen=True):
    """Whose snapshot it is; one is kept for each key.

    Attributes:
        projector: The name of the projector.
        version: The version of the projector, as text.
        source: The identifier of what is projected, as JSON text with sorted keys.
    """

    projector: str
    version: str
    source: str

    @classmethod
    def of(cls, projector: str, version: int | str, source: EventSourceIdentifier) -> SnapshotKey:
        """Return the key of a projector's snapshot of a source.

        Raises:
            ConfigurationError: If the version is neither an integer nor a string.
            SerialisationError: If the name or version cannot be stored.
        """
        return cls(check_name("projector", projector), version_text(version), source.json())

    @property
    def source_hash(self) -> UUID:
        """A number of 128 bits for the source, since the JSON of two long names fits no entry of an index."""
        return UUID(bytes=hashlib.blake2b(self.source.encode(), digest_size=16).digest())


class Snapshot(Struct, frozen=True, kw_only=True):
    """The state of a projection at one event of its source.

    Attributes:
        key: Whose it is.
        place: Where in the source: the position of the last event, of a stream; its sequence number elsewhere.
        event_id: The id of that event.
        state: The state after that event, as JSON text.
        metadata: The metadata after that event, as JSON text.
        taken_at: When it was taken.
        format: How it was made.
        checksum: What `digest` was then.
    """

    key: SnapshotKey
    place: int
    event_id: UUID
    state: str
    metadata: str
    taken_at: datetime
    format: int
    checksum: int

    @classmethod
    def taken(cls, *, key: SnapshotKey, place: int, event_id: UUID, state: str, metadata: str) -> Snapshot:
        """Take a snapshot now."""
        now = datetime.now(UTC)
        unsigned = cls(
            key=key,
            place=place,
            event_id=event_id,
            state=state,
            metadata=metadata,
            taken_at=now,
            format=SNAPSHOT_FORMAT,
            checksum=0,
        )
        return unsigned.signed()

    @property
    def digest(self) -> int:
        """A number of 64 bits that changes with everything but the time it was taken at."""
        key = self.key
        parts = [key.projector, key.version, key.source, str(self.place), self.event_id.hex, self.state, self.metadata]
        text = "\0".join([str(self.format), *parts])
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)

    @property
    def problem(self) -> str | None:
        """Why it cannot be used; None if it can."""
        if self.format != SNAPSHOT_FORMAT:
            return f"it has format {self.format}, and this version of the library reads format {SNAPSHOT_FORMAT}"
        if self.checksum != self.digest:
            return (
                "its checksum does not match: it was taken with other versions of the event types or before tags were added "
                "to stored events, or it is damaged"
            )
        return None

    def bound_to(self, circumstances: str) -> Snapshot:
        """Return it bound to circumstances such as versions of event types, or free of them: then the checksum matches."""
        if not circumstances:
            return self
        salt = hashlib.blake2b(circumstances.encode(), digest_size=8).digest()
        return replace(self, checksum=self.checksum ^ int.from_bytes(salt, "big", signed=True))

    def signed(self) -> Snapshot:
        """Return it with the checksum that matches its contents."""
        return replace(self, checksum=self.digest)


class Snapshots(Protocol):
    """What `Projector.project` needs from a store of snapshots, such as `SnapshotStore`."""

    @property
    def in_transaction(self) -> bool:
        """Whether snapshots are part of a transaction of the caller's."""
        ...

    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none."""
        ...

    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Save a snapshot unless a later one is stored that is not the one to replace; return whether it was saved."""
        ...


class SyncSnapshots(Protocol):
    """What `Projector.project_sync` needs from a store of snapshots, such as `SyncSnapshotStore`."""

    @property
    def in_transaction(self) -> bool:
        """Whether snapshots are part of a transaction of the caller's."""
        ...

    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key, usable or not; None if there is none."""
        ...

    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Save a snapshot unless a later one is stored that is not the one to replace; return whether it was saved."""
        ...


def version_text(version: object) -> str:
    """Return the version of a projector as it is stored: 2 and "2" are the same.

    Raises:
        ConfigurationError: If it is neither an integer nor a string.
        SerialisationError: If it cannot be stored.
    """
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise ConfigurationError(f"a projector's version is an integer or a string, such as 2; got {version!r}")
    return check_name("projector version's", str(version))
