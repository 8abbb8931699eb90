"""Adding tags to events that were stored without them: the log is read in batches, and each batch gets its tags.

Nothing else of a stored event can ever be changed. Decisions that were made before a batch are refused by the storage,
because what they remember of an item says nothing about earlier events that belong to it now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from eventstore_sa.errors import ConfigurationError, SerialisationError, TransactionError
from eventstore_sa.sources.constraints import sequence_number_after
from eventstore_sa.steps import Steps
from eventstore_sa.types import AnyStoredEvent
from eventstore_sa.types.events import check_indexed_name
from eventstore_sa.types.numbers import checked_count
from eventstore_sa.types.tags import checked_tags

if TYPE_CHECKING:
    from eventstore_sa.store.event_store import EventStore, SyncEventStore

__all__ = ["TagBackfill", "TagsOf", "backfill_tags"]

TagsOf = Callable[[AnyStoredEvent], Iterable[str]]


class TagBackfill(NamedTuple):
    """How far tags have been added to stored events.

    Attributes:
        up_to: The sequence number of the last event that was looked at; pass it as `after` to go on from there.
        looked_at: How many events were looked at.
        changed: How many of them did not have all of their tags.
    """

    up_to: int
    looked_at: int
    changed: int


def backfill_tags(
    store: EventStore[Any] | SyncEventStore[Any],
    tags_of: TagsOf | None,
    *,
    after: int,
    batch_size: int,
    on_progress: Callable[[TagBackfill], object] | None,
) -> Steps[TagBackfill]:
    """See `EventStore.backfill_tags`."""
    tags = _checked(store, tags_of)
    checked_count("batch_size", batch_size)
    progress = TagBackfill(checked_count("after", after, least=0), 0, 0)
    while True:
        constraints = frozenset([sequence_number_after(progress.up_to)])
        batch: Sequence[AnyStoredEvent] = yield partial(store.log().read, constraints=constraints, limit=batch_size)
        if not batch:
            return progress
        added = {event.sequence_number: missing for event in batch if (missing := _missing(event, tags))}
        changed = 0
        if added:
            changed = yield partial(store.adapter.add_tags, added)
        progress = TagBackfill(batch[-1].sequence_number, progress.looked_at + len(batch), progress.changed + changed)
        if on_progress is not None:
            on_progress(progress)


def _checked(store: EventStore[Any] | SyncEventStore[Any], tags_of: object) -> TagsOf:
    if store.adapter.in_transaction:
        raise TransactionError(
            "tags are added to stored events in transactions of their own, one for each batch: use a store on an engine, "
            "not within a session"
        )
    if callable(tags_of):
        return cast("TagsOf", tags_of)
    if tags_of is None and store.types is not None:
        return store.types.tags_of
    raise ConfigurationError(
        "backfill_tags takes a function of a stored event that returns its tags, as in "
        "lambda event: [f\"course:{event.payload['course']}\"]; only a store with event types can do without: these declare "
        f"their tags. Got {tags_of!r:.60}"
    )


def _missing(event: AnyStoredEvent, tags_of: TagsOf) -> frozenset[str]:
    """Return the tags that an event lacks.

    Raises:
        SerialisationError: If they are no tags, or more than an event may have, or its name is too long for their index.
    """
    try:
        missing = checked_tags(event.tags | checked_tags(tags_of(event))) - event.tags
        if missing:
            check_indexed_name(event.name)
    except SerialisationError as error:
        raise SerialisationError(f"event {event.sequence_number} cannot get its tags: {error.message}") from error
    return missing
