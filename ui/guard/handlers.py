"""The handlers of a page's messages: each acts on the visitor's own page only.

NiceGUI trusts whoever knows a page's id. Here a socket is bound to a page of its own session, and
a value must be one that the element can have.
"""

import logging
from typing import Any
from urllib.parse import parse_qs

from nicegui import Client, core, json
from nicegui.elements.mixins.value_element import ValueElement
from nicegui.nicegui import _on_handshake as handshake_of_nicegui
from pydantic import ValidationError
from socketio.exceptions import ConnectionRefusedError  # type: ignore[import-untyped]

from ui.asgi import Message
from ui.guard.packets import Handshake
from ui.guard.session import ENTRY, own_tab, session_of, session_of_page
from ui.guard.values import value_fits
from ui.limits import MESSAGE_CHARACTERS, SOCKETS_OF_PAGE

UNKNOWN_PAGE = "Implicit handshake failed"  # NiceGUI's script loads the page again for this text
FOREIGN_PAGE = "This page belongs to another session"  # static/script/socket.js waits for this text

log = logging.getLogger("pibloom.ui.socket")


def install() -> None:
    """Put the handlers below in place of NiceGUI's own."""
    for handler in (connect, handshake, event, javascript_response, ack, log_line):
        name = "log" if handler is log_line else handler.__name__
        core.sio.on(name, handler)


async def connect(sid: str, environ: Message, auth: object = None) -> None:
    """Let in a socket that names its page in its address."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if query.get("implicit_handshake") != "true":
        return  # a page that was loaded ahead; it says so later, with `handshake`
    # The browser writes null as a text, and old_tab_id is often null.
    given = {name: value for name, value in query.items() if value not in ("null", "undefined")}
    try:
        refusal = await _enter(sid, Handshake.model_validate(given))
    except ValidationError:
        refusal = UNKNOWN_PAGE
    if refusal is not None:
        raise ConnectionRefusedError(refusal)


async def handshake(sid: str, content: dict[str, Any]) -> bool:
    """Let in a socket that names its page in a message."""
    return await _enter(sid, Handshake.model_validate(content)) is None


async def _enter(sid: str, given: Handshake) -> str | None:
    """Bind a socket to its page; return why not, if it is not the visitor's own."""
    page = Client.instances.get(given.client_id)
    if page is None:
        return UNKNOWN_PAGE
    scope = core.sio.get_environ(sid)["asgi.scope"]
    session = session_of(scope)
    if session is None or session != session_of_page(page):
        log.info("A socket was refused: its page belongs to another session.")
        return FOREIGN_PAGE
    if len(list(core.sio.manager.get_participants("/", page.id))) >= SOCKETS_OF_PAGE:
        return UNKNOWN_PAGE
    old = own_tab(session, given.old_tab_id) if given.old_tab_id else None
    kept = {"tab_id": own_tab(session, given.tab_id), "old_tab_id": old}
    kept["document_id"] = page.id  # NiceGUI deletes a page when one of several documents is gone
    if not await handshake_of_nicegui(sid, given.model_dump() | kept):
        return UNKNOWN_PAGE
    scope[ENTRY].page = page.id
    return None


def _bound_page(sid: str, content: dict[str, Any]) -> Client | None:
    """Return the page that a message names, if its socket is bound to that page."""
    page = Client.instances.get(content["client_id"])
    if page is None or page.id not in core.sio.rooms(sid):
        return None
    return page


def event(sid: str, content: dict[str, Any]) -> None:
    """Hand an event to its element, if its value is one that the element can have."""
    page = _bound_page(sid, content)
    element = page.elements.get(content["id"]) if page else None
    listener = element._event_listeners.get(content["listener_id"]) if element else None
    if page is None or element is None or listener is None:
        return
    if listener.type.startswith("sub_pages_"):
        return  # the chat has none
    try:
        arguments = [None if a is None else json.loads(a) for a in content.get("args", [])]
    except ValueError:
        return  # a browser sends such a text only with half of a surrogate pair in it
    value = arguments[0] if len(arguments) == 1 else arguments
    if listener.type.startswith("update:") and isinstance(element, ValueElement):
        fits = value_fits(element, value)
    else:
        fits = not isinstance(value, str) or len(value) <= MESSAGE_CHARACTERS
    if fits:
        page.handle_event(content)


def javascript_response(sid: str, content: dict[str, Any]) -> None:
    """Pass on what a script of the page returned."""
    page = _bound_page(sid, content)
    if page is not None:
        page.handle_javascript_response(content)


def ack(sid: str, content: dict[str, Any]) -> None:
    """Forget messages that have arrived."""
    page = _bound_page(sid, content)
    if page is not None:
        page.outbox.prune_history(content["next_message_id"])


def log_line(sid: str, content: dict[str, Any]) -> None:
    """Drop what a page would like to log: it could hold anything."""
