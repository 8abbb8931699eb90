"""What an adapter was told about the filters, operators and functions that are the application's own.

Here is who was told what, and nothing of what the converters return: Python values in memory, SQL in a database.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.query.clauses import CustomFilter, CustomOperator
from eventstore_sa.query.paths import CustomFunction

__all__ = ["QueryConverters"]

F = TypeVar("F")
O = TypeVar("O")  # noqa: E741 - filters, operators, functions
S = TypeVar("S")
T = TypeVar("T")

_UNKNOWN: Final = (
    "this adapter does not know the {what} {name}: tell it with adapter.register_{what}({name}, converter)"
)


class QueryConverters(Generic[F, O, S]):
    """Converters by what they convert; shared by the adapters that are made from one."""

    def __init__(self) -> None:
        self._filters: dict[type[CustomFilter], F] = {}
        self._operators: dict[CustomOperator, O] = {}
        self._functions: dict[type[CustomFunction], S] = {}

    def register_filter(self, kind: type[CustomFilter], converter: F) -> None:
        """Say what filters of a type, and of its subclasses, mean; the last one registered counts.

        Raises:
            ConfigurationError: It is no subclass of CustomFilter.
        """
        self._filters[_checked_subclass(kind, CustomFilter)] = converter

    def register_operator(self, operator: CustomOperator, converter: O) -> None:
        """Say what an operator means; the last one registered counts.

        Raises:
            ConfigurationError: It is no CustomOperator.
        """
        checked: object = operator
        if not isinstance(checked, CustomOperator):
            raise ConfigurationError(
                f"converters are registered for operators of your own, such as CustomOperator('within'); {checked!r} is none"
            )
        self._operators[operator] = converter

    def register_function(self, kind: type[CustomFunction], converter: S) -> None:
        """Say what functions of a type, and of its subclasses, mean; the last one registered counts.

        Raises:
            ConfigurationError: It is no subclass of CustomFunction.
        """
        self._functions[_checked_subclass(kind, CustomFunction)] = converter

    def of_filter(self, filter_: CustomFilter) -> F:
        """Return what converts a filter.

        Raises:
            ConfigurationError: Nothing is registered for it.
        """
        return _found(self._filters, type(filter_), "filter")

    def of_operator(self, operator: CustomOperator) -> O:
        """Return what converts clauses with an operator.

        Raises:
            ConfigurationError: Nothing is registered for it.
        """
        if operator not in self._operators:
            raise ConfigurationError(_UNKNOWN.format(what="operator", name=repr(operator)))
        return self._operators[operator]

    def of_function(self, function: CustomFunction) -> S:
        """Return what converts a function.

        Raises:
            ConfigurationError: Nothing is registered for it.
        """
        return _found(self._functions, type(function), "function")


def _found(converters: dict[type[T], F], kind: type[T], what: str) -> F:
    for base in kind.__mro__:
        if base in converters:
            return converters[base]
    raise ConfigurationError(_UNKNOWN.format(what=what, name=kind.__name__))


def _checked_subclass(kind: type[T], base: type[T]) -> type[T]:
    checked: object = kind
    if not isinstance(checked, type) or not issubclass(checked, base) or checked is base:
        raise ConfigurationError(
            f"converters are registered for subclasses of {base.__name__} of your own; {checked!r} is none"
        )
    return kind
