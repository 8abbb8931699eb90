"""The query language of stored projections: filters, sorting and paging as values.

Pure Python. `evaluation` defines the meaning of queries; storage in a database translates them to SQL.
"""

from typing import TYPE_CHECKING

from eventstore_sa.query.clauses import (
    AllOf,
    AnyOf,
    CustomFilter,
    CustomFunction,
    CustomOperator,
    FilterClause,
    FilterExpression,
    Function,
    KeySetPagingClause,
    Lookup,
    Not,
    OffsetPagingClause,
    Operator,
    PagingClause,
    PagingDirection,
    Path,
    Search,
    Similarity,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.query.evaluation import Document, value_at
from eventstore_sa.replacements import replaced

__all__ = [
    "AllOf",
    "AnyOf",
    "CustomFilter",
    "CustomFunction",
    "CustomOperator",
    "Document",
    "FilterClause",
    "FilterExpression",
    "Function",
    "KeySetPagingClause",
    "Lookup",
    "Not",
    "OffsetPagingClause",
    "Operator",
    "PagingClause",
    "PagingDirection",
    "Path",
    "Search",
    "Similarity",
    "SortClause",
    "SortField",
    "SortOrder",
    "value_at",
]

if not TYPE_CHECKING:
    __getattr__ = replaced(
        __name__,
        {
            "Clause": "FilterExpression, SortClause and PagingClause; clauses of your own derive from CustomFilter",
            "Query": "Lookup or Search",
        },
    )
