"""Who may see the browser, and what browsers may do with its pages.

Payloads are written by strangers. So pages run no script and load nothing but their own files, whatever is in a payload;
escaping comes first, and these headers are there in case it fails.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, TypeAlias

from eventstore_sa.browser.requests import BrowserRequest
from eventstore_sa.errors import ConfigurationError

__all__ = ["HEADERS", "Authenticate", "BasicAuth", "host_of", "is_loopback"]

Authenticate: TypeAlias = Callable[[BrowserRequest], bool | Awaitable[bool]]
"""Tells whether a request may see the browser; with a `SyncEventStore`, not a coroutine function."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
"""Sent with every answer, unless the answer has its own."""

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class BasicAuth:
    """Lets in who knows a name and its password, by HTTP Basic: over TLS only, or on the own machine.

    Args:
        users: Passwords by name.

    Raises:
        ConfigurationError: If there are none, or one is empty.
    """

    challenge: str = 'Basic realm="events", charset="UTF-8"'

    def __init__(self, users: Mapping[str, str]) -> None:
        if not users or not all(name and ":" not in name and password for name, password in users.items()):
            raise ConfigurationError("BasicAuth needs a name without a colon, and a password that is not empty")
        self._known = [f"{name}:{password}".encode() for name, password in users.items()]

    def __call__(self, request: BrowserRequest) -> bool:
        """Tell whether the request has a name with its password."""
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(credentials.strip(), validate=True)
        except ValueError:
            return False
        # All of them, so that the time it takes tells nothing.
        matches = [hmac.compare_digest(given, known) for known in self._known]
        return any(matches)


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can only be reached from this machine."""
    return host in _LOOPBACK or host.startswith("127.")


def host_of(request: BrowserRequest, allowed: Collection[str] | None) -> bool:
    """Return whether the request names a host that is allowed, with or without a port.

    A page elsewhere may let its own name point to this machine; then that name is here.
    """
    if allowed is None:
        return True
    given = request.headers.get("host", "").lower()
    name = given if given.endswith("]") else given.rpartition(":")[0] or given
    return name.strip("[]") in allowed
