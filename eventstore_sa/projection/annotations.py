"""Which events a handler takes by the annotation of its last parameter: event types themselves, or stored events of them.

`handlers.py` asks this when a class is made. An annotation that cannot be resolved then, or that names no event type, says
nothing: the handler is found by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import currentframe, getattr_static, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin, is_typeddict

from eventstore_sa.types import StoredEvent
from eventstore_sa.types.event_declaration import declared

__all__ = ["TakenEvent", "taken_event"]

_EVENT: Final = 2  # after `self` and the state, row or session; static and class methods are without `self`
_ABOVE_HERE: Final = "eventstore_sa.projection."


class TakenEvent(NamedTuple):
    """What an annotation says.

    Attributes:
        names: The names of the events that the handler takes; empty if it does not say.
        payload_types: The classes of their payloads, if it takes these instead of the events.
    """

    names: Sequence[str]
    payload_types: tuple[type, ...] | None


def taken_event(owner: type, attribute: str) -> TakenEvent:
    """Tell which events a method takes by its annotation: `event: StoredEvent[str, OrderPlaced]`, or `placed: OrderPlaced`.

    A union of several event types takes the events of all of them.
    """
    annotation = _annotation(owner, attribute)
    members = [member for member in _members(annotation) if member is not NoneType]
    payloads = [kind for kind in members if declared(kind) is not None]
    if members and len(payloads) == len(members):
        kinds = tuple(dict if is_typeddict(kind) else kind for kind in payloads)
        return TakenEvent(_names(payloads), kinds)
    if any(get_origin(member) is not StoredEvent for member in members):
        return TakenEvent((), None)
    inner = [
        kind for member in members for kind in _members(get_args(member)[1] if len(get_args(member)) > 1 else None)
    ]
    if inner and all(declared(kind) is not None for kind in inner):
        return TakenEvent(_names(inner), None)
    return TakenEvent((), None)


def _names(kinds: Sequence[Any]) -> Sequence[str]:
    found = (declaration for kind in kinds if (declaration := declared(kind)) is not None)
    return [name for declaration in found for name in declaration.names]


def _members(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Union or origin is UnionType:
        for member in get_args(annotation):
            yield from _members(member)
    elif origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif annotation is not None:
        yield annotation


def _annotation(owner: type, attribute: str) -> Any:
    function: Any = getattr(owner, attribute)
    is_bound = isinstance(getattr_static(owner, attribute), staticmethod | classmethod)
    try:
        parameter = [*signature(function).parameters.values()][_EVENT - is_bound]
    except (TypeError, ValueError, IndexError):
        return None
    annotation: Any = parameter.annotation
    if not isinstance(annotation, str):
        return None if annotation is parameter.empty else annotation
    unwrapped: Any = function
    while hasattr(unwrapped, "__wrapped__"):
        unwrapped = unwrapped.__wrapped__
    known: dict[str, Any] = getattr(unwrapped, "__globals__", {})
    nothing: Mapping[str, Any] = {}
    for local in (nothing, _locals_of_class_statement()):
        try:
            # As get_type_hints() does it; but that would also resolve what is inside of aliases, in the wrong module.
            return eval(annotation, known, {**local, **vars(owner)})  # noqa: S307 - code of the application
        except Exception:  # noqa: BLE001, S112 - whatever an annotation does that is no type
            continue
    return None


def _locals_of_class_statement() -> Mapping[str, Any]:
    """Return the local names of the function in which the class is defined."""
    frame = currentframe()
    while frame is not None:
        module = f"{frame.f_globals.get('__name__')}"
        if module != "abc" and not module.startswith(_ABOVE_HERE):
            break
        frame = frame.f_back
    return {} if frame is None else frame.f_locals
