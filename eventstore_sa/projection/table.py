"""Table projections: events applied to rows of the host's own mapped classes, or through a session.

A table projection is called inline, by the publishes of a store, or with batches of events. `row_batch.py` locks, loads and
writes the rows; `row_keys.py` finds them by their keys.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from inspect import getattr_static, iscoroutinefunction, isfunction
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast, final

from sqlalchemy.orm import Session, scoped_session

from eventstore_sa.contracts.inline_projections import PublishPlace
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.definition import check_categories
from eventstore_sa.projection.handlers import HandlerTable, missing_handler, noting
from eventstore_sa.projection.naming import NameOfClass
from eventstore_sa.projection.projector import MissingHandlerBehaviour
from eventstore_sa.projection.reading import batch_of
from eventstore_sa.projection.row_batch import Handling, RowBatch
from eventstore_sa.projection.row_keys import RowKeys, iter_given, packed
from eventstore_sa.publishing import own_copy
from eventstore_sa.types import AnyStoredEvent, StreamIdentifier, serialise_to_string

__all__ = ["TableProjection", "mapped_class_of", "project"]

Projected = TypeVar("Projected")

_TARGET: Final = "__eventstore_sa_target__"


class _Target(NamedTuple):
    """What handlers receive before the event: rows of a class, or a session."""

    kind: type[Any]
    sequence_number: str | None

    @property
    def is_session(self) -> bool:
        return issubclass(self.kind, Session)


class TableProjection:
    """The base class of table projections; derive from it to let type checkers know its methods.

    Attributes:
        name: Its name, which orders the projections of a store and appears in errors; by default the name of the class
            without "Projection", in kebab-case.
        categories: The categories whose events it takes, all of them; None, the default: the events that have a handler, of
            any category.
        missing_handler_behaviour: What to do about events of its `categories` without a handler; `RAISE` by default.
        needs_session: True: it cannot be inline in a store that keeps its events in memory.
    """

    name: str = cast("str", NameOfClass(lambda name: name.removesuffix("Projector").removesuffix("Projection")))
    missing_handler_behaviour: MissingHandlerBehaviour = MissingHandlerBehaviour.RAISE
    categories: Collection[str] | None = None
    needs_session: bool = True
    _handlers: ClassVar[HandlerTable]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_overrides(cls)
        cls._handlers = HandlerTable(cls, framework=TableProjection, argument="row")
        for attribute in cls._handlers.attributes:
            if iscoroutinefunction(getattr(cls, attribute)):
                raise ConfigurationError(
                    f"{cls.__name__}.{attribute} is a coroutine function, but rows are changed by ordinary functions, "
                    "with asyncio too: make it a `def`"
                )

    def key(self, event: AnyStoredEvent) -> object:
        """Return the primary keys of the rows that an event affects; by default the name of its stream.

        Override it for other keys. Text is converted for integer and UUID columns. For a primary key of several columns
        the default is the name of the stream split at each ":", which is how `RecordsEvents` joins it.

        Returns:
            One key: a value, or a tuple with a value for each column of the primary key. Or several: a list, or any other
            iterable except a tuple. Or None if the event affects no row.
        """
        return self._row_keys.of_stream(event.stream)

    def create(self, key: Any, event: AnyStoredEvent) -> object:
        """Return a new row, for an event that affects a row that does not exist; by default made from its key alone.

        Override it for rows that need more, or that not every event should create. The row need not have its key yet. It
        is added to the session after the last event of the batch, when it is complete.

        Args:
            key: The key: a value, or a tuple for a primary key of several columns.
            event: The event.

        Returns:
            The new row; or None to create no row, in which case the handler is not called.
        """
        return self._row_keys.new_row(packed(key))

    @final
    def takes(self, event: AnyStoredEvent) -> bool:
        """Tell whether it takes an event: one of its `categories`; or, without these, one that has a handler."""
        if self.categories is None:
            return self._handlers.attribute_for(event.name) is not None
        return event.category in self.categories

    @final
    def apply(self, session: Session | scoped_session[Any], events: Sequence[AnyStoredEvent]) -> None:
        """Apply events in the transaction of a session, which is flushed, and neither committed nor rolled back.

        All rows that the events affect are locked and loaded first, by one statement, so of two transactions that apply
        events to the same row the second waits for the first. Handlers are called in the order of the events. With
        asyncio: `await session.run_sync(projection.apply, events)`.

        An error of a handler propagates unchanged, with a note that names the projection, the event's name and id, its
        stream and its position. Roll back then: earlier events may already have changed rows.

        Args:
            session: A session on the database of the rows.
            events: Stored events of any streams; each counts once, in the order of their sequence numbers.

        Raises:
            MissingProjectionHandlerError: If an event of its categories has no handler and is not to be ignored.
            ConcurrencyError: If another transaction has just created one of the rows.
            ConfigurationError: If this is not a Session, the events are not a batch of stored events, a key does not fit the
                class, or `key`, `create` or a handler returned something else than documented.
        """
        given: object = session
        if not isinstance(given, Session | scoped_session):
            raise ConfigurationError(
                f"apply takes a Session; got {type(session).__name__}: with asyncio, call "
                "`await session.run_sync(projection.apply, events)`"
            )
        self._apply(session() if isinstance(session, scoped_session) else session, batch_of(events), None)

    @final
    def inline_id(self, stream: StreamIdentifier, names: Collection[str]) -> str | None:
        """Return None: it loads rows of the host's; see `InlineProjection`."""
        return None

    @final
    def apply_inline(self, place: PublishPlace, events: Sequence[AnyStoredEvent]) -> None:
        """Apply the new events of a publish; a store calls this, see its `with_projections`."""
        self._apply(place.session(), events, place)

    @final
    def check_inline(self) -> None:
        """Refuse to be inline without mapped rows; a store calls this, see its `with_projections`.

        Raises:
            ConfigurationError: If the class is not decorated with `@project`, or its rows are not mapped.
        """
        if not _target_of(self).is_session:
            _ = self._row_keys

    @cached_property
    def _row_keys(self) -> RowKeys:
        # Not created by the decorator: imperative mappings may come later.
        target = _target_of(self)
        keys = RowKeys(target.kind)
        if target.sequence_number is not None:
            keys.require(target.sequence_number)
        return keys

    def _apply(self, session: Session, events: Sequence[AnyStoredEvent], place: PublishPlace | None) -> None:
        target = _target_of(self)
        handlings = [found for event in events if (found := self._find(event, target)) is not None]
        if not handlings:
            return
        if target.is_session:
            self._apply_to_session(session, handlings)
        else:
            self._apply_to_rows(session, handlings, target.sequence_number, place)

    def _find(self, event: AnyStoredEvent, target: _Target) -> Handling | None:
        """Find the handler of an event, and the keys of its rows; None if the event does not affect this projection."""
        if not self.takes(event):
            return None
        with noting(self.name, [event]):
            attribute = self._handlers.attribute_for(event.name)
            if attribute is None:
                if self.missing_handler_behaviour == MissingHandlerBehaviour.IGNORE:
                    return None
                argument = "session" if target.is_session else "row"
                raise missing_handler(self, self.name, serialise_to_string(event.name), argument)
            given = () if target.is_session else iter_given(self.key(event))
            keys = list(dict.fromkeys(self._row_keys.of(key) for key in given))
        handler: Any = getattr(self, attribute)
        if attribute in self._handlers.payload_types:
            handler = partial(self._call_with_payload, attribute)
        return Handling(event, handler, keys)

    def _call_with_payload(self, attribute: str, target: Any, event: AnyStoredEvent) -> Any:
        return getattr(self, attribute)(target, self._handlers.argument_for(attribute, event))

    def _apply_to_session(self, session: Session, handlings: Sequence[Handling]) -> None:
        for handling in handlings:
            with noting(self.name, [handling.event]):
                handling.handler(session, handling.event)
        with noting(self.name, [handling.event for handling in handlings]):
            session.flush()

    def _apply_to_rows(
        self, session: Session, handlings: Sequence[Handling], sequence_number: str | None, place: PublishPlace | None
    ) -> None:
        wanted = dict.fromkeys(key for handling in handlings for key in handling.keys)
        if not wanted:
            return
        if place is not None and type(self).key is not TableProjection.key:
            # Several streams may feed a row, and rows that are not there yet cannot be locked.
            place.guard(self.name, [repr(key) for key in wanted])
        events = [handling.event for handling in handlings]
        with noting(self.name, events):
            rows = RowBatch(session, self._row_keys, wanted, sequence_number=sequence_number)
        for handling in handlings:
            with noting(self.name, [handling.event]):
                # A handler may make the payload part of its row, and change it with the next event.
                copies = [handling.event, *(own_copy(handling.event) for _ in handling.keys[1:])]
                for key, event in zip(handling.keys, copies, strict=False):
                    rows.apply(handling._replace(event=event), key, create=self.create, skip_applied=place is None)
        with noting(self.name, events):
            rows.flush()


