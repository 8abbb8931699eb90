"""Pages that end early where their rows have become too many bytes, in one statement.

The database knows how large a row is without reading what is in it. A running sum of that ends the page: the first row
always comes, the others as long as those before them are fewer bytes than `PAGE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Label,
    LargeBinary,
    Select,
    Table,
    case,
    cast,
    func,
    literal_column,
    select,
)

__all__ = ["PAGE_BYTES", "page_of_bytes", "size_on_postgresql", "size_on_sqlite"]

PAGE_BYTES: Final = 16_000_000

_SIZE: Final = "size_of_row"
# What a page counts a compressed byte for. JSON is compressed to a third to a tenth of its size, and what is all alike
# with pglz to an 87th.
_COMPRESSION: Final = 32
# Sums of 32 times as much fit into an integer.
_MOST_COUNTED: Final = 16_000_000


def page_of_bytes(
    candidates: Callable[[Sequence[ColumnElement[Any]]], Select[Any]],
    table: Table,
    *,
    order: Sequence[tuple[ColumnElement[Any], bool]],
    size: ColumnElement[int],
    columns: Callable[[FromClause], Sequence[ColumnElement[Any]]],
    by_key: bool,
    keys: Sequence[Label[Any]] = (),
) -> Select[Any]:
    """Make the SELECT of a page, whose last column is true when its rows up to there are enough bytes.

    Args:
        candidates: Selects columns of the rows that make the page if they are not too large: in order, and limited.
        table: Their table, with a primary key of one column.
        order: What they are ordered by, and whether from the highest down; no two rows are alike in all of it.
        size: The size of a row.
        columns: What is to be selected, of the table or a subquery with its columns.
        by_key: Whether columns are fetched by key once it is known which rows they are, because taking them along would
            copy them.
        keys: Columns to be selected behind the others.
    """
    (primary_key,) = table.primary_key
    taken_along = [primary_key] if by_key else list(table.c)
    ranks = [value.label(f"rank_{number}") for number, (value, _) in enumerate(order)]
    candidate = candidates([*taken_along, *ranks, size.label(_SIZE), *keys]).subquery("candidate")

    def ordered(rows: FromClause) -> list[ColumnElement[Any]]:
        named = [(rows.c[rank.name], descending) for rank, (_, descending) in zip(ranks, order, strict=True)]
        return [rank.desc() if descending else rank for rank, descending in named]

    so_far: ColumnElement[int] = func.sum(candidate.c[_SIZE]).over(order_by=ordered(candidate), rows=(None, 0))
    counted = select(candidate, so_far.label("bytes_so_far")).subquery("counted")
    enough, total = literal_column(str(PAGE_BYTES), BigInteger()), counted.c.bytes_so_far
    rows = select(
        *columns(table if by_key else counted),
        *(counted.c[key.name] for key in keys),
        (total >= enough).label("is_enough"),
    )
    if by_key:
        rows = rows.select_from(counted.join(table, primary_key == counted.c[primary_key.key]))
    return rows.where(total - counted.c[_SIZE] < enough).order_by(*ordered(counted))


def size_on_postgresql(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the size of a value as it is stored, weighted when that is compressed."""
    zero, most = literal_column("0", Integer()), literal_column(str(_MOST_COUNTED), Integer())
    # LEAST passes over NULL.
    size: ColumnElement[int] = func.least(
        func.coalesce(func.pg_catalog.pg_column_size(column), zero), most, type_=Integer()
    )
    is_plain = func.pg_catalog.pg_column_compression(column).is_(None)
    return case((is_plain, size), else_=size * literal_column(str(_COMPRESSION), Integer()))


def size_on_sqlite(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the number of bytes of a text; 0 for NULL."""
    return func.coalesce(func.length(cast(column, LargeBinary)), literal_column("0"), type_=Integer())
