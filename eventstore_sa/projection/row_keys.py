"""The primary keys of a mapped class: made from the names of streams, and rows loaded by them.

Everything that depends on how a class is mapped is here; what is done with its rows is in `table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Select, Table, bindparam, inspect, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.dialects.base import driver_attribute

__all__ = ["RowKey", "RowKeys", "iter_given", "packed", "unpacked"]

RowKey: TypeAlias = tuple[Any, ...]
"""The values of a primary key, in the order of its columns."""

_KEYS: Final = "keys"
# Bound parameters of a statement are limited: to 32766 on SQLite, 32767 with asyncpg.
_MOST_PARAMETERS: Final = 20_000


class RowKeys:
    """The primary key of a mapped class.

    Args:
        row_class: The class.

    Raises:
        ConfigurationError: It is not mapped.
    """

    def __init__(self, row_class: type[Any]) -> None:
        mapper: Mapper[Any] | None = inspect(row_class, raiseerr=False)
        if not isinstance(mapper, Mapper):
            raise ConfigurationError(
                f"@project({row_class.__name__}) needs a mapped class, and {row_class.__name__} is none: map it first, or "
                "name the class that is"
            )
        self.row_class: Final = row_class
        self._name: Final = row_class.__name__
        self._mapped: Final = frozenset(map(str, mapper.attrs.keys()))
        self._key_names: Final = [_key_name(table) for table in mapper.tables]
        self._columns: Final[Sequence[Any]] = mapper.primary_key
        self._types: Final = [_python_type(column) for column in mapper.primary_key]
        self._defaults: Final = dict(_plain_defaults(mapper))
        self.attributes: Final = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._locking, self._loading = _statements(mapper, self.attributes)

    def require(self, attribute: str) -> None:
        """Demand that rows have a mapped attribute.

        Raises:
            ConfigurationError: They have none of this name.
        """
        if attribute not in self._mapped:
            raise ConfigurationError(
                f"{self._name} has no mapped attribute {attribute!r}, which @project({self._name}, sequence_number=...) "
                "names: map an integer column there"
            )

    def of_stream(self, stream: str) -> RowKey:
        """Return the key that the name of a stream stands for; several columns are joined by ":".

        Raises:
            ConfigurationError: It stands for none.
        """
        return self.of(stream if len(self._columns) == 1 else tuple(stream.split(":")))

    def of(self, given: object) -> RowKey:
        """Return the key that was given as a value, or as a tuple with one for each column.

        Raises:
            ConfigurationError: It does not fit the columns.
        """
        values = packed(given)
        if len(values) != len(self._columns):
            raise ConfigurationError(
                f"the primary key of {self._name} has {len(self._columns)} columns ({', '.join(self.attributes)}), but "
                f"{given!r} gives {len(values)}: return a tuple with a value for each from key(event)"
            )
        return tuple(map(self._converted, values, self._types, self.attributes))

    def _converted(self, value: Any, wanted: type[Any] | None, attribute: str) -> Any:
        if wanted is None or isinstance(value, wanted):
            return value
        if isinstance(value, str) and wanted in _READERS:
            try:
                return _READERS[wanted](value)
            except ValueError:
                pass
        raise ConfigurationError(
            f"{value!r} is no {wanted.__name__}, as {self._name}.{attribute} demands: name streams so, or return the keys "
            "of the rows from key(event)"
        )

    def load(self, session: Session, keys: Iterable[RowKey]) -> dict[RowKey, Any]:
        """Lock and load the rows with these keys, those that are there; nobody else changes them until the commit.

        What the session has of them is refreshed, because it may be older than the lock.

        Raises:
            ConfigurationError: A key is stored in another form.
        """
        wanted = list(dict.fromkeys(keys))
        size = _MOST_PARAMETERS // len(self._columns)
        found: dict[RowKey, Any] = {}
        for start in range(0, len(wanted), size):
            for row in self._load_some(session, wanted[start : start + size]):
                found[self.identity_of(row)] = row
        unknown = next(iter(found.keys() - wanted), None)
        if unknown is not None:
            raise ConfigurationError(
                f"the database takes the key {unknown!r} of {self._name} for one that was asked for in another form: return "
                "keys from key(event) as they are stored"
            )
        return found

    def _load_some(self, session: Session, keys: Sequence[RowKey]) -> Iterable[Any]:
        wanted = {_KEYS: [unpacked(key) for key in keys]}
        if self._locking is not None:
            session.execute(self._locking, wanted).all()
        return session.scalars(self._loading, wanted).unique()

    def identity_of(self, row: object) -> RowKey:
        """Return the values of a row's primary key."""
        return tuple(getattr(row, attribute) for attribute in self.attributes)

    def is_taken(self, error: IntegrityError) -> bool:
        """Tell whether the database has refused a row because another has its primary key."""
        return driver_attribute(error, "constraint_name", "diag.constraint_name") in self._key_names

    def new_row(self, key: RowKey) -> Any:
        """Make a row from its key alone; columns with a plain default have it already.

        Raises:
            ConfigurationError: The class needs more.
        """
        try:
            row = self.row_class(**self._named(key))
        except TypeError as error:
            raise ConfigurationError(
                f"a {self._name} cannot be made from its key alone ({error}): define create(self, key, event), which "
                "returns the new row"
            ) from error
        # Those of SQLAlchemy come with the INSERT, and a handler could not count from them.
        for attribute, default in self._defaults.items():
            if getattr(row, attribute) is None:
                setattr(row, attribute, default)
        return row

    def give(self, row: object, key: RowKey) -> None:
        """Give a new row its key, unless it has it.

        Raises:
            ConfigurationError: It is no row of the class, or has another key.
        """
        if not isinstance(row, self.row_class):
            raise ConfigurationError(
                f"create(key, event) has returned a {type(row).__name__}: return a new {self._name}, or None for no row"
            )
        for attribute, value in self._named(key).items():
            present = getattr(row, attribute)
            if present is None:
                setattr(row, attribute, value)
            elif present != value:
                raise ConfigurationError(
                    f"create(key, event) has returned a {self._name} with the {attribute} {present!r} for the key {key!r}: "
                    "leave the key out, or give the row that key"
                )

    def _named(self, key: RowKey) -> Mapping[str, Any]:
        return dict(zip(self.attributes, key, strict=True))


