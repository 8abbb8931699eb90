"""Names that `logicblocks.event.store` has and this library has not: importing one says what takes its place.

Packages give what `replaced` returns as their `__getattr__`. Where everything moved is listed in docs/from-logicblocks.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["POSTGRES_EVENTS", "POSTGRES_PROJECTIONS", "replaced"]

POSTGRES_EVENTS: Final = "EventStore(engine), or SQLAlchemyEventStorageAdapter(engine) of eventstore_sa.store.adapters"
POSTGRES_PROJECTIONS: Final = (
    "ProjectionStore(engine), or SQLAlchemyProjectionStorageAdapter(engine) of eventstore_sa.projection.adapters"
)


def replaced(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module that lacks some names on purpose.

    Args:
        module: The name of the module.
        names: What takes the place of each name.
    """

    def find(name: str) -> Any:
        if name in names:
            raise ImportError(f"{module} has no {name}, use {names[name]}; see docs/from-logicblocks.md", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
