"""The primary keys of a mapped class: made from the names of streams, and rows loaded by them.

Everything that depends on how a class is mapped is here; what is done with its rows is in `table.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias, cast
from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, Select, Table, Uuid, bindparam, inspect, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapper, Session

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.persistence.transactions.databases import driver_attribute

__all__ = ["RowKey", "RowKeys", "iter_given", "packed", "unpacked"]

RowKey: TypeAlias = tuple[Any, ...]
"""The values of a primary key, in the order of its columns."""

_KEYS: Final = "keys"
# Bound parameters of a statement are limited: to 32766 on SQLite, 32767 with asyncpg.
_MOST_PARAMETERS: Final = 20_000
_LARGEST_KEY: Final = 2**63


class RowKeys:
    """The primary key of a mapped class.

    Args:
        row_class: The class.

    Raises:
        ConfigurationError: If it is not mapped.
    """

    def __init__(self, row_class: type[Any]) -> None:
        mapper: Mapper[Any] | None = inspect(row_class, raiseerr=False)
        if not isinstance(mapper, Mapper):
            raise ConfigurationError(
                f"@project({row_class.__name__}) needs a mapped class, and {row_class.__name__} is not mapped: map it "
                "first, or name the class that is"
            )
        self.row_class: Final = row_class
        self._name: Final = row_class.__name__
        self._mapped: Final = frozenset(map(str, mapper.attrs.keys()))
        self._key_names: Final = [_key_name(table) for table in mapper.tables]
        self._columns: Final[Sequence[Any]] = mapper.primary_key
        self._kinds: Final = [_kind_of(column) for column in mapper.primary_key]
        self._defaults: Final = dict(_plain_defaults(mapper))
        self.attributes: Final = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._locking, self._loading = _statements(mapper, self.attributes)
        self._taken: Final = _taken_keys(mapper, self.attributes)

    def require(self, attribute: str) -> None:
        """Check that rows have a mapped attribute.

        Raises:
            ConfigurationError: If they have no attribute of this name.
        """
        if attribute not in self._mapped:
            raise ConfigurationError(
                f"{self._name} has no mapped attribute {attribute!r}, which @project({self._name}, sequence_number=...) "
                "names: map an integer column there"
            )

    def of_stream(self, stream: str) -> RowKey:
        """Return the key that the name of a stream stands for; the values of several columns are joined by ":".

        Raises:
            ConfigurationError: If the name does not fit the columns.
        """
        return self.of(stream if len(self._columns) == 1 else tuple(stream.split(":")))

    def of(self, given: object) -> RowKey:
        """Return the key that was given as a value, or as a tuple with one for each column.

        Raises:
            ConfigurationError: If it does not fit the columns.
        """
        values = packed(given)
        if len(values) != len(self._columns):
            raise ConfigurationError(
                f"the primary key of {self._name} has {len(self._columns)} columns ({', '.join(self.attributes)}), but "
                f"{given!r} gives {len(values)}: return a tuple with a value for each from key(event)"
            )
        return tuple(map(self._converted, values, self._kinds, self.attributes))

    def _converted(self, value: Any, kind: _KeyKind, attribute: str) -> Any:
        if not isinstance(value, str) or kind.read is None:
            if kind.fits(value):
                return value
        elif (key := _read(kind.read, value)) is not None:
            if str(key) == value:
                return key
            raise ConfigurationError(
                f"{value!r} is not the usual spelling of {kind.type.__name__} in {self._name}.{attribute}: streams named "
                f"in either way would share a row; write {str(key)!r}, or return {key!r} itself from key(event)"
            )
        raise ConfigurationError(
            f"{value!r} is not {kind.description}, which {self._name}.{attribute} holds: name streams after the keys of "
            "their rows, or return those keys from key(event)"
        )

    def check_free(self, session: Session, keys: Iterable[RowKey]) -> None:
        """Refuse to create rows whose primary keys are taken by rows that are not of the class.

        That is possible only where classes share a table by inheritance; otherwise no statement is executed.

        Raises:
            ConfigurationError: If one is taken.
        """
        if self._taken is None:
            return
        for some in self._in_parts(keys):
            taken = session.execute(self._taken, {_KEYS: some}).first()
            if taken is not None:
                raise ConfigurationError(
                    f"no {self._name} can be created with the primary key {unpacked(tuple(taken))!r}: it is taken by a row "
                    f"that is not of this class; return other keys from key(event), None for such events, or name the "
                    "class of those rows in @project"
                )

    def load(self, session: Session, keys: Iterable[RowKey]) -> dict[RowKey, Any]:
        """Lock and load the existing rows with these keys; no other transaction can change them until the commit.

        Objects that the session has already loaded are refreshed, because they may be older than the lock.

        Raises:
            ConfigurationError: If a key is stored in another form.
        """
        wanted = dict.fromkeys(keys)
        found: dict[RowKey, Any] = {}
        for some in self._in_parts(wanted):
            for row in self._load_some(session, some):
                found[self.identity_of(row)] = row
        unknown = next(iter(found.keys() - wanted.keys()), None)
        if unknown is not None:
            raise ConfigurationError(
                f"the database found the key {unknown!r} of {self._name} for a key in another form: return keys from "
                "key(event) exactly as they are stored"
            )
        return found

    def _in_parts(self, keys: Iterable[RowKey]) -> Iterator[list[Any]]:
        """Yield keys as statements take them, as many at a time as they can take."""
        values = [unpacked(key) for key in keys]
        size = _MOST_PARAMETERS // len(self._columns)
        return (values[start : start + size] for start in range(0, len(values), size))

    def _load_some(self, session: Session, keys: Sequence[Any]) -> Iterable[Any]:
        wanted = {_KEYS: keys}
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
            ConfigurationError: If the class needs more.
        """
        try:
            row = self.row_class(**self._named(key))
        except TypeError as error:
            raise ConfigurationError(
                f"{self._name} cannot be made from its key alone ({error}): define create(self, key, event), which "
                "returns the new row"
            ) from error
        # SQLAlchemy applies its defaults with the INSERT, too late for a handler that counts.
        for attribute, default in self._defaults.items():
            if getattr(row, attribute) is None:
                setattr(row, attribute, default)
        return row

    def give(self, row: object, key: RowKey) -> None:
        """Give a new row its key, unless it has it.

        Raises:
            ConfigurationError: If it is not a row of the class, or has another key.
        """
        if not isinstance(row, self.row_class):
            raise ConfigurationError(
                f"create(key, event) returned {type(row).__name__}: return a new {self._name}, or None for no row"
            )
        for attribute, value in self._named(key).items():
            present = getattr(row, attribute)
            if present is None:
                setattr(row, attribute, value)
            elif present != value:
                raise ConfigurationError(
                    f"create(key, event) returned {self._name} with the {attribute} {present!r} for the key {key!r}: "
                    "leave the key out, or set it to that key"
                )

    def _named(self, key: RowKey) -> Mapping[str, Any]:
        return dict(zip(self.attributes, key, strict=True))


