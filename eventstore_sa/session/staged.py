"""One staged publish: where it goes, what is in it, and what has become of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.orm import SessionTransaction

from eventstore_sa.contracts.inline_projections import Projections
from eventstore_sa.errors import TransactionError
from eventstore_sa.publishing import StreamPublication
from eventstore_sa.types import AnyStoredEvent

__all__ = ["HostedStorage", "Publish", "StagedPublish"]

Result = TypeVar("Result", covariant=True)


class HostedStorage(Protocol):
    """Storage of events in the transaction of a session."""

    @property
    def kind(self) -> Hashable:
        """What two publishes have in common that can travel in one statement."""
        ...

    @property
    def knows_conditions(self) -> bool:
        """Whether it was told how to check conditions of the application's own."""
        ...

    @property
    def projections(self) -> Projections:
        """What its publishes update."""
        ...

    def connection(self) -> Connection:
        """Return the connection of the session's transaction."""
        ...

    def check_transaction(self) -> None:
        """Refuse a session whose transaction is none, such as one in autocommit mode."""
        ...

    def publish(
        self, parts: Sequence[StreamPublication], projections: Sequence[Projections]
    ) -> list[list[AnyStoredEvent]]:
        """Store a publish, all or none, and update the projections of each part."""
        ...


class Publish:
    """One staged publish, and what has become of it.

    Attributes:
        storage: Where it goes.
        owner: The transaction or savepoint that it belongs to; None once that was rolled back.
        written_in: The one in which it was written; None before.
        results: The stored events, once it is written.
        committed: Whether all of this has been committed.
        undone: Whether a savepoint of the connection's, in which it was staged, was rolled back.
    """

    def __init__(
        self,
        storage: HostedStorage,
        parts: Callable[[], Sequence[StreamPublication]],
        *,
        owner: SessionTransaction,
        before_write: Callable[[], object] | None = None,
        on_drop: Callable[[], object] | None = None,
        subject: object = None,
    ) -> None:
        """Take a publish.

        Args:
            storage: Where it goes.
            parts: Asked for what is in it when it is written.
            owner: The transaction or savepoint that it belongs to.
            before_write: Called once, before the flush ahead of the write.
            on_drop: Called when it is dropped.
            subject: What has recorded it.
        """
        self.storage: Final = storage
        self.parts: Final = parts
        self.owner: SessionTransaction | None = owner
        self.written_in: SessionTransaction | None = None
        self.results: Sequence[Sequence[AnyStoredEvent]] = ()
        self.committed: bool = False
        self.undone: bool = False
        self._subject = subject
        self._before_write: Callable[[], object] | None = before_write
        self._on_drop = on_drop

    def drop(self) -> None:
        """Forget it, because its owner was rolled back, or what has recorded it is not stored."""
        self.owner = None
        if self._on_drop is not None:
            self._on_drop()

    def undo(self) -> None:
        """Note that what it belongs to was rolled back on the connection."""
        self.undone = True

    def note_unwritten(self) -> None:
        """Note that it was written in a savepoint of the connection's that was rolled back."""
        self.written_in = None

    def prepare_write(self) -> None:
        """Do what has to be done before the flush ahead of the write."""
        call, self._before_write = self._before_write, None
        if call is not None:
            call()


class StagedPublish(Generic[Result]):
    """What `stage` returns: the stored events, once the transaction is committed."""

    def __init__(self, publish: Publish, shape: Callable[[Sequence[Sequence[AnyStoredEvent]]], Result]) -> None:
        """Show the results of a publish in a shape."""
        self._publish = publish
        self._shape = shape

    @property
    def events(self) -> Result:
        """The stored events, in the shape that `publish` returns; there are none before the commit.

        Raises:
            TransactionError: The transaction is still open, or it was rolled back.
        """
        if self._publish.committed:
            return self._shape(self._publish.results)
        if self._publish.owner is None or self._publish.undone:
            raise TransactionError(
                "these events were not stored: the transaction or savepoint in which they were staged was rolled back"
            )
        raise TransactionError(
            "these events are staged and will be stored when the session commits: ask for them after session.commit()"
        )

    def __repr__(self) -> str:
        dropped = self._publish.owner is None or self._publish.undone
        state = "committed" if self._publish.committed else "rolled back" if dropped else "staged"
        return f"<{type(self).__name__}: {state}>"
