"""The query language of stored projections: filters, sorting and paging as values.

Pure Python, for stores and callers alike. `evaluation` is what the clauses mean; storage in a database says the same in
SQL.
"""

from eventstore_sa.query.clauses import (
    AllOf,
    AnyOf,
    CustomFilter,
    CustomOperator,
    FilterClause,
    FilterExpression,
    KeySetPagingClause,
    Lookup,
    Not,
    OffsetPagingClause,
    Operator,
    PagingClause,
    PagingDirection,
    Search,
    SortClause,
    SortField,
    SortOrder,
)
from eventstore_sa.query.evaluation import Document, value_at
from eventstore_sa.query.paths import CustomFunction, Function, Path, Similarity

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
