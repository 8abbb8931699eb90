"""What differs between databases that keep projections: how they are stored, locked and queried.

`ProjectionDialect` is the base with defaults, and each database has a module beside this one. `JsonPlace` and
`ProjectionColumns` are also what converters of an application's own filters, operators and functions are given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from enum import Enum, auto
from functools import cached_property
from typing import Any, ClassVar, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, FromClause, Select, Table, Text, bindparam, false, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from eventstore_sa.errors import QueryError
from eventstore_sa.persistence.schema import EventStoreSchema
from eventstore_sa.persistence.transactions.prepared import PreparedStatement
from eventstore_sa.query import Operator, Path
from eventstore_sa.query.evaluation import check_field
from eventstore_sa.types.codec import encode_json

__all__ = [
    "FIELDS",
    "JSON_FIELDS",
    "NAME_COLUMNS",
    "NUMBER_FIELDS",
    "ORDERINGS",
    "JsonPlace",
    "Key",
    "LockOn",
    "Operand",
    "ProjectionColumns",
    "ProjectionDialect",
]

NAME_COLUMNS: Final = ("id", "name")
"""The fields of a projection that are stored as text, and not as JSON."""

FIELDS: Final = ("name", "id", "source", "source_hash", "state", "metadata", "version", "sequence_number")
"""What is stored of a projection, besides its number."""

JSON_FIELDS: Final = ("source", "state", "metadata")
NUMBER_FIELDS: Final = ("source_hash", "version", "sequence_number")

ORDERINGS: Final = {
    Operator.GREATER_THAN: ">",
    Operator.GREATER_THAN_OR_EQUAL: ">=",
    Operator.LESS_THAN: "<",
    Operator.LESS_THAN_OR_EQUAL: "<=",
}
"""The operators of SQL that order."""


class LockOn(Enum):
    """What a publish locks of projections, besides the rows that exist."""

    NAME = auto()
    """The name, shared: the publish has locked the streams that these projections belong to."""

    IDS = auto()
    """The ids too, because publishes to different streams change the same projections."""


class JsonPlace(ABC):
    """A place in a stored projection, as SQL; NULL if there is nothing at this place."""

    @property
    @abstractmethod
    def json(self) -> ColumnElement[Any]:
        """The JSON: jsonb on PostgreSQL, JSON text on SQLite."""

    @property
    @abstractmethod
    def kind(self) -> ColumnElement[str]:
        """The JSON type: 'number', 'string', 'boolean', 'array', 'object' or 'null'."""

    @property
    @abstractmethod
    def text(self) -> ColumnElement[str]:
        """The text of a string, compared by code point; NULL for anything else."""

    @property
    @abstractmethod
    def number(self) -> ColumnElement[Any]:
        """The number, as exact as the database can represent it; NULL for anything else."""


class Key(Struct, frozen=True):
    """A part of what projections are ordered by.

    Attributes:
        value: Never NULL.
        type: The type to cast its text to.
    """

    value: ColumnElement[Any]
    type: TypeEngine[Any]


class Operand(Struct, frozen=True):
    """The value that a clause compares with.

    Statements are reused for other values of the same kind, so they must not depend on anything but the kind.

    Attributes:
        plain: The value as plain JSON.
        json: The parameter for its JSON text.
        text: The parameter for the value itself, if it is a string.
    """

    plain: Any
    json: ColumnElement[str]
    text: ColumnElement[str]


class ProjectionDialect(ABC):
    """How one kind of database stores, locks and queries projections.

    Values, and the steps of paths, are bound parameters. A condition that is NULL counts as not met. By default there is a
    single writer, which needs no locks.

    Args:
        schema: The tables.
        table: The table of projections, or the table of those that are being rebuilt.
    """

    copies_values: ClassVar[bool] = False
    """Whether a row that passes through a subquery is copied as a whole, including long values."""

    sorts_results: ClassVar[bool] = False
    """Whether rows are sorted with the results of the expressions that are selected, including those off the page."""

    def __init__(self, schema: EventStoreSchema, table: Table) -> None:
        self.schema: EventStoreSchema = schema
        self.table: Table = table

    def prepare(self, connection: Connection) -> None:
        """Make a connection ready for queries."""
        return

    # Storing

    @abstractmethod
    def insert(self, table: Table) -> Any:
        """Return an INSERT that supports ON CONFLICT."""

    @abstractmethod
    def items(self, document: ColumnElement[str]) -> tuple[ColumnElement[Any], ColumnElement[int]]:
        """Return the items of a JSON array, as JSON, and their positions in it."""

    @abstractmethod
    def records(self, document: ColumnElement[str]) -> Select[Any]:
        """Select all `FIELDS` from the items of a JSON array."""

    @abstractmethod
    def from_text(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        """Convert JSON text to the type of JSON columns."""

    @abstractmethod
    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Convert a JSON column to text, which drivers do not decode."""

    def check_size(self, document: str) -> None:
        """Check that the database can store a JSON document of this size.

        Raises:
            SerialisationError: If it is too large.
        """
        return

    @abstractmethod
    def size(self, rows: FromClause) -> ColumnElement[int]:
        """Return about how many bytes a projection takes in a page; see `EventDialect.event_size`."""

    # Loading and locking

    def load(
        self, connection: Connection, name: str, ids: Collection[str], lock: LockOn | None
    ) -> Sequence[Sequence[Any]]:
        """Load projections by id.

        Args:
            connection: The connection.
            name: The name of the projections.
            ids: Their ids.
            lock: How to keep others from changing them until the transaction ends. None: not at all.
        """
        statement = self._load if lock is None else self._load_locked
        return statement.rows(connection, {"name": name, "ids": encode_json(list(ids)).decode()})

    @abstractmethod
    def _is_one_of(self, text: ColumnElement[str], values: ColumnElement[str]) -> ColumnElement[bool]:
        """Compare a text column with the texts of a JSON array."""

    @cached_property
    def _rows(self) -> Select[Any]:
        c = self.table.c
        return (
            select(
                c.name,
                c.id,
                *(self.as_text(c[key]) for key in JSON_FIELDS),
                c.version,
                c.sequence_number,
                c.source_hash,
            )
            .where(c.name == bindparam("name"), self._is_one_of(c.id, bindparam("ids", type_=Text())))
            .order_by(c.id)
        )

    @cached_property
    def _load(self) -> PreparedStatement:
        return PreparedStatement(self._rows)

    @cached_property
    def _load_locked(self) -> PreparedStatement:
        return PreparedStatement(self._locked_rows)

    @cached_property
    def _locked_rows(self) -> Select[Any]:
        return self._rows.with_for_update(key_share=True)

    def lock(self, connection: Connection, name: str, ids: Collection[str]) -> None:
        """Lock ids against other publishes until the transaction ends, whether projections with these ids exist or not."""
        return

    def lock_in_turn(
        self, connection: Connection, name: str, ids: Collection[str], *, patience_s: float
    ) -> bool | None:
        """Try to lock ids for a while, if the transaction already holds locks on others.

        Returns:
            Whether it holds others; None if that was not determined.

        Raises:
            Refusal: If another transaction holds one for longer than that.
        """
        return None

    @abstractmethod
    def exclude_publishes(self, connection: Connection, name: str, *, timeout_s: float) -> None:
        """Keep publishes from updating projections of a name until the transaction ends.

        Raises:
            LockTimeoutError: If publishes in progress do not end in time.
        """

    # Querying

    def query_error(self, error: DBAPIError) -> QueryError | None:
        """Return what to raise if an error is the fault of the query."""
        return None

    @abstractmethod
    def place(self, path: Path) -> JsonPlace:
        """Return the place that a path leads to."""

    @abstractmethod
    def computed(self, value: ColumnElement[Any]) -> JsonPlace:
        """Return a computed number, text or boolean as if it were stored."""

    @abstractmethod
    def equal(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        """Compare JSON; None matches null and missing values."""

    @abstractmethod
    def equal_to_one(self, place: JsonPlace, values: Operand) -> ColumnElement[bool]:
        """Compare with several values."""

    @abstractmethod
    def text_is_one_of(self, text: ColumnElement[str], values: Operand) -> ColumnElement[bool]:
        """Compare a text column with several texts."""

    def ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        """Compare two numbers, or two strings, by one of the ordering operators."""
        if isinstance(value.plain, str):
            return place.text.op(ORDERINGS[operator], is_comparison=True)(value.text)
        if isinstance(value.plain, int | float) and not isinstance(value.plain, bool):
            return self._number_ordered(place, operator, value)
        return false()

    @abstractmethod
    def _number_ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        """Compare two numbers."""

    @abstractmethod
    def contains(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        """Return whether the place has an array that contains the value."""

    @abstractmethod
    def matches(self, place: JsonPlace, pattern: Operand, *, negated: bool) -> ColumnElement[bool]:
        """Return whether the place has a string in which the regular expression is found, or is not found."""

    @abstractmethod
    def keys(self, place: JsonPlace) -> list[Key]:
        """Return the keys that sort by a place."""

    @abstractmethod
    def similarity_key(self, connection: Connection, left: ColumnElement[str], right: ColumnElement[str]) -> Key:
        """Return the key that sorts by the similarity of two texts; the similarity to NULL is null.

        Args:
            connection: Asked for the functions that it has.
            left: A text.
            right: The other text.
        """


class ProjectionColumns:
    """A row of the table of projections, as converters of an application see it.

    Attributes:
        table: The table, with the columns name, id, version and so on.
    """

    def __init__(self, dialect: ProjectionDialect) -> None:
        self.table: Table = dialect.table
        self._dialect = dialect

    def at(self, path: Path) -> JsonPlace:
        """Return the place that a path leads to.

        Raises:
            QueryError: If projections have no such field.
        """
        check_field(path)
        return self._dialect.place(path)
