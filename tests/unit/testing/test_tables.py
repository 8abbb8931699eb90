"""Tables of values within one test: every row is run, and a failure says which one it was."""

from __future__ import annotations

import inspect

import pytest

from eventstore_sa.testing.cases.tables import case, in_turn


def test_every_row_is_run_in_its_order() -> None:
    seen: list[tuple[int, str, str]] = []

    @in_turn("letter", "ab")
    @in_turn("number, word", {"one": (1, "eins"), "two": (2, "zwei")})
    def each(number: int, word: str, letter: str) -> None:
        seen.append((number, word, letter))

    each()

    assert seen == [(1, "eins", "a"), (2, "zwei", "a"), (1, "eins", "b"), (2, "zwei", "b")]


async def test_coroutine_functions_are_awaited_for_every_row() -> None:
    seen: list[int] = []

    @in_turn("number", range(3))
    async def each(number: int) -> None:
        seen.append(number)

    await each()

    assert inspect.iscoroutinefunction(each)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("kind", [AssertionError, BaseException, pytest.fail.Exception])
async def test_a_failure_names_its_rows(kind: type[BaseException]) -> None:
    @in_turn("outer", {"first": 1, "second": 2})
    @in_turn("inner", ["x" * 10, "\ud800" * 1000])
    def each(outer: int, inner: str) -> None:
        if outer == 2 and len(inner) == 1000:
            raise kind("no")

    @in_turn("number", {"one": 1, "two": 2})
    async def each_awaited(number: int) -> None:
        if number == 2:
            raise kind("no")

    with pytest.raises(kind) as caught:
        each()
    with pytest.raises(kind) as caught_awaited:
        await each_awaited()

    inner, outer = caught.value.__notes__
    assert inner.startswith(r"in the case '\ud800")
    assert len(inner) < 250
    assert outer == "in the case 'second'"
    assert caught_awaited.value.__notes__ == ["in the case 'two'"]


def test_a_block_names_its_case() -> None:
    with case("a"), pytest.raises(ZeroDivisionError) as caught, case("b"):
        _ = 1 / 0

    assert caught.value.__notes__ == ["in the case 'b'"]


def test_fixtures_are_what_is_left_of_the_signature(tmp_path: object) -> None:
    @in_turn("number", [1])
    def each(tmp_path: object, number: int) -> None:
        assert tmp_path

    assert list(inspect.signature(each).parameters) == ["tmp_path"]
    each(tmp_path=tmp_path)


def test_no_rows_and_unknown_arguments_are_refused() -> None:
    def each(number: int) -> None: ...

    with pytest.raises(ValueError, match="there is no row for number"):
        in_turn("number", [])
    with pytest.raises(ValueError, match="each does not take nubmer"):
        in_turn("nubmer", [1])(each)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        in_turn("number, word", [(1,)])
