"""Statements that are compiled once for each engine, and executed without SQLAlchemy's results if nobody looks on.

SQLAlchemy finds the compiled form of a statement by its structure, and makes a context and a result for each execution.
None of this is needed for a statement of ours whose columns need no conversion, on a connection of our own. If there is a
listener or a log, or the connection is the host's, statements are executed in the ordinary way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from weakref import WeakKeyDictionary

from msgspec import Struct
from sqlalchemy import Boolean, Connection, Dialect, Executable

from eventstore_sa.persistence.sqlalchemy_internals import column_types, executed, is_observed
from eventstore_sa.persistence.transactions.databases import database_of

__all__ = ["OF_OUR_OWN", "PreparedStatement"]

OF_OUR_OWN: Final = "eventstore_sa.of_our_own"
"""The option of connections on which a statement may be executed directly: they are ours, in autocommit mode or in a
transaction that is begun."""


class _Compiled(Struct, frozen=True):
    """A statement for one dialect.

    Attributes:
        sql: Its text.
        constants: The parameters that do not change.
        order: The names of the parameters in the order in which the driver takes them; None if it takes them by name.
    """

    sql: str
    constants: Mapping[str, Any]
    order: Sequence[str] | None

    def parameters(self, given: Mapping[str, Any]) -> Any:
        """Return the parameters in the form that the driver takes."""
        values = {**self.constants, **given}
        return values if self.order is None else tuple([values[name] for name in self.order])


class PreparedStatement:
    """A statement that is executed again and again.

    Args:
        statement: The statement. If a parameter or a column of its result is converted by SQLAlchemy on some database, it
            is executed in the ordinary way there.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: WeakKeyDictionary[Dialect, _Compiled | None] = WeakKeyDictionary()

    def rows(self, connection: Connection, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute it, and return all rows."""
        compiled = self._direct(connection)
        if compiled is None:
            return connection.execute(self._statement, parameters).all()
        with executed(connection, compiled.sql, compiled.parameters(parameters)) as cursor:
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        return rows

    def scalar(self, connection: Connection, parameters: Mapping[str, Any]) -> Any:
        """Execute it, and return the first value of the first row; None if there is no row."""
        rows = self.rows(connection, parameters)
        return rows[0][0] if rows else None

    def count(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Execute it, and return how many rows it has changed."""
        compiled = self._direct(connection)
        if compiled is None:
            return connection.execute(
                self._statement, parameters, execution_options={"preserve_rowcount": True}
            ).rowcount
        with executed(connection, compiled.sql, compiled.parameters(parameters)) as cursor:
            count: int = cursor.rowcount
        return count

    def _direct(self, connection: Connection) -> _Compiled | None:
        """Return what to execute directly; None if it is to be executed in the ordinary way."""
        options = connection.get_execution_options()
        if OF_OUR_OWN not in options or options.get("schema_translate_map"):
            return None
        if is_observed(connection, database_of(connection).listeners):
            return None
        dialect = connection.dialect
        try:
            return self._compiled[dialect]
        except KeyError:
            found = self._compiled[dialect] = _compiled(self._statement, dialect)
            return found


def _compiled(statement: Executable, dialect: Dialect) -> _Compiled | None:
    compiled = cast("Any", statement).compile(dialect=dialect)
    binds: Mapping[Any, str] = compiled.bind_names
    if any(
        bind.expanding or bind.literal_execute or bind.type.dialect_impl(dialect).bind_processor(dialect)
        for bind in binds
    ):
        return None
    # A bool may come as 0 or 1, which is as good.
    columns = [each for each in column_types(compiled) if not isinstance(each, Boolean)]
    if any(each.dialect_impl(dialect).result_processor(dialect, None) for each in columns):
        return None
    constants = {name: bind.effective_value for bind, name in binds.items() if not bind.required}
    order = tuple(compiled.positiontup) if compiled.positional else None
    return _Compiled(str(compiled), constants, order)
