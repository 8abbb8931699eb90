"""The registry of converters for an application's own filters, operators and functions.

What converters return depends on the adapter: Python values in memory, SQL in a database.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.query.clauses import CustomFilter, CustomFunction, CustomOperator

__all__ = ["QueryConverters"]

F = TypeVar("F")
O = TypeVar("O")  # noqa: E741 - filters, operators, functions
S = TypeVar("S")
T = TypeVar("T")

_UNKNOWN: Final = (
    "no converter is registered for the {what} {name}: register one with adapter.register_{what}({name}, converter)"
)


class QueryConverters(Generic[F, O, S]):
    """Converters by what they convert; shared with the adapters that `within` returns."""

    def __init__(self) -> None:
        self._filters: dict[type[CustomFilter], F] = {}
        self._operators: dict[CustomOperator, O] = {}
        self._functions: dict[type[CustomFunction], S] = {}

    def register_filter(self, kind: type[CustomFilter], converter: F) -> None:
        """Register the converter for a type of filter and its subclasses; replaces an earlier one.

        Raises:
            ConfigurationError: If `kind` is not a subclass of CustomFilter.
        """
        self._filters[_checked_subclass(kind, CustomFilter)] = converter

    def register_operator(self, operator: CustomOperator, converter: O) -> None:
        """Register the converter for an operator; replaces an earlier one.

        Raises:
            ConfigurationError: If `operator` is not a CustomOperator.
        """
        checked: object = operator
        if not isinstance(checked, CustomOperator):
            raise ConfigurationError(
                f"operator must be a CustomOperator, such as CustomOperator('within'), not {checked!r}"
            )
        self._operators[operator] = converter

    def register_function(self, kind: type[CustomFunction], converter: S) -> None:
        """Register the converter for a type of function and its subclasses; replaces an earlier one.

        Raises:
            ConfigurationError: If `kind` is not a subclass of CustomFunction.
        """
        self._functions[_checked_subclass(kind, CustomFunction)] = converter

    def of_filter(self, filter_: CustomFilter) -> F:
        """Return the converter for a filter.

        Raises:
            ConfigurationError: If none is registered.
        """
        return _found(self._filters, type(filter_), "filter")

    def of_operator(self, operator: CustomOperator) -> O:
        """Return the converter for an operator.

        Raises:
            ConfigurationError: If none is registered.
        """
        if operator not in self._operators:
            raise ConfigurationError(_UNKNOWN.format(what="operator", name=repr(operator)))
        return self._operators[operator]

    def of_function(self, function: CustomFunction) -> S:
        """Return the converter for a function.

        Raises:
            ConfigurationError: If none is registered.
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
        raise ConfigurationError(f"converters can be registered for subclasses of {base.__name__}, not for {checked!r}")
    return kind
