"""The contract of storage for snapshots, for asyncio and without.

Third parties implement it and run the shipped cases over their adapter. Whether a snapshot can be trusted is not looked at
here: see `projection/resuming.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any, Self

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.types import Snapshot, SnapshotKey

__all__ = ["SnapshotStorageAdapter", "SyncSnapshotStorageAdapter"]

_NO_SESSION = "only a store on a SQLAlchemy bind can work within a session: this one is on a {}"


class SnapshotStorageAdapter(ABC):
    """Keeps one snapshot for each key, as it was given; used with asyncio."""

    @abstractmethod
    async def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key; None when there is none."""

    @abstractmethod
    async def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Keep a snapshot in the place of an earlier one with its key; return whether it is kept now.

        Args:
            snapshot: What to keep. If one that is of the same place or later is kept already, nothing is changed.
            replacing: One that was found and cannot be used: it is replaced even if it claims to be later.
        """

    @abstractmethod
    async def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; return how many.

        Args:
            projector: Those of the projector of this name.
            keep_version: Those of any other version of the projector.
            taken_before: Those that were taken earlier.
        """

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller's."""
        return False

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: This storage knows no sessions.
        """
        raise ConfigurationError(_NO_SESSION.format(type(self).__name__))

    async def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    async def drop_schema(self) -> None:
        """Drop it, with all that is stored."""

    async def aclose(self) -> None:
        """Give back what was opened by the adapter itself."""


class SyncSnapshotStorageAdapter(ABC):
    """Keeps one snapshot for each key; the twin of `SnapshotStorageAdapter` without asyncio."""

    @abstractmethod
    def find(self, *, key: SnapshotKey) -> Snapshot | None:
        """Return the snapshot with that key; None when there is none."""

    @abstractmethod
    def save(self, *, snapshot: Snapshot, replacing: Snapshot | None = None) -> bool:
        """Keep a snapshot in the place of an earlier one; see `SnapshotStorageAdapter.save`."""

    @abstractmethod
    def prune(
        self,
        *,
        projector: str | None = None,
        keep_version: str | None = None,
        taken_before: datetime | None = None,
    ) -> int:
        """Delete the snapshots that meet all that is given; see `SnapshotStorageAdapter.prune`."""

    @property
    def in_transaction(self) -> bool:
        """Whether everything is part of a transaction of the caller's."""
        return False

    def within(self, session: Any) -> Self:
        """Return the same storage inside the transaction of a session.

        Raises:
            ConfigurationError: This storage knows no sessions.
        """
        raise ConfigurationError(_NO_SESSION.format(type(self).__name__))

    def create_schema(self) -> None:
        """Create what the storage needs and does not have yet."""

    def drop_schema(self) -> None:
        """Drop it, with all that is stored."""

    def close(self) -> None:
        """Give back what was opened by the adapter itself."""