def _canonical_int(text: str) -> int:
    number = int(text)
    if str(number) != text:
        raise ValueError(text)
    return number


def _canonical_uuid(text: str) -> UUID:
    uuid = UUID(text)
    if text.lower() not in (str(uuid), uuid.hex):
        raise ValueError(text)
    return uuid


# In one form only: "42" and "042" are two streams, and should not silently share a row.
_READERS: Final[Mapping[type[Any], Callable[[str], Any]]] = {int: _canonical_int, UUID: _canonical_uuid}


def _python_type(column: ColumnElement[Any]) -> type[Any] | None:
    """Return what the values of a column are, as far as a key can be converted to it."""
    try:
        kind: type[Any] = column.type.python_type
    except NotImplementedError:
        return None
    return kind if kind is str or kind in _READERS else None


def _plain_defaults(mapper: Mapper[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes whose columns have a value for a default, with that value."""
    for attribute in mapper.column_attrs:
        default: object = getattr(attribute.columns[0], "default", None)
        if isinstance(default, ScalarElementColumnDefault):
            yield attribute.key, default.arg


def _key_name(table: Any) -> str | None:
    """Return the name of a table's primary key, which PostgreSQL makes up where it is given none."""
    return str(table.primary_key.name or f"{table.name}_pkey") if isinstance(table, Table) else None


def _statements(mapper: Mapper[Any], attributes: Sequence[str]) -> tuple[Select[Any] | None, Select[Any]]:
    """Make the statement that locks rows, where there has to be one, and the one that loads them.

    A statement that has waited for a lock shows rows of tables that it did not lock as they were before. So one is enough
    only if it locks all that it loads.
    """
    columns: Sequence[Any] = [getattr(mapper.class_, attribute) for attribute in attributes]
    loading: Select[Any] = select(mapper.class_).where(_among(columns)).execution_options(populate_existing=True)
    loaded = {table for each in (mapper, *mapper.with_polymorphic_mappers) for table in each.tables}
    joins = any(relationship.lazy in {"joined", False} for relationship in mapper.relationships)
    if loaded == set(mapper.tables) and not joins:
        return None, loading.order_by(*columns).with_for_update(key_share=True)
    keys: Sequence[Any] = mapper.primary_key
    locking: Select[Any] = select(*keys).select_from(mapper.persist_selectable).where(_among(keys)).order_by(*keys)
    return locking.with_for_update(key_share=True), loading


def _among(columns: Sequence[Any]) -> ColumnElement[bool]:
    wanted: BindParameter[Any] = bindparam(_KEYS, expanding=True)
    condition: ColumnElement[bool] = (columns[0] if len(columns) == 1 else tuple_(*columns)).in_(wanted)
    return condition


def iter_given(keys: object) -> Iterator[object]:
    """Yield the keys that `key(event)` has returned: none, one, or several that are not a tuple."""
    if keys is None:
        return
    if isinstance(keys, Iterable) and not isinstance(keys, str | bytes | tuple):
        yield from keys
    else:
        yield keys


def unpacked(key: RowKey) -> Any:
    """Return a key as applications see it: a value, or a tuple for a primary key of several columns."""
    return key if len(key) != 1 else key[0]


def packed(key: Any) -> RowKey:
    """Return a key as it is here, from a value or a tuple."""
    return tuple(cast("Iterable[Any]", key)) if isinstance(key, tuple) else (key,)
