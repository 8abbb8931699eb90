"""What all pages share: the store, what was registered for it, and how work is run with asyncio or without.

A page is a generator of steps (`steps.py`): it yields what reads, and returns an answer. `Site.run` makes a step of a
synchronous read; with asyncio it returns an awaitable, which the driver awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeAlias

from eventstore_sa.browser.reads import Reads
from eventstore_sa.browser.redaction import Redact, Redaction
from eventstore_sa.browser.requests import Answer, BrowserRequest
from eventstore_sa.errors import ConfigurationError
from eventstore_sa.projection import Projector
from eventstore_sa.steps import Step, Steps
from eventstore_sa.store import EventStore, SyncEventStore
from eventstore_sa.subscriptions import Subscription, SyncSubscription
from eventstore_sa.types import AnyStoredEvent, EventTypes

__all__ = ["Page", "Site"]

AnyProjector: TypeAlias = Projector[Any, Any, Any]


class Site:
    """One browser over one store.

    Args:
        store: The store, with asyncio or without.
        projectors: Projectors whose states can be looked at.
        subscriptions: Subscriptions to be listed even if they have never run.
        redact: What is hidden.
        title: What the pages are called.

    Raises:
        ConfigurationError: If one of these cannot be used.
    """

    page_size: int = 50
    search_seconds: float = 1.0
    poll_seconds: float = 1.0

    def __init__(
        self,
        store: EventStore[Any] | SyncEventStore[Any],
        *,
        projectors: Sequence[AnyProjector],
        subscriptions: Sequence[Subscription | SyncSubscription],
        redact: Redact | None,
        title: str,
    ) -> None:
        if store.in_transaction:
            raise ConfigurationError(
                "a browser reads in transactions of its own: give it a store on an engine, not one within a session"
            )
        self.store: Final[Any] = store
        self.is_async: Final = isinstance(store, EventStore)
        adapter: Any = store.adapter
        if self.is_async and not hasattr(adapter, "sync_adapter"):
            raise ConfigurationError(
                f"a browser cannot read {type(adapter).__name__}, which has no synchronous adapter within: derive it from "
                "AwaitableEventStorageAdapter"
            )
        self._runner: Final[Any] = adapter.runner if self.is_async else None
        self.reads: Final = Reads(adapter.sync_adapter if self.is_async else adapter)
        self.types: Final[EventTypes[Any] | None] = store.types
        self.projectors: Final = {each.name: each for each in _checked(projectors, Projector, "projectors")}
        kinds = Subscription if self.is_async else SyncSubscription
        self.subscriptions: Final = {each.name: each for each in _checked(subscriptions, kinds, "subscriptions")}
        self.redaction: Final = Redaction(redact)
        self.title: Final = title

    def run(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Step:
        """Return the step that calls a synchronous function, which may use the store's synchronous adapter."""
        if self._runner is None:
            return partial(work, *args, **kwargs)
        return partial(self._runner.run, work, *args, **kwargs)

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    def as_read(self, event: AnyStoredEvent) -> AnyStoredEvent | None:
        """Return an event, whose payload is JSON, as the store's event types read it; None if they skip it."""
        return event if self.types is None else self.types.read(event)


Page: TypeAlias = Callable[[Site, BrowserRequest], Steps[Answer]]
"""A page: steps that read, and return an answer."""


def _checked(given: Sequence[Any], kind: type[Any], what: str) -> Sequence[Any]:
    for each in given:
        if not isinstance(each, kind):
            found = f"the class {each.__name__}" if isinstance(each, type) else type(each).__name__
            raise ConfigurationError(f"{what} of a browser are {kind.__name__}s; got {found}")
    names = [each.name for each in given]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigurationError(f"two {what} are called {twice!r}: give the browser one of them")
    return given
