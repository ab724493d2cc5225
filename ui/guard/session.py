"""Whose a socket, a page and a tab are: the session in the visitor's signed cookie decides."""

import hashlib
import time
from urllib.parse import parse_qs

from nicegui import Client, core

from ui.asgi import Message
from ui.limits import SOCKET_GRACE_S

ENTRY = "pibloom.entry"  # in a socket's scope: its SocketEntry


def session_of(scope: Message) -> str | None:
    """Return the id of the visitor's session, from their signed cookie."""
    found = scope.get("session", {}).get("id")
    return found if isinstance(found, str) else None


def session_of_page(page: Client) -> str | None:
    """Return the session of the visitor who asked for a page."""
    return session_of(page.request.scope)


def own_tab(session: str, tab: str) -> str:
    """Return the name under which a visitor's tab is kept; no other visitor can have it."""
    return hashlib.sha256(f"{session}\n{tab}".encode()).hexdigest()


class SocketEntry:
    """One engine.io connection, until it has named its page."""

    def __init__(self) -> None:
        self.page: str | None = None
        self._deadline = time.monotonic() + SOCKET_GRACE_S

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it must have named its page; None once it has."""
        return None if self.page else max(0.0, self._deadline - time.monotonic())


def entry_of(sid: str | None) -> SocketEntry | None:
    """Return the entry of an open engine.io connection."""
    environ = core.sio.environ.get(sid) if sid else None
    found = environ["asgi.scope"].get(ENTRY) if environ else None
    return found if isinstance(found, SocketEntry) else None


def socket_id(scope: Message) -> str | None:
    """Return the id of the engine.io connection that a request's address names."""
    found = parse_qs(scope["query_string"].decode("ascii", "replace")).get("sid")
    return found[0] if found else None
