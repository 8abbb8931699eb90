"""Reading the tables of other event stores, as events that can be imported.

Where they have no ids for events, an id is made from the stream and the position, so that the same event has the same id in
each import. Rows are read in pages, by the number that the other store gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Engine,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    cast,
    column,
    inspect,
    select,
    type_coerce,
)

from eventstore_sa.errors import ConfigurationError, UnreadableEventError
from eventstore_sa.types import AnyStoredEvent, StoredEvent, decode_json
from eventstore_sa.types.json import is_mapping

__all__ = ["FOREIGN_STORES", "ForeignStore", "foreign_events"]

ForeignStore: TypeAlias = Literal["logicblocks", "eventsourcing", "message-db"]
FOREIGN_STORES: Final[tuple[ForeignStore, ...]] = ("logicblocks", "eventsourcing", "message-db")

_PAGE: Final = 1000
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "https://pypi.org/project/eventstore-sa/imported")
_TIMESTAMP: Final = "timestamp"
_NEEDED: Final = ("id", "name", "category", "stream", "position", "observed_at", "occurred_at")


class _Source(Struct, frozen=True):
    """Where events of another store are: how a page is selected, and what a row means."""

    number: Any
    columns: tuple[Any, ...]
    event: Callable[[Any], AnyStoredEvent]


def foreign_events(
    engine: Engine,
    kind: ForeignStore,
    *,
    table: str | None = None,
    schema: str | None = None,
    category: str | None = None,
) -> Iterator[AnyStoredEvent]:
    """Yield the events of another event store in the order of its log, for `import_events`; it is only read.

    Args:
        engine: The database of the other store; nobody should write to it meanwhile.
        kind: "logicblocks" (logicblocks.event.store on PostgreSQL), "eventsourcing" (its recorders for PostgreSQL and
            SQLite, with states in JSON that are neither compressed nor encrypted) or "message-db".
        table: Its table; by default "events", the only one with stored events, or "messages".
        schema: Its schema; of "message-db" by default "message_store".
        category: Of "eventsourcing", which has none: the category of all events. By default the name of the class that an
            event's own class is part of, such as "Dog" of `Dog.Registered`.

    Raises:
        ConfigurationError: If there is no such table, or it has other columns.
        UnreadableEventError: If an event cannot be read.
    """
    make = _KINDS.get(kind)
    if make is None:
        raise ConfigurationError(f"there is no store {kind!r} to import from: use one of {', '.join(FOREIGN_STORES)}")
    source = make(engine, table, schema, category)
    after: Any = None
    while True:
        statement = select(source.number, *source.columns).order_by(source.number).limit(_PAGE)
        if after is not None:
            statement = statement.where(source.number > after)
        with engine.connect() as connection:
            rows = connection.execute(statement).all()
        for row in rows:
            try:
                yield _whole(source.event(row))
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise UnreadableEventError(
                    f"event {row[0]} of the other store cannot be imported: {error}",
                    sequence_number=row[0],
                    position=None,
                    stream=None,
                ) from error
        if len(rows) < _PAGE:
            return
        after = rows[-1][0]


def _whole(event: AnyStoredEvent) -> AnyStoredEvent:
    """Return an event that has everything that an event has."""
    missing = [name for name in _NEEDED if getattr(event, name) is None]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")
    return event


def _table(engine: Engine, name: str, schema: str | None, columns: Mapping[str, Any]) -> tuple[Table, set[str]]:
    """Return a table with those columns that the database has."""
    catalogue = inspect(engine)
    if not catalogue.has_table(name, schema):
        place = "" if schema is None else f" in schema {schema!r}"
        raise ConfigurationError(f"there is no table {name!r}{place} to import from")
    existing = {each["name"] for each in catalogue.get_columns(name, schema)}
    table = Table(
        name, MetaData(), *(Column(each, kind) for each, kind in columns.items() if each in existing), schema=schema
    )
    return table, existing


def _require(existing: set[str], *columns: str) -> None:
    missing = [name for name in columns if name not in existing]
    if missing:
        raise ConfigurationError(f"the table to import from has no {', '.join(missing)}: it is not one of that store")


def _json(value: Any) -> Any:
    return None if value is None else decode_json(value)


def _logicblocks(engine: Engine, table: str | None, schema: str | None, _: str | None) -> _Source:
    columns = {
        "sequence_number": BigInteger(),
        "id": Text(),
        "name": Text(),
        "category": Text(),
        "stream": Text(),
        "position": BigInteger(),
        "payload": Text(),
        "metadata": Text(),
        "observed_at": DateTime(timezone=True),
        "occurred_at": DateTime(timezone=True),
    }
    events, existing = _table(engine, table or "events", schema, columns)
    _require(existing, *(name for name in columns if name != "metadata"))
    c = events.c
    chosen = (
        cast(c.id, Text),
        c.name,
        c.stream,
        c.category,
        c.position,
        _text(engine, c.payload),
        c.observed_at,
        c.occurred_at,
    )
    has_metadata = "metadata" in existing

    def event(row: Any) -> AnyStoredEvent:
        number, event_id, name, stream, of_category, position, payload, observed_at, occurred_at, *metadata = row
        known: Any = _json(metadata[0]) if metadata else None
        found = _uuid(event_id)
        if found is None:
            more = {"imported_id": event_id}
            known = {**known, **more} if is_mapping(known) else more if known is None else known
            found = uuid5(_NAMESPACE, f"logicblocks {event_id}")
        return StoredEvent(
            found,
            name,
            stream,
            of_category,
            position,
            number,
            _json(payload),
            known,
            _aware(observed_at),
            _aware(occurred_at),
        )

    return _Source(c.sequence_number, (*chosen, _text(engine, c.metadata)) if has_metadata else chosen, event)


def _message_db(engine: Engine, table: str | None, schema: str | None, _: str | None) -> _Source:
    columns = {
        "global_position": BigInteger(),
        "id": Uuid(),
        "stream_name": Text(),
        "type": Text(),
        "position": BigInteger(),
        "data": Text(),
        "metadata": Text(),
        "time": DateTime(),
    }
    messages, existing = _table(engine, table or "messages", schema or "message_store", columns)
    _require(existing, *columns)
    c = messages.c

    def event(row: Any) -> AnyStoredEvent:
        number, message_id, stream_name, name, position, data, metadata, time = row
        of_category, dash, stream = stream_name.partition("-")
        moment = time.replace(tzinfo=UTC)
        return StoredEvent(
            message_id,
            name,
            # A stream without an id is one of its own.
            stream if dash and stream else stream_name,
            of_category or stream_name,
            position,
            number,
            _json(data),
            _json(metadata),
            moment,
            moment,
        )

    chosen = (c.id, c.stream_name, c.type, c.position, _text(engine, c.data), _text(engine, c.metadata), c.time)
    return _Source(c.global_position, chosen, event)


def _eventsourcing(engine: Engine, table: str | None, schema: str | None, category: str | None) -> _Source:
    columns = {
        "notification_id": BigInteger(),
        "originator_id": Text(),
        "originator_version": BigInteger(),
        "topic": Text(),
        "state": LargeBinary(),
    }
    stored, existing = _table(engine, table or _recorded(engine, schema), schema, columns)
    _require(existing, "originator_id", "originator_version", "topic", "state")
    if "notification_id" not in existing and engine.dialect.name != "sqlite":
        raise ConfigurationError(
            "the table to import from has no notification_id: it is one of an aggregate recorder, whose events have no order"
        )
    c = stored.c
    # On SQLite the number of a notification is that of its row.
    number: Any = c.notification_id if "notification_id" in existing else column("rowid", BigInteger())

    def event(row: Any) -> AnyStoredEvent:
        notification, originator, version, topic, state = row
        of_class, name = _classes(topic)
        values = _state(bytes(state))
        # SQLite has UUIDs as digits alone.
        known = _uuid(originator)
        stream = originator if known is None else str(known)
        moment = _moment(values.pop(_TIMESTAMP, None))
        return StoredEvent(
            uuid5(_NAMESPACE, f"eventsourcing {stream} {version}"),
            name,
            stream,
            category or of_class,
            version - 1,
            notification,
            values,
            {"topic": topic},
            moment,
            moment,
        )

    chosen = (type_coerce(cast(c.originator_id, Text), String), c.originator_version, c.topic, c.state)
    return _Source(number, chosen, event)


def _recorded(engine: Engine, schema: str | None) -> str:
    """Find the table of events: its name has that of the application in it."""
    catalogue = inspect(engine)
    found = [
        name
        for name in sorted(catalogue.get_table_names(schema))
        if {"originator_id", "topic", "state"} <= {each["name"] for each in catalogue.get_columns(name, schema)}
        and not name.endswith("_snapshots")
    ]
    if len(found) != 1:
        raise ConfigurationError(
            f"there are {len(found)} tables of stored events to import from: {', '.join(found) or 'none'}; name one of them"
        )
    return found[0]


def _classes(topic: str) -> tuple[str, str]:
    """Return the name of an aggregate's class, and of its event, from `module:Aggregate.Event`."""
    module, _, path = topic.partition(":")
    outer, dot, name = path.rpartition(".")
    return (outer if dot else module.rpartition(".")[2] or "events"), name or topic


def _state(state: bytes) -> dict[str, Any]:
    try:
        found: Any = decode_json(state)
    except ValueError as error:
        raise ValueError(
            "its state is not JSON: if it is compressed, encrypted or transcoded in another way, write it again without"
        ) from error
    if not is_mapping(found):
        raise TypeError("its state is not a JSON object")
    return {**found}


def _moment(value: Any) -> datetime:
    """Read a time as its transcoding for JSON writes it, or as text."""
    text: object = value.get("_data_") if is_mapping(value) else value
    if not isinstance(text, str):
        raise TypeError("its state has no timestamp")
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _aware(moment: Any) -> Any:
    """Return a time with its zone: UTC, if the column has none."""
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else moment


def _text(engine: Engine, value: Any) -> Any:
    """Select JSON as text, whatever the driver makes of JSON."""
    return cast(value, Text) if engine.dialect.name == "postgresql" else value


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


_KINDS: Final[Mapping[str, Callable[[Engine, str | None, str | None, str | None], _Source]]] = {
    "logicblocks": _logicblocks,
    "eventsourcing": _eventsourcing,
    "message-db": _message_db,
}
