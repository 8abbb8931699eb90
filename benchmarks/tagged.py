"""Fills an event store with tagged events by SQL, as the owner who restores a store: streams and tags are spread alike."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["fill_with_tags"]

_STATEMENTS: Final = (
    "SET LOCAL eventstore_sa.restoring = 'on'",
    """
    INSERT INTO es_events (id, category, stream, position, name, payload, metadata, observed_at, occurred_at, tags)
    SELECT
      gen_random_uuid(), 'orders', 'order-' || i % {streams}, i / {streams}, 'order-placed',
      jsonb_build_object('order_id', 'order-' || i % {streams}, 'customer', 'customer-' || i % 997, 'total', i * 0.01),
      jsonb_build_object('user', 'user-' || i % 31), now(), now(),
      jsonb_build_array('course:' || i % {streams}, 'student:' || i * 7 % {students})
    FROM generate_series(0, {events} - 1) i
    """,
    """
    INSERT INTO es_event_tags (tag, sequence_number, name)
    SELECT t.tag, e.sequence_number, e.name FROM es_events e, jsonb_array_elements_text(e.tags) t(tag)
    """,
)


async def fill_with_tags(connection: Any, *, events: int, streams: int, students: int | None = None) -> None:
    """Store events, each with a tag of its stream, "course:", and another, "student:".

    Args:
        connection: Of asyncpg, as the owner of empty tables.
        events: How many.
        streams: To how many streams they go in turn, and how many courses there are.
        students: How many students there are; by default as many.
    """
    async with connection.transaction():
        for statement in _STATEMENTS:
            await connection.execute(statement.format(events=events, streams=streams, students=students or streams))
    await connection.execute("VACUUM ANALYZE es_events, es_event_tags")
