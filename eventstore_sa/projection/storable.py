"""Whether projections can be stored for what was given as a projector; said before anything is read or written."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection.definition import ProjectorDefinition
from eventstore_sa.types import is_json_value

__all__ = ["check_storable"]

AnyDefinition: TypeAlias = ProjectorDefinition[Any, Any, Any]


def check_storable(given: object) -> None:
    """Refuse what is not a projector, and projectors whose handlers would get back another kind of state than they made.

    Raises:
        ConfigurationError: It is a class, or not a projector; or states are not JSON, and `state_type` does not say what
            they are (likewise metadata).
    """
    if isinstance(given, type):
        raise ConfigurationError(f"{given.__name__} is a class: give an instance of it, {given.__name__}()")
    kind: Any = ProjectorDefinition
    if not isinstance(given, kind):
        raise ConfigurationError(
            f"a {type(given).__name__} is no Projector, so the projection store has nothing of it; rows of a table "
            "projection are made from events by its `apply`"
        )
    projector = cast("AnyDefinition", given)
    if projector.state_type is None:
        _check_json(projector, "state", projector.initial_state_factory())
    if projector.metadata_type is None:
        _check_json(projector, "metadata", projector.initial_metadata_factory())


def _check_json(projector: AnyDefinition, what: str, initial: object) -> None:
    if not is_json_value(initial):
        kind = type(initial).__name__
        raise ConfigurationError(
            f"projector {projector.name!r} begins with a {kind} that is not JSON as it stands, so that handlers would get "
            f"something else once it was stored: say what to make of it by {what}_type = ... in {type(projector).__name__}"
        )
