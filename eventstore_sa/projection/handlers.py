"""Which method of a class handles which event: by the `@handles` decorator, by its annotation, or by its name.

The table of a class is made once, with the class, and mistakes surface there. It finds attribute names; what handlers
are called with, and what becomes of their results, is up to the owner of the class. Errors about events and their
handlers are worded here too, for projectors and table projections alike.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar, cast

from eventstore_sa.errors import ConfigurationError, MissingProjectionHandlerError
from eventstore_sa.projection.annotations import TakenEvent, taken_event
from eventstore_sa.projection.naming import snake_case
from eventstore_sa.types import AnyStoredEvent, serialise_to_string

__all__ = ["HandlerTable", "handles", "missing_handler", "note_event", "note_events", "noting"]

Handler = TypeVar("Handler", bound=Callable[..., Any])

_MARK = "__eventstore_sa_handles__"
# Applications have tens of event names; only generated names could exceed this.
_REMEMBERED_NAMES = 1024


def handles(*event_names: str) -> Callable[[Handler], Handler]:
    """Make a method the handler of the events with exactly these names, whatever the method is called.

    The decorator takes precedence over names: no other method handles these events, whatever it is called, and the method
    handles no other events, not even those it is named after. A method that overrides it in a subclass handles the same
    events unless it is decorated itself; another method that a subclass decorates for one of the events takes that event
    over.

    Args:
        event_names: One or more names of events, compared exactly, case and punctuation included. Several decorators on
            one method add up.

    Raises:
        ConfigurationError: If there is no name, a name is not a string or is empty, or the decorated object is not a method.

    Examples:
        >>> from eventstore_sa.projection import Projector, handles
        >>> from eventstore_sa.types import StoredEvent, StreamIdentifier
        >>> class NameProjector(Projector[StreamIdentifier, str, None]):
        ...     def initial_state_factory(self) -> str:
        ...         return ""
        ...
        ...     def initial_metadata_factory(self) -> None:
        ...         return None
        ...
        ...     def id_factory(self, state: str, source: StreamIdentifier) -> str:
        ...         return source.stream
        ...
        ...     @handles("registered", "2023/renamed")
        ...     def take_name(self, state: str, event: StoredEvent) -> str:
        ...         return str(event.payload)
    """
    names = tuple(_checked_name(name) for name in event_names)
    if not names:
        raise ConfigurationError('@handles needs the names of the events: write @handles("order-placed")')

    def mark(handler: Handler) -> Handler:
        decorated: object = handler
        if isinstance(decorated, type) or not callable(getattr(decorated, "__func__", decorated)):
            kind = type(decorated).__name__
            raise ConfigurationError(f"@handles decorates {kind}: put it on a method (self, state, event)")
        setattr(handler, _MARK, tuple(dict.fromkeys(names + _marked_names(handler))))
        return handler

    return mark


class _Claim(NamedTuple):
    """The statement of a class that one of its attributes handles an event."""

    owner: type
    attribute: str


class HandlerTable:
    """The handlers of one class, found by event name.

    A handler is a method, static and class methods included, that can be called as `method(state, event)`, is not a
    property, nested class or generator, and is either

    - decorated with `@handles`: then it handles exactly those events, or
    - annotated with event types, see `annotations.py`: then it handles the events of these types, under all their names, or
    - public (no leading underscore): then it handles the events whose name in snake_case is its own name in snake_case. It
      may be defined in a class that derives from `framework` or in a plain mixin.

    What `framework` itself defines is never a handler. Events of these names can be handled with `@handles`, or by a method
    with an underscore appended: `apply_` handles "apply", as `import_` handles "import".

    Of two methods that claim an event the one in the subclass wins. A method that is overridden by something else, such as
    None, is no longer a handler. Methods that are added to the class or an instance afterwards are not in the table:
    `added_later` finds these by their name.

    Args:
        owner: The class.
        framework: The base class whose attributes are not handlers, and above which no handlers are looked for.
        argument: What handlers receive before the event, for messages.

    Raises:
        ConfigurationError: If two methods claim the same event and neither overrides the other, or something decorated with
            `@handles` cannot be a handler.
    """

    __slots__ = ("_by_event_name", "_by_snake_case", "_found", "_framework", "_known", "_possible", "payload_types")

    def __init__(self, owner: type, *, framework: type, argument: str = "state") -> None:
        by_event_name: dict[str, list[_Claim]] = {}
        by_snake_case: dict[str, list[_Claim]] = {}
        self.payload_types: dict[str, tuple[type, ...]] = {}
        """The handlers that take payloads instead of events, each with the classes of these."""
        for attribute in _attributes(owner, framework):
            marked = _marked_definition(owner, attribute, framework, argument)
            named = None if marked is not None else _named_definition(owner, attribute, framework)
            taken = TakenEvent((), None) if marked is None and named is None else taken_event(owner, attribute)
            if taken.payload_types is not None:
                self.payload_types[attribute] = taken.payload_types
            claimed = taken.names if marked is None else _marked_names(vars(marked)[attribute])
            for name in claimed:
                by_event_name.setdefault(name, []).append(_Claim(marked or named or owner, attribute))
            if named is not None and not claimed:
                by_snake_case.setdefault(snake_case(attribute), []).append(_Claim(named, attribute))
        self._by_event_name = {name: _winner(owner, name, claims) for name, claims in by_event_name.items()}
        self._by_snake_case = {name: _winner(owner, name, claims) for name, claims in by_snake_case.items()}
        self._found: dict[object, str | None] = {}
        self._possible: dict[str, str | None] = {}
        self._known = frozenset(_attributes(owner, framework))
        self._framework = framework

    @property
    def attributes(self) -> Collection[str]:
        """The names of all methods that handle events."""
        return {*self._by_event_name.values(), *self._by_snake_case.values()}

    def argument_for(self, attribute: str, event: AnyStoredEvent) -> Any:
        """Return what a handler is called with after its first argument: the event, or its payload.

        Raises:
            ConfigurationError: If the handler takes payloads of another class.
        """
        kinds = self.payload_types.get(attribute)
        payload: object = event.payload
        if kinds is None:
            return event
        if isinstance(payload, kinds):
            return payload
        raise ConfigurationError(
            f"the handler {attribute} takes {' or '.join(kind.__name__ for kind in kinds)}, but the payload of "
            f"{event.name!r} is of type {type(payload).__name__}: read the events from a store with types=EventTypes(...)"
        )

    def attribute_for(self, event_name: object) -> str | None:
        """Return the name of the method that handles events of this name; None if there is none.

        Args:
            event_name: A string, or an object that stands for one, such as an enum member.
        """
        try:
            return self._found[event_name]
        except (KeyError, TypeError):  # not met yet, or not hashable
            return self._find(event_name)

    def added_later(self, instance: object, event_name: object) -> str | None:
        """Return the name of a method that handles events of this name and was added after the class was made.

        Args:
            instance: An instance of the class, whose own attributes count too.
            event_name: As for `attribute_for`, which knows no handler for it.
        """
        attribute = self._possible_name(event_name)
        if attribute is None:
            return None
        own: object = vars(instance).get(attribute)
        if own is not None:
            return attribute if _takes_state_and_event(own) else None
        owner = type(instance)
        if attribute in self._known or not hasattr(owner, attribute) or not _is_defined(owner, attribute):
            return None
        return attribute if _is_method(owner, attribute) else None

    def _possible_name(self, event_name: object) -> str | None:
        """Return what a method for events of this name would be called; None if no method is looked for by that name."""
        text = event_name if type(event_name) is str else serialise_to_string(event_name)
        try:
            return self._possible[text]
        except KeyError:
            attribute: str | None = snake_case(text)
            if not attribute or attribute.startswith("_") or _is_defined(self._framework, attribute):
                attribute = None
            if len(self._possible) >= _REMEMBERED_NAMES:
                self._possible.clear()
            self._possible[text] = attribute
            return attribute

    def _find(self, event_name: object) -> str | None:
        text = event_name if type(event_name) is str else serialise_to_string(event_name)
        attribute = self._by_event_name.get(text) or self._by_snake_case.get(snake_case(text))
        if isinstance(event_name, str):
            if len(self._found) >= _REMEMBERED_NAMES:
                self._found.clear()
            self._found[event_name] = attribute
        return attribute


def note_event(error: Exception, projection: str, event: AnyStoredEvent) -> None:
    """Add a note to an error: at which event the projection was."""
    error.add_note(f"projector {projection!r} was at {_place(event)}")


def note_events(error: Exception, projection: str, events: Sequence[AnyStoredEvent]) -> None:
    """Add a note to an error: at which events the projection was."""
    if len(events) == 1:
        note_event(error, projection, events[0])
    else:
        first, last = _place(events[0]), _place(events[-1])
        error.add_note(f"projector {projection!r} was at {len(events)} events, from {first} to {last}")


class noting:  # noqa: N801 - used as a function
    """Add a note to an error raised in the block: at which events the projection was.

    A class rather than a `contextmanager`, which takes several times as long: some blocks are entered for each event.
    """

    __slots__ = ("_events", "_projection")

    def __init__(self, projection: str, events: Sequence[AnyStoredEvent]) -> None:
        self._projection = projection
        self._events = events

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            note_events(error, self._projection, self._events)


def missing_handler(
    projector: object, projection: str, event_name: str, argument: str
) -> MissingProjectionHandlerError:
    """Build the error for an event without a handler.

    Args:
        projector: What has no handler.
        projection: Its name.
        event_name: The name of the event.
        argument: What its handlers receive before the event: "state", "row" or "session".
    """
    method = snake_case(event_name)
    kind = type(projector)
    misfit = ""
    own = next(_definitions(kind, method), object).__module__.partition(".")[0] not in {"eventstore_sa", "builtins"}
    if own and not _is_method(kind, method):
        misfit = f" ({kind.__name__}.{method} cannot be called as {method}({argument}, event))"
    can_be_defined = method.isidentifier() and not keyword.iskeyword(method) and not hasattr(projector, method)
    remedy = f"define `{method}(self, {argument}, event)`" if can_be_defined else "define a method of any name"
    decorator = f"{', or decorate one' if can_be_defined else ' and decorate it'} with @handles({event_name!r})"
    return MissingProjectionHandlerError(
        f"projector {projection!r} has no handler for the event {event_name!r}{misfit}: in {kind.__name__}, "
        f"{remedy}{decorator}; or ignore events without a handler by setting missing_handler_behaviour = "
        "MissingHandlerBehaviour.IGNORE",
        projector=projection,
        event_name=event_name,
    )


def _place(event: AnyStoredEvent) -> str:
    stream = f"{event.category}/{event.stream}"
    return f"event {event.name!r} (id {event.id}) of stream {stream!r}, position {event.position}"


def _derives(derived: type, base: type) -> bool:
    # While an abstract class is being made, issubclass() would ask the cache of its parent and answer wrongly.
    return base in derived.__mro__


def _attributes(owner: type, framework: type) -> list[str]:
    """List what the classes below `framework`, mixins included, define: each name once, the latest definitions first."""
    bases = [base for base in owner.__mro__ if base not in framework.__mro__]
    return list(dict.fromkeys(attribute for base in bases for attribute in vars(base)))


def _definitions(owner: type, attribute: str) -> Iterator[type]:
    """Yield the classes that define the attribute, beginning with the definition that counts."""
    return (base for base in owner.__mro__ if attribute in vars(base))


def _is_defined(owner: type, attribute: str) -> bool:
    # hasattr() would find the metaclass's attributes too, among them likely names of events, such as `register`.
    return any(_definitions(owner, attribute))


def _marked_definition(owner: type, attribute: str, framework: type, argument: str) -> type | None:
    """Return the class whose `@handles` is in force for the attribute, or None when it is no handler by decoration."""
    definition = next((base for base in _definitions(owner, attribute) if _marked_names(vars(base)[attribute])), None)
    if definition is None:
        return None
    if _is_defined(framework, attribute):
        raise ConfigurationError(
            f"{owner.__name__}.{attribute} is decorated with @handles, but {attribute!r} is a name of "
            f"{framework.__name__}'s own: rename the method"
        )
    if _is_method(owner, attribute):
        return definition
    if _marked_names(inspect.getattr_static(owner, attribute)):
        result = ", and let it return the new state" if argument == "state" else ""
        raise ConfigurationError(
            f"{owner.__name__}.{attribute} is decorated with @handles, but cannot be called as method({argument}, event): "
            f"define it as {attribute}(self, {argument}, event){result}"
        )
    return None


def _named_definition(owner: type, attribute: str, framework: type) -> type | None:
    """Return the class that defines the attribute as a handler by its name; None if it is not a handler."""
    if attribute.startswith("_") or _is_defined(framework, attribute) or not _is_method(owner, attribute):
        return None
    return next(_definitions(owner, attribute))


def _is_method(owner: type, attribute: str) -> bool:
    """Tell whether instances can call the attribute as `method(state, event)`, to get a state or a coroutine."""
    value: object = inspect.getattr_static(owner, attribute)
    if isinstance(value, type) or not hasattr(type(value), "__get__"):
        return False
    function = getattr(owner, attribute, None)
    # What is static or belongs to the class is bound already; an ordinary method is yet to receive its instance.
    arguments = (None, None) if isinstance(value, staticmethod | classmethod) else (None, None, None)
    return _can_be_called(function, *arguments)


def _takes_state_and_event(value: object) -> bool:
    """Tell whether an attribute of an instance is a function of state and event, and not, say, a collaborator."""
    partials: Any = partial
    return (inspect.isroutine(value) or isinstance(value, partials)) and _can_be_called(value, None, None)


def _can_be_called(function: object, *arguments: None) -> bool:
    if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return False
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def _winner(owner: type, event_name: str, claims: list[_Claim]) -> str:
    """Return the attribute whose claim overrides all others."""
    for claim in claims:
        others = [other for other in claims if other is not claim]
        if all(claim.owner is not other.owner and _derives(claim.owner, other.owner) for other in others):
            return claim.attribute
    both = " and ".join(f"{claim.owner.__name__}.{claim.attribute}" for claim in claims)
    raise ConfigurationError(
        f"{both} both handle the event {event_name!r} in {owner.__name__}: remove one, or let {owner.__name__} decide by "
        f"a method decorated with @handles({event_name!r})"
    )


def _marked_names(value: object) -> tuple[str, ...]:
    # What was decorated may have been wrapped into a static method, class method or property afterwards.
    for holder in (value, *(getattr(value, attribute, None) for attribute in ("__func__", "fget", "func"))):
        names: object = getattr(holder, _MARK, None)
        if isinstance(names, tuple):
            return cast("tuple[str, ...]", names)
    return ()


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        kind = "an empty string" if name == "" else type(name).__name__
        raise ConfigurationError(f'@handles takes names of events, not {kind}: write @handles("order-placed")')
    return str.__str__(name)