class _KeyKind(NamedTuple):
    """What the values of a column of a primary key are.

    Attributes:
        type: Their type, as far as it is known.
        read: Reads a value from its usual spelling, and perhaps from others; None: the values are not text and have no
            single usual spelling.
    """

    type: type[Any]
    read: Callable[[str], Any] | None

    def fits(self, value: object) -> bool:
        """Tell whether a value that is not text can be stored, and reads back as an equal value."""
        if value is None:
            return False
        if self.type is int:
            return type(value) is not bool and isinstance(value, int) and abs(value) < _LARGEST_KEY
        if self.type in (Decimal, float):
            return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
        return isinstance(value, self.type) and not (self.type is date and isinstance(value, datetime))

    @property
    def description(self) -> str:
        """What a value should be, for a message."""
        return f"of type {self.type.__name__}" + (" with at most 64 bits" if self.type is int else "")


def _read(read: Callable[[str], Any], text: str) -> Any:
    """Return the value that a text spells; None if it spells none."""
    try:
        return read(text)
    except ValueError:
        return None


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) >= _LARGEST_KEY:
        raise ValueError(text)
    return number


def _uuid_text(text: str) -> str:
    return str(UUID(text))


def _kind_of(column: ColumnElement[Any]) -> _KeyKind:
    kind = column.type
    try:
        python_type: type[Any] = kind.python_type
    except NotImplementedError:
        python_type = object
    if isinstance(kind, Uuid):
        return _KeyKind(python_type, UUID if kind.as_uuid else _uuid_text)
    if python_type in (str, object):
        return _KeyKind(python_type, str.__str__)
    return _KeyKind(python_type, _integer if python_type is int else None)


def _taken_keys(mapper: Mapper[Any], attributes: Sequence[str]) -> Select[Any] | None:
    """Make the statement that finds primary keys in a table that the class shares with others, if it does.

    It leaves out those of the class itself: another transaction may have created one since rows were loaded, which passes.
    """
    if mapper.inherits is None or mapper.concrete:
        return None
    own: Sequence[Any] = [getattr(mapper.class_, attribute) for attribute in attributes]
    keys: Any = mapper.primary_key[0] if len(own) == 1 else tuple_(*mapper.primary_key)
    of_class = select(*own).where(_among(own)).correlate(None)
    return select(*mapper.primary_key).where(_among(mapper.primary_key), keys.not_in(of_class))


def _plain_defaults(mapper: Mapper[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes whose columns have a value for a default, with that value."""
    for attribute in mapper.column_attrs:
        default: Any = getattr(attribute.columns[0], "default", None)
        if default is not None and default.is_scalar:
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
    """Return a key from a value or a tuple."""
    return tuple(cast("Iterable[Any]", key)) if isinstance(key, tuple) else (key,)
