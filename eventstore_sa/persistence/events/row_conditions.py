"""Conditions on rows of the application: what a query finds is locked before any stream is.

That order, rows before streams, is the same for all publishes; the other way round two of them could wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select

from eventstore_sa.conditions import WriteCondition, custom_conditions
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.publishing import StreamPublication

__all__ = ["RowExistsCondition", "exists_row", "verdicts_on_rows"]


class RowExistsCondition(WriteCondition, frozen=True, eq=False):
    """Met when a query finds a row."""

    query: Select[Any]

    def __post_init__(self) -> None:
        query: object = self.query
        if not isinstance(query, Select):
            raise ConfigurationError(f"exists_row takes a select(); got a {type(query).__name__}")

    def describe(self) -> str:
        tables = ", ".join(sorted({str(table.description) for table in self.query.get_final_froms()}))
        return f"a row of {tables} that the query finds"


def exists_row(query: Select[Any]) -> RowExistsCondition:
    """Demand that a query of the application finds a row, and lock that row until the transaction ends.

    The row is locked with SELECT ... FOR UPDATE before any stream is; on SQLite, the publish is the only writer meanwhile.
    Within a session, flush first what the query has to see, unless the publish is staged.

    Args:
        query: A `select()` of tables that can be locked: no aggregates, no DISTINCT.

    Raises:
        ConfigurationError: It is no `select()`.

    Example:
        >>> from sqlalchemy import column, select, table
        >>> account = table("account", column("id"), column("balance"))
        >>> exists_row(select(account).where(account.c.id == 1, account.c.balance >= 10)).describe()
        'a row of account that the query finds'
    """
    return RowExistsCondition(query)


def verdicts_on_rows(
    connection: Connection, parts: Sequence[StreamPublication]
) -> dict[tuple[int, WriteCondition], bool]:
    """Lock the rows that the conditions of a publish ask for; tell which of them were found."""
    found: dict[WriteCondition, bool] = {}
    verdicts: dict[tuple[int, WriteCondition], bool] = {}
    for item, part in enumerate(parts):
        for condition in custom_conditions(part.condition):
            if isinstance(condition, RowExistsCondition):
                if condition not in found:
                    row = connection.execute(condition.query.with_for_update().limit(1)).first()
                    found[condition] = row is not None
                verdicts[item, condition] = found[condition]
    return verdicts
