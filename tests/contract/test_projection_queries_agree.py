"""Generated data and queries: SQLite and PostgreSQL find what memory finds, in the same order."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from eventstore_sa.errors import QueryError
from eventstore_sa.projection.adapters import (
    SyncInMemoryProjectionStorageAdapter,
    SyncProjectionStorageAdapter,
    SyncSQLAlchemyProjectionStorageAdapter,
)
from eventstore_sa.query import (
    AllOf,
    AnyOf,
    FilterClause,
    KeySetPagingClause,
    Not,
    OffsetPagingClause,
    Operator,
    PagingDirection,
    Path,
    Search,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.testing import clear
from eventstore_sa.testing.postgres import PostgresServer
from eventstore_sa.types import Projection, StreamIdentifier
from tests.databases import PostgresTemplates, fresh_database
from tests.stores import install_schema

KEYS = st.sampled_from(["a", "b", "", "0", "ä", "a.b", '"', "\\", "\n"])
# Few different ones, so that there are ties and matches.
TEXTS = st.one_of(
    st.sampled_from(["", "a", "A", "ab", "ä", "\U0001f600", "\uffff", "abc abd", "'", "\\", "1"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
    st.text(string.ascii_letters + string.punctuation + " \n\x7fäÄ", max_size=8),
)
NUMBERS = st.one_of(
    st.integers(-2, 2),
    st.sampled_from([0.0, 1.0, 0.5, 2**53, 2**53 + 1, 2.0**53, 1e16, 1e23, 10**23, 0.1, 1e-7, -1e300]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
STATES = st.dictionaries(KEYS, VALUES, max_size=3) | VALUES
PATHS = st.builds(
    lambda top, steps: Path(top, *steps),
    st.sampled_from(["state", "state", "state", "state", "metadata", "source", "id", "name"]),
    st.lists(KEYS | st.integers(-2, 2), max_size=3),
)
PATTERNS = st.sampled_from(
    ["", "a", "^a", "a$", "[^a]", r"\w", r"\W$", "a|b", ".", r"^\s*$", "(?!a)b", r"\\", "a{1,2}?", "[]^]"]
)


@st.composite
def clauses(draw: st.DrawFn) -> FilterClause:
    operator = draw(st.sampled_from(Operator))
    value: Any = draw(VALUES)
    if operator in (Operator.REGEX_MATCHES, Operator.NOT_REGEX_MATCHES):
        value = draw(PATTERNS)
    elif operator is Operator.IN:
        value = draw(st.lists(VALUES, max_size=3))
    return FilterClause(operator, draw(PATHS), value)


FILTERS = st.recursive(
    clauses(),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(lambda members: AllOf(*members), st.lists(inner, max_size=2))
        | st.builds(lambda members: AnyOf(*members), st.lists(inner, max_size=2))
    ),
    max_leaves=3,
)
SIMILARITIES = st.builds(Similarity, PATHS | TEXTS, PATHS | TEXTS)
SORTS = st.none() | st.builds(
    SortClause, st.lists(st.builds(SortField, PATHS | SIMILARITIES, st.sampled_from(SortOrder)), max_size=2)
)
PAGES = st.one_of(
    st.none(),
    st.builds(OffsetPagingClause, page_number=st.integers(1, 3), item_count=st.integers(1, 4)),
    st.builds(
        KeySetPagingClause,
        st.none() | st.sampled_from("01234x"),
        st.sampled_from(PagingDirection),
        st.integers(1, 4),
    ),
)
SEARCHES = st.builds(Search, filters=st.lists(FILTERS, max_size=2), sort=SORTS, paging=PAGES)


@pytest.fixture(scope="module")
def databases(
    postgres_server: PostgresServer, postgres_templates: PostgresTemplates
) -> Iterator[list[SyncSQLAlchemyProjectionStorageAdapter]]:
    template = postgres_templates.prepared_by(install_schema)
    with fresh_database(postgres_server, template) as database:
        postgresql = create_engine(database.url("psycopg"))
        sqlite = create_engine("sqlite://")
        adapters = [SyncSQLAlchemyProjectionStorageAdapter(engine, page_size=2) for engine in (postgresql, sqlite)]
        adapters[1].create_schema()
        yield adapters
        postgresql.dispose()
        sqlite.dispose()


CASES = given(states=st.lists(STATES, max_size=7), searches=st.lists(SEARCHES, min_size=1, max_size=6))


@settings(max_examples=20)
@CASES
def test_databases_find_what_memory_finds(
    databases: list[SyncSQLAlchemyProjectionStorageAdapter], states: list[Any], searches: list[Search]
) -> None:
    assert_same(databases, states, searches)


@pytest.mark.long
@settings(max_examples=200)
@CASES
def test_databases_find_what_memory_finds_in_many_cases(
    databases: list[SyncSQLAlchemyProjectionStorageAdapter], states: list[Any], searches: list[Search]
) -> None:
    assert_same(databases, states, searches)


def assert_same(
    databases: list[SyncSQLAlchemyProjectionStorageAdapter], states: list[Any], searches: list[Search]
) -> None:
    memory = SyncInMemoryProjectionStorageAdapter()
    projections = [
        Projection(
            id=str(number), name="ab"[number % 2], source=StreamIdentifier("c", "a"), state=state, metadata=[state]
        )
        for number, state in enumerate(states)
    ]
    memory.save_all(projections=projections)
    for database in databases:
        clear(database.bind.engine)
        database.save_all(projections=projections)

    for search in searches:
        expected = answer(memory, search)
        for database in databases:
            assert answer(database, search) == expected


def answer(adapter: SyncProjectionStorageAdapter, search: Search) -> Any:
    try:
        found = [(each.id, each.state) for each in adapter.find_many(search=search)]
        if search.paging is None:
            scanned = adapter.scan(filters=search.filters, sort=search.sort)
            assert [(each.id, each.state) for each in scanned] == found
        return found, adapter.count(search=search)
    except QueryError as error:
        return error.message
