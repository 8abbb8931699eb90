"""Tables of values within one test: each row is tried in turn, and a failure names its row.

For rows that need no fixtures of their own, use this instead of `pytest.mark.parametrize`, which makes an item of each row
and sets up all fixtures again for it. For the cases in this folder and for tests.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

__all__ = ["case", "in_turn"]

Test = TypeVar("Test", bound=Callable[..., Any])


@contextmanager
def case(key: object) -> Generator[None]:
    """Add the key, a sentence or any value, to whatever fails within."""
    try:
        yield
    except BaseException as failure:
        failure.add_note(f"in the case {shortened(key)}")
        raise


def in_turn(names: str, rows: Mapping[str, Any] | Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test, a coroutine function or not, once for each row, one after the other, until one fails.

    The rows share what the test's fixtures provide: each finds there what those before it have left behind.

    Args:
        names: The arguments that the rows give, separated by commas.
        rows: The values, by keys that say what each is about, or alone. For several names they are tuples.

    Raises:
        ValueError: There are no rows, or the test does not take the arguments.
    """
    arguments = [name.strip() for name in names.split(",")]
    keyed = list(cast("Mapping[str, Any]", rows).items() if isinstance(rows, Mapping) else ((row, row) for row in rows))
    if not keyed:
        raise ValueError(f"there is no row for {names}: the test would pass without having run")
    table = [(key, dict(zip(arguments, row if len(arguments) > 1 else (row,), strict=True))) for key, row in keyed]

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        if missing := set(arguments) - signature.parameters.keys():
            raise ValueError(f"{test.__qualname__} does not take {', '.join(sorted(missing))}")

        @functools.wraps(test)
        def run(*given: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True
            for key, row in table:
                with case(key):
                    test(*given, **fixtures, **row)

        @functools.wraps(test)
        async def run_async(*given: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True
            for key, row in table:
                with case(key):
                    await test(*given, **fixtures, **row)

        runner: Any = run_async if inspect.iscoroutinefunction(test) else run
        # What pytest looks for fixtures in.
        others = [parameter for name, parameter in signature.parameters.items() if name not in arguments]
        runner.__signature__ = signature.replace(parameters=others)
        return cast("Test", runner)

    return decorate


def shortened(key: object) -> str:
    """Return the key as text that any terminal can show."""
    text = ascii(key)
    return text if len(text) <= 200 else f"{text[:200]}..."
