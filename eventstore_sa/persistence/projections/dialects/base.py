"""What SQL looks at in a stored projection: places that paths lead to, and what a database can say of them.

Each database implements it beside this file; `queries` puts queries together of it, and converters of the
application's own are given it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, FromClause, Table
from sqlalchemy.types import TypeEngine

from eventstore_sa.query import Operator, Path
from eventstore_sa.query.evaluation import check_field

__all__ = ["NAME_COLUMNS", "JsonPlace", "Key", "Operand", "ProjectionColumns", "ProjectionDialect"]

NAME_COLUMNS = ("id", "name")
"""The fields of a projection that are text and no JSON in the database."""


class JsonPlace(ABC):
    """What a path leads to in a stored projection, as SQL; NULL where it leads nowhere."""

    @property
    @abstractmethod
    def json(self) -> ColumnElement[Any]:
        """The JSON: jsonb on PostgreSQL, its text on SQLite."""

    @property
    @abstractmethod
    def kind(self) -> ColumnElement[str]:
        """What it is: 'number', 'string', 'boolean', 'array', 'object' or 'null'."""

    @property
    @abstractmethod
    def text(self) -> ColumnElement[str]:
        """The text of a string, compared by code point; NULL for anything else."""

    @property
    @abstractmethod
    def number(self) -> ColumnElement[Any]:
        """A number, as exactly as the database can; NULL for anything else."""


class Key(Struct, frozen=True):
    """A part of what projections are ordered by.

    Attributes:
        value: Never NULL.
        type: What its text is cast to, to have it back.
    """

    value: ColumnElement[Any]
    type: TypeEngine[Any]


class Operand(Struct, frozen=True):
    """The value that a clause compares with.

    Statements are used again for other values of the same kind: what they say may depend on the kind alone.

    Attributes:
        plain: The value as plain JSON.
        json: The parameter that is the text of its JSON.
        text: The parameter that is the value itself, where it is a string.
    """

    plain: Any
    json: ColumnElement[str]
    text: ColumnElement[str]


class ProjectionDialect(ABC):
    """How one kind of database looks into projections. A condition that is NULL counts as not met.

    Values, and the steps of paths, are bound parameters.

    Args:
        table: The table of projections.
    """

    copies_values: bool = False
    """Whether a row that passes through a subquery is copied with all that is in it, however long."""

    def __init__(self, table: Table) -> None:
        self.table: Table = table

    def prepare(self, connection: Connection) -> None:
        """Make the conditions work on a connection."""
        return

    @abstractmethod
    def insert(self) -> Any:
        """Return the INSERT into the table that knows ON CONFLICT."""

    @abstractmethod
    def items(self, document: ColumnElement[str]) -> tuple[ColumnElement[Any], ColumnElement[int]]:
        """Return the items of a JSON array, as JSON, and their places in it."""

    @abstractmethod
    def stored(self, text: ColumnElement[str]) -> ColumnElement[Any]:
        """Return what is stored for a text of JSON."""

    @abstractmethod
    def as_text(self, column: ColumnElement[Any]) -> ColumnElement[str]:
        """Return a column of JSON as text, which every driver leaves alone."""

    def check_size(self, document: str) -> None:
        """Refuse JSON to be stored that the database would refuse for its size.

        Raises:
            SerialisationError: It is too large.
        """
        return

    @abstractmethod
    def size(self, rows: FromClause) -> ColumnElement[int]:
        """Return about how many bytes a projection takes in a page; see `EventDialect.event_size`."""

    @abstractmethod
    def place(self, path: Path) -> JsonPlace:
        """Return what a path leads to."""

    @abstractmethod
    def computed(self, value: ColumnElement[Any]) -> JsonPlace:
        """Return a number, text or boolean that was computed as if it were stored."""

    @abstractmethod
    def equal(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        """Compare JSON; None stands for null and for what is missing."""

    @abstractmethod
    def equal_to_one(self, place: JsonPlace, values: Operand) -> ColumnElement[bool]:
        """Compare with several values."""

    @abstractmethod
    def text_is_one_of(self, text: ColumnElement[str], values: Operand) -> ColumnElement[bool]:
        """Compare text that is no JSON with several texts."""

    @abstractmethod
    def ordered(self, place: JsonPlace, operator: Operator, value: Operand) -> ColumnElement[bool]:
        """Compare two numbers, or two strings, by one of the operators that order."""

    @abstractmethod
    def contains(self, place: JsonPlace, value: Operand) -> ColumnElement[bool]:
        """Demand an array that holds the value."""

    @abstractmethod
    def matches(self, place: JsonPlace, pattern: Operand, *, negated: bool) -> ColumnElement[bool]:
        """Demand a string in which the regular expression is found, or is not found."""

    @abstractmethod
    def keys(self, place: JsonPlace) -> list[Key]:
        """Return what puts places into the order of sorting."""

    @abstractmethod
    def similarity_key(self, connection: Connection, left: ColumnElement[str], right: ColumnElement[str]) -> Key:
        """Return what sorts by the similarity of two texts; where one of them is NULL, it is null.

        Args:
            connection: Asked for what it has to compute it with.
            left: A text.
            right: The other one.
        """


class ProjectionColumns:
    """A row of the table of projections, as converters of the application's own see it.

    Attributes:
        table: The table, with the columns name, id, version and so on.
    """

    def __init__(self, dialect: ProjectionDialect) -> None:
        self.table: Table = dialect.table
        self._dialect = dialect

    def at(self, path: Path) -> JsonPlace:
        """Return what a path leads to.

        Raises:
            QueryError: Projections have no such field.
        """
        check_field(path)
        return self._dialect.place(path)
