"""The query language of stored projections: filters, sorting and paging as values.

Pure Python. `evaluation` defines the meaning of queries; storage in a database translates them to SQL.
"""

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