def project(kind: type[Any], /, *, sequence_number: str | None = None) -> Callable[[type[Projected]], type[Projected]]:
    """Make a class a table projection: its methods handle events by changing rows of a mapped class.

    Handlers are found like those of a `Projector`: methods decorated with `@handles`, or named like the event. They receive
    a row and the event, change the row, and return nothing, or `DELETE` to delete the row. The row is the one that
    `key(event)` names, by default with the name of the event's stream as its key; `create(key, event)` makes it if it does
    not exist. With `@project(Session)` handlers receive the session instead of a row, and use it freely.

    The class may derive from `TableProjection`, which tells type checkers about `apply`, `key` and `create`. If it does
    not, the decorator returns a subclass of both.

    Args:
        kind: The mapped class, declarative or not; or `sqlalchemy.orm.Session`.
        sequence_number: The name of an integer attribute of the rows that stores the sequence number of the last event
            applied to a row. With it, `apply` skips events that have already been applied to a row, so a batch may be
            applied twice. A deleted row stores nothing. Publishes need no such column: their transaction applies each event
            exactly once.

    Returns:
        The decorator.

    Raises:
        ConfigurationError: If the argument or the decorated object is not a class, a handler is a coroutine function, or
            the class overrides an attribute that cannot be overridden.

    Examples:
        >>> from sqlalchemy import Text
        >>> from sqlalchemy.orm import DeclarativeBase, mapped_column
        >>> from eventstore_sa.projection import DELETE, RowDeletion, TableProjection, handles, project
        >>> from eventstore_sa.types import StoredEvent
        >>> class Base(DeclarativeBase):
        ...     pass
        >>> class OrderRow(Base):
        ...     __tablename__ = "order_rows"
        ...     id = mapped_column(Text, primary_key=True)
        ...     state = mapped_column(Text)
        >>> @project(OrderRow)
        ... class OrderProjection(TableProjection):
        ...     def order_placed(self, row: OrderRow, event: StoredEvent) -> None:
        ...         row.state = "placed"
        ...
        ...     @handles("order-cancelled", "order-archived")
        ...     def forget(self, row: OrderRow, event: StoredEvent) -> RowDeletion:
        ...         return DELETE
        >>> OrderProjection().name
        'order'
    """
    given: object = kind
    if not isinstance(given, type):
        raise ConfigurationError(
            f"@project needs a mapped class, or Session; got {given!r}: write @project(OrderRow) above the class"
        )
    if issubclass(kind, TableProjection):
        raise ConfigurationError(
            f"@project above {kind.__name__} does not say whose rows it changes: write @project(OrderRow), naming the "
            "mapped class, or @project(Session)"
        )
    target = _Target(kind, sequence_number)
    if target.is_session and sequence_number is not None:
        raise ConfigurationError("@project(Session) has no rows that could store a sequence_number: leave it out")

    def decorate(projected: type[Projected]) -> type[Projected]:
        decorated: object = projected
        if not isinstance(decorated, type):
            raise ConfigurationError(f"@project decorates a class; got {decorated!r}")
        projection = decorated if issubclass(decorated, TableProjection) else _derived(decorated)
        setattr(projection, _TARGET, target)
        return cast("type[Projected]", projection)

    return decorate


