"""Clauses of the query language as values: what can be said, and what is refused at once."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from eventstore_sa.errors import QueryError, SerialisationError
from eventstore_sa.query import (
    AllOf,
    AnyOf,
    FilterClause,
    KeySetPagingClause,
    Lookup,
    Not,
    OffsetPagingClause,
    Operator,
    Path,
    Search,
    SortClause,
    SortField,
)
from eventstore_sa.query.converters import QueryConverters
from eventstore_sa.query.evaluation import Evaluation, similarity
from eventstore_sa.query.patterns import compiled
from eventstore_sa.testing.cases.tables import in_turn

STATUS = Path("state", "status")


def test_paths_are_equal_by_their_steps_and_show_them() -> None:
    assert Path("state", "lines", 0) == Path("state", "lines", 0) != Path("state", "lines", "0")
    assert hash(Path("state", 1)) == hash(Path("state", 1))
    assert repr(Path("state", "lines", 0)) == "Path('state', 'lines', 0)"


def test_clauses_can_be_hashed_and_pickled() -> None:
    clause = FilterClause(Operator.EQUAL, STATUS, {"a": [1]})

    assert hash(clause) == hash(FilterClause(Operator.EQUAL, STATUS, {"a": [1]}))
    assert pickle.loads(pickle.dumps(AllOf(clause))) == AllOf(clause)


@in_turn("step", [True, 1.0, None, 2**31, "a\0", "\ud800"])
def test_a_step_is_text_or_a_small_integer(step: Any) -> None:
    with pytest.raises(QueryError, match="path step"):
        Path("state", step)


@in_turn("number", [0, -1, True, 1.0, None])
def test_pages_and_their_items_are_counted_from_1(number: Any) -> None:
    for make in (
        lambda: OffsetPagingClause(page_number=number),
        lambda: OffsetPagingClause(item_count=number),
        lambda: KeySetPagingClause(item_count=number),
    ):
        with pytest.raises(QueryError, match="must be an integer from 1 to"):
            make()


def test_in_takes_several_values() -> None:
    assert FilterClause(Operator.IN, STATUS, {"a"}).json_value == ["a"]
    with pytest.raises(QueryError, match="IN takes"):
        FilterClause(Operator.IN, STATUS, "abc")


def test_a_value_may_wait_for_a_clause_of_another_thread_while_it_is_converted() -> None:
    converting, made = Event(), Event()

    class Waits:
        def serialise(self) -> bool:
            converting.set()
            return made.wait(10)

    with ThreadPoolExecutor(1) as pool:
        clause = pool.submit(FilterClause, Operator.EQUAL, STATUS, Waits())
        assert converting.wait(10)
        FilterClause(Operator.EQUAL, STATUS, "paid")
        made.set()

    assert clause.result().json_value is True


def test_a_value_is_converted_once_and_is_what_was_checked() -> None:
    class Money:
        conversions = 0

        def serialise(self) -> dict[str, int]:
            Money.conversions += 1
            return {"cents": 100}

    given = [Money()]
    clause = FilterClause(Operator.EQUAL, STATUS, given)
    given.append(Money())
    found = Evaluation(QueryConverters()).found(
        [{"state": {"status": [{"cents": 100}]}}], Search(filters=[clause]), dict
    )

    assert len(found) == 1
    assert clause.json_text == '[{"cents":100}]'
    assert Money.conversions == 1


def test_a_value_that_is_no_json_is_refused() -> None:
    with pytest.raises(SerialisationError, match="value of the filter"):
        FilterClause(Operator.EQUAL, STATUS, float("nan"))


@in_turn("pattern", ["(", "a**", "[", "*", 5, None, "\0", "a{2}{3}", "[z-a]"])
def test_what_is_no_regular_expression_is_refused(pattern: Any) -> None:
    with pytest.raises(QueryError):
        FilterClause(Operator.REGEX_MATCHES, STATUS, pattern)


@in_turn(
    "pattern",
    [
        *[r"\bword", r"a++", r"a?+", r"a{2}+", r"(?i)a", r"(?<=a)b", r"(?P<n>a)", r"a{", r"a{100}", r"[[:alpha:]]"],
        *[r"[\D]", r"\A", r"\Z", r"(a)\1", r"\é", "[\\b]"],
        *[
            "[a-c-e]",
            "[^a-c-e]",
            r"[\.-a-c]",
            "(?=a)*",
            "(?!a)?b",
            "(?=a){2}",
            "(?!a)+?",
            "((?=a)*b)",
            "(?=(a))*",
            "[a-[]",
        ],
    ],
)
def test_what_databases_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(QueryError, match="not mean the same"):
        compiled(pattern)


def test_patterns_have_a_limited_size() -> None:
    fitting = ["a" * 1000, "(" * 50 + "a" + ")" * 50, "a{99}b{99}c{99}", "(ab?){60}", "a|" * 400 + "b{99}", "a+" * 500]
    too_large = [
        "a" * 1001,
        "(" * 51 + "a" + ")" * 51,
        "a{99}b{99}c{99}d{99}",
        "(a{20}){20}",
        "(?=((a?){99}|b){4})",
        "((a{99}){99}){99}",
    ]

    for pattern in fitting:
        assert compiled(pattern)
    for pattern in too_large:
        with pytest.raises(QueryError, match=r"at most (1000|50|300)"):
            compiled(pattern)


@in_turn(
    "pattern, text, matches",
    [
        ("b", "abc", True),
        ("^b", "abc", False),
        ("c$", "abc", True),
        ("c$", "abc\n", False),
        (r"c\$", "abc$", True),
        ("[$]", "abc$", True),
        ("a.c", "a\nc", True),
        (r"^\w+$", "été", False),
        (r"^[\w-]{2,4}$", "a-b", True),
        (r"[]a]", "]", True),
        ("[a-c-]+$", "-", True),
        ("[-a-c]+$", "-b", True),
        (r"[a-c\-e]+$", "b-e", True),
        ("((?!a)b)*c", "bbc", True),
        ("(?:(?=a)a)+", "aa", True),
        ("}]", "}]", True),
        (r"[^]a]", "]", False),
        (r"[\]]$", "]", True),
        ("(?:ab|cd)(?=e)", "cde", True),
        ("a(?!b)", "ab", False),
        ("A", "a", False),
        ("", "", True),
    ],
)
def test_patterns_search(pattern: str, text: str, matches: bool) -> None:
    assert (compiled(pattern).search(text) is not None) is matches


@in_turn(
    "left, right, expected",
    [
        ("xyz", "xyz", 1),
        ("xyz", "xyzabxyz", 0.5),
        ("xyz", "axyz bcdefghijklm", 0.1),
        ("xyz", "abx", 0),
        ("Word", "wORD", 1),
        ("", "", 0),
        ("a-b", "a b", 1),
        ("über", "Über", 1 / 4),
    ],
)
def test_similarity_is_the_share_of_common_trigrams(left: str, right: str, expected: float) -> None:
    assert similarity(left, right) == similarity(right, left) == pytest.approx(expected)


@in_turn(
    "search",
    [
        Search(filters=[FilterClause(Operator.EQUAL, Path("status"), 1)]),
        Search(sort=SortClause([SortField(Path("version"))])),
    ],
)
def test_a_field_that_projections_do_not_have_is_refused_even_where_there_are_none(search: Search) -> None:
    with pytest.raises(QueryError, match=re.escape("a path begins with one of id, name, source, state, metadata")):
        Evaluation(QueryConverters()).found([], search, lambda _: {})


NAMED: Any = FilterClause(Operator.EQUAL, Path("name"), "order")
BY_ID: Any = SortField(Path("id"))
NOT_ANY: Any = object()


@in_turn(
    "make, message",
    [
        (lambda: FilterClause(NOT_ANY, Path("id"), 1), "the operator of a filter must be an Operator, not 'object'"),
        (lambda: FilterClause(Operator.EQUAL, NOT_ANY, 1), "the field of a filter must be a Path"),
        (lambda: SortField(NOT_ANY), "the field of a SortField must be a Path"),
        (lambda: SortField(Path("id"), NOT_ANY), "the order of a SortField must be SortOrder.ASC or SortOrder.DESC"),
        (lambda: SortClause(BY_ID), "the argument of SortClause must be a list of SortFields, not 'SortField'"),
        (lambda: SortClause([NOT_ANY]), "each field of a SortClause must be a SortField"),
        (lambda: Search(filters=NAMED), "`filters` takes a list of filters, not 'FilterClause'"),
        (lambda: Search(filters=[NOT_ANY]), "each filter of `filters` must be a FilterClause"),
        (lambda: Search(sort=BY_ID), "`sort` must be a SortClause"),
        (lambda: Search(paging=NOT_ANY), "`paging` must be an OffsetPagingClause or a KeySetPagingClause"),
        (lambda: Lookup(filters=NAMED), "`filters` takes a list of filters"),
        (lambda: KeySetPagingClause(direction=NOT_ANY), "the direction of paging must be a PagingDirection"),
        (lambda: AnyOf(NOT_ANY), "each filter of AnyOf must be"),
        (lambda: AllOf(NOT_ANY), "each filter of AllOf must be"),
        (lambda: Not(NOT_ANY), "each filter of Not must be"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_is_written(make: Callable[[], object], message: str) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        make()
