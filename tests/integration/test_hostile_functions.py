"""A role that may CREATE in a schema on everybody's search path puts functions and operators of its own in front.

PostgreSQL takes the candidate whose arguments fit best, wherever on the path it is: `public.concat(text, oid)` went before
the one that is built in, and ran as whoever published. The functions of an event store call nothing of the kind; of the
statements that SQLAlchemy writes this cannot be said, see docs/roles.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import product

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from eventstore_sa import (
    EventQuery,
    NewEvent,
    QueryItem,
    StreamIdentifier,
    SyncEventStore,
    SyncProjectionStore,
    verify_schema,
)
from eventstore_sa.conditions import no_event_matches, position_is, stream_exists, stream_is_empty
from eventstore_sa.errors import LockTimeoutError, UnmetWriteConditionError
from eventstore_sa.projection import rebuild_sync
from eventstore_sa.testing import clear
from tests.databases import PostgresDatabase
from tests.project import PACKAGE, SQL
from tests.projectors import CustomerProjector
from tests.stores import install_schema

FILES = sorted((SQL / "postgresql").glob("*.sql"))
# What looks like a call and is grammar, and the names of tables in queries.
GRAMMAR = {"coalesce", "nullif", "least", "greatest", *"acdeinrstw"}
OPERATORS = ("=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "||", "->", "->>", "<<", ">>", "|", "&", "@>")
TYPES = (
    *("bool", "int2", "int4", "int8", "float8", "numeric", "text", "varchar", "bpchar", "name", "oid", "regclass"),
    *("jsonb", "json", "uuid", "timestamptz", "interval", "text[]", "int8[]"),
)
ARGUMENTS = (
    *("", "text, oid", "text, text", "text, varchar", "text, int8", "text, int4", "text, bool", "oid, text"),
    *("text, text, bool", "text, int4, text, text, text", "text, text, text, text, text", "text, int8, text, text"),
    *("regclass, text", "oid, oid", "int8, int4", "int4, int8", "int4, int4", "varchar, int8", "text, oid, text, text"),
    *("bytea", "bytea, text", "text, name", "jsonb, text", "int8, int8"),
    *TYPES,
)
# What the library's own statements call; what ends in v1 is ours.
CALLED = re.compile(r"\bpg_catalog\.([a-z]\w*)\(")
CALLED_WITHOUT_SCHEMA = re.compile(r"\bfunc\.(\w+)\(")
# Grammar, and aggregates of columns, whose arguments fit those that are built in exactly.
EXACT = {*GRAMMAR, "any", "array", "count", "max", "sum"}


def calls_in(sql: str) -> Iterator[tuple[str, str]]:
    """Yield the names that look like those of functions and catalogues, with what stands before a dot in front of them."""
    for line in sql.splitlines():
        without_literals = re.sub(r"'[^']*'", "''", line)
        if not line.startswith("--"):
            yield from re.findall(r"(?:(\w+)\.)?\b([a-z]\w*)(?<!_v1)\(", without_literals)
            yield from re.findall(r"(?:(\w+)\.)?\b(pg_(?!catalog)\w+)", without_literals)


BODY = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hostile'; END $$"


def put_hostile_ones_in_front(connection: Connection) -> None:
    """Create all that could fit better than what is built in; every one of them raises an error."""
    names = {name for path in FILES for schema, name in calls_in(path.read_text()) if schema == "pg_catalog"}
    put_functions_in_front(connection, names)
    functions: list[str] = []
    for left, right in product(TYPES, TYPES):
        function = f'public."{left} and {right}"'
        functions.append(f"CREATE FUNCTION {function}({left}, {right}) RETURNS bool {BODY}")
        functions += [
            f"CREATE OPERATOR public.{operator} (FUNCTION = {function}, LEFTARG = {left}, RIGHTARG = {right})"
            for operator in OPERATORS
        ]
    connection.exec_driver_sql(";\n".join(functions).replace("%", "%%"))


def put_functions_in_front(connection: Connection, names: Collection[str]) -> None:
    """Create functions that could fit better than those which are built in."""
    functions = [f"CREATE FUNCTION public.{n}({a}) RETURNS text {BODY}" for n, a in product(sorted(names), ARGUMENTS)]
    connection.exec_driver_sql(";\n".join(functions))


@pytest.fixture
def engine(make_postgres_database: Callable[..., PostgresDatabase]) -> Iterator[Engine]:
    engine = create_engine(make_postgres_database(prepared_by=install_schema).url("psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        put_hostile_ones_in_front(connection)
    yield engine
    engine.dispose()


def test_bodies_name_the_schema_of_all_that_is_built_in() -> None:
    unnamed = {
        path.name: sorted({name for schema, name in calls_in(path.read_text()) if not schema} - GRAMMAR)
        for path in FILES
    }

    assert {name: found for name, found in unnamed.items() if found} == {}


def test_the_hostile_ones_would_be_called_where_no_schema_is_named(engine: Engine) -> None:
    for call in ("SELECT concat('a'::text, 1::oid)", "SELECT '{}'::jsonb ->> '1'", "SELECT 2 / 1.0"):
        with engine.connect() as connection, pytest.raises(Exception, match="hostile"):
            connection.exec_driver_sql(call)


def test_the_functions_of_an_event_store_call_no_hostile_one(engine: Engine) -> None:
    store = SyncEventStore(engine)
    stream = store.stream(category="orders", stream="1")

    def event(name: str = "placed") -> NewEvent[str, None, None]:
        return NewEvent(name=name, payload=None)

    stored = [*stream.publish(events=[event()], condition=stream_is_empty())]
    with pytest.raises(UnmetWriteConditionError):
        stream.publish(events=[event()], condition=position_is(7))
    with Session(engine) as session:
        within = store.within(session)
        stored += within.stream(category="orders", stream="1").publish(events=[event()], condition=stream_exists())
        with pytest.raises(UnmetWriteConditionError):
            within.stream(category="orders", stream="1").publish(events=[event()], condition=stream_is_empty())
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT watermark FROM es_watermark_v1()")) == 1
        # So many streams that the whole category is locked instead, which is in vain as long as it is shared.
        many = {StreamIdentifier("orders", str(number)): {"events": [event()]} for number in range(2, 60)}
        with engine.connect() as connection:
            connection.exec_driver_sql("SET lock_timeout = '50ms'")
            with pytest.raises(LockTimeoutError, match=r"'orders' within 50 ms; it is held by process"):
                SyncEventStore(connection).publish(streams=many)  # type: ignore[arg-type]
        session.commit()
    for events in store.publish(streams=many).values():  # type: ignore[arg-type]
        stored += events
    query = EventQuery([QueryItem(tags=["x", "a"], names=["placed"]), QueryItem(tags=["c"])])
    for tags in (["a", "b"], [f"tag:{number}" for number in range(60)]):
        stored += stream.publish(
            events=[NewEvent(name="placed", payload=None, tags=tags)], condition=no_event_matches(query)
        )
    with pytest.raises(UnmetWriteConditionError):
        stream.publish(events=[event()], condition=no_event_matches(EventQuery.tagged("a", "b")) | position_is(7))
    assert store.backfill_tags(lambda event: {"late", *event.tags}).changed > 0

    with engine.connect() as connection:
        ids = connection.scalars(text("SELECT id FROM es_read_log_v1(0, 100)")).all()
        assert ids == [event.id for event in stored]
        with pytest.raises(Exception, match="is forbidden: events are history"):
            connection.execute(text("DELETE FROM es_events"))


def test_the_statements_of_the_library_name_the_schema_of_the_functions_that_they_call() -> None:
    for path in (
        "events/dialects/postgresql.py",
        "projections/dialects/postgresql_json.py",
        "projections/dialects/advisory_locks.py",
    ):
        called = set(CALLED_WITHOUT_SCHEMA.findall((PACKAGE / "persistence" / path).read_text()))
        assert called <= EXACT, path


def test_the_statements_of_the_library_call_no_hostile_function(
    make_postgres_database: Callable[..., PostgresDatabase],
) -> None:
    engine = create_engine(make_postgres_database().url("psycopg"), poolclass=NullPool)
    names = {name for path in PACKAGE.rglob("*.py") for name in CALLED.findall(path.read_text())}
    assert {"pg_advisory_xact_lock", "convert_to", "hashtextextended", "set_config"} <= names
    with engine.begin() as connection:
        put_functions_in_front(connection, {*names, "hashtext", "decode"})
    with engine.connect() as connection, pytest.raises(Exception, match="hostile"):
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(1)")

    store = SyncEventStore(engine)
    store.create_schema()
    inline = store.with_projections(CustomerProjector())

    def publish(to: SyncEventStore, customer: str) -> None:
        event = NewEvent(name="something-happened", payload=1)
        to.stream(category="payments", stream=f"{customer}-1").publish(events=[event])

    publish(inline, "a")
    with Session(engine) as session:
        publish(inline.within(session), "a")
        publish(inline.within(session), "b")
        holder = store.watermark().holder
        assert holder is not None
        session.commit()
    log = store.log()
    parts = [part.read() for part in log.partitions(2)]
    assert sorted(event.sequence_number for part in parts for event in part) == [1, 2, 3]
    assert len(store.category(category="payments").read()) == 3
    projections = SyncProjectionStore(store)
    assert {each.id for each in projections.search()} == {"a", "b"}
    assert rebuild_sync(projector=CustomerProjector(), store=store) == 2
    with engine.connect() as connection:
        verify_schema(connection)
    clear(engine)
    assert log.read() == []
    engine.dispose()