def mapped_class_of(projection: TableProjection) -> type[Any]:
    """Return the class whose rows a table projection changes, or Session.

    Raises:
        ConfigurationError: If its class is not decorated with `@project`.
    """
    return _target_of(projection).kind


# Not a method: handlers are called whatever events are called.
def _target_of(projection: TableProjection) -> _Target:
    target: _Target | None = getattr(projection, _TARGET, None)
    if target is None:
        raise ConfigurationError(
            f"{type(projection).__name__} does not say whose rows it changes: decorate it with @project(OrderRow), naming "
            "the mapped class, or with @project(Session)"
        )
    return target


def _derived(plain: type[Any]) -> type[TableProjection]:
    """Make a subclass of a plain class and of TableProjection, with the same name.

    Its methods are copied there, because handlers are found only in classes that derive from TableProjection.
    """
    namespace = {
        name: value
        for name, value in vars(plain).items()
        if not (name.startswith("__") and name.endswith("__")) and callable(getattr(plain, name, None))
    }
    for name in ("__module__", "__qualname__", "__doc__"):
        namespace[name] = getattr(plain, name)
    derived: type[TableProjection] = types.new_class(
        plain.__name__, (plain, TableProjection), exec_body=lambda body: body.update(namespace)
    )
    return derived


def _check_overrides(projection: type[TableProjection]) -> None:
    """Refuse overrides of TableProjection's attributes that cannot work; most are meant as handlers of such an event."""
    for attribute in ("apply", "apply_inline", "check_inline", "inline_id", "takes"):
        if getattr(projection, attribute) is not getattr(TableProjection, attribute):
            raise _override(projection, attribute, "overrides a method that must not be overridden")
    for attribute in ("name", "missing_handler_behaviour", "categories", "needs_session"):
        if isfunction(getattr_static(projection, attribute)):
            raise _override(projection, attribute, "is a method, but must be a value or a property")
    check_categories(projection)
    for attribute in ("key", "create"):
        if iscoroutinefunction(getattr(projection, attribute)):
            raise _override(projection, attribute, "is a coroutine function, but must be an ordinary one")


def _override(projection: type[TableProjection], attribute: str, fault: str) -> ConfigurationError:
    return ConfigurationError(
        f"{projection.__name__}.{attribute} {fault}; to handle events called {attribute!r}, name the method "
        f"`{attribute}_`, or decorate another one with @handles({attribute!r})"
    )
