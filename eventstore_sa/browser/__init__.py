"""A browser for events: read-only web pages over a store, for people who operate an application or look for what happened.

`event_browser(store)` is an ASGI application for an `EventStore`, to be mounted in FastAPI, Starlette or any other, and a
WSGI application for a `SyncEventStore`. It needs the extra `browser`.
"""

try:
    import htpy as _htpy
except ImportError as _error:
    raise ImportError("the browser needs htpy: install it with the extra 'eventstore-sa[browser]'") from _error

from eventstore_sa.browser.application import EventBrowser, SyncEventBrowser, event_browser
from eventstore_sa.browser.redaction import Redact
from eventstore_sa.browser.requests import BrowserRequest
from eventstore_sa.browser.security import Authenticate, BasicAuth

__all__ = ["Authenticate", "BasicAuth", "BrowserRequest", "EventBrowser", "Redact", "SyncEventBrowser", "event_browser"]

del _htpy
