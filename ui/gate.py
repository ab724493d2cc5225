"""What may come in by a page's socket: from this site, in a few shapes, for the visitor's own page.

NiceGUI trusts whoever knows a page's id, from any origin. Here each socket is bound to the session
in the visitor's signed cookie, each packet must have one of the few shapes that a page sends, and a
tab's id counts within its session only. What has no such shape ends its connection, without a
word in the log: nothing of what a client sends is written there.
"""

import asyncio
import hashlib
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from nicegui import Client, core, json, ui
from nicegui.elements.mixins.openable_element import OpenableElement
from nicegui.elements.mixins.value_element import ValueElement
from nicegui.nicegui import _on_handshake as handshake_of_nicegui
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from socketio.exceptions import ConnectionRefusedError  # type: ignore[import-untyped]

from ui.limits import (
    MESSAGE_CHARACTERS,
    PACKET_BYTES,
    SOCKET_GRACE_S,
    SOCKETS,
    SOCKETS_OF_PAGE,
)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

MOUNT = "/_nicegui_ws"
PATH = f"{MOUNT}/socket.io"
ENTRY = "pibloom.entry"  # in a socket's scope: its Entry
UNKNOWN_PAGE = "Implicit handshake failed"  # NiceGUI's page loads anew when it reads this
FOREIGN_PAGE = "This page belongs to another session"  # chat.js reads this
MAX_POLL_PACKETS = 16  # as engine.io has it
MAX_DIGITS = 32

log = logging.getLogger("pibloom.ui.socket")

Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Refused(Exception):
    """A packet that no page sends; the message is a constant text."""


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)

    client_id: Id


class Handshake(_Shape):
    """A page's first word: which page it is, and in which tab."""

    tab_id: Id
    document_id: Id
    old_tab_id: Id | None = None
    next_message_id: int | Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")] | None = None


class Event(_Shape):
    """Something that happened to an element."""

    id: int
    listener_id: Id
    args: list[str | None] = []


class Answer(_Shape):
    """What a script returned that the server had sent."""

    request_id: Id


class Ack(_Shape):
    """Which messages have arrived."""

    next_message_id: int


class Log(_Shape):
    """A line for the log."""

    level: Literal["debug", "info", "warning", "error"]
    message: str


SHAPES: dict[str, type[_Shape]] = {
    "handshake": Handshake,
    "event": Event,
    "javascript_response": Answer,
    "ack": Ack,
    "log": Log,
}
CLOSE = "1"
# Close, probe, pong and upgrade of engine.io, and connect and disconnect of socket.io.
PLAIN_PACKETS = frozenset({CLOSE, "2probe", "3", "5", "40", "41"})
EVENT_PACKET = re.compile(r"42[0-9]{0,15}(?=\[)")


def check_packet(packet: str) -> None:
    """Raise `Refused` unless this is a packet that a page sends."""
    if packet in PLAIN_PACKETS:
        return
    start = EVENT_PACKET.match(packet)
    if start is None:
        raise Refused("not a packet of a page")
    try:
        match json.loads(packet[start.end() :]):
            case [str(name), dict(content)] if name in SHAPES:
                SHAPES[name].model_validate(content)
            case _:
                raise Refused("not an event of a page")
    except (ValidationError, ValueError, RecursionError):
        raise Refused("an event with other contents than a page's") from None


def check_payload(body: bytes) -> None:
    """Raise `Refused` unless this is the body of a page's long poll: up to 16 packets."""
    try:
        packets = body.decode().split("\x1e")
    except UnicodeDecodeError:
        raise Refused("a payload that is not UTF-8") from None
    if len(packets) > MAX_POLL_PACKETS:
        raise Refused("too many packets in a payload")
    if CLOSE in packets[:-1]:
        raise Refused("a packet after the last")
    for packet in packets:
        check_packet(packet)


class Entry:
    """One engine.io connection, until it has named its page."""

    def __init__(self) -> None:
        self.page: str | None = None
        self.until = time.monotonic() + SOCKET_GRACE_S

    @property
    def patience(self) -> float | None:
        """Seconds until it must have named its page; None when there is no such limit."""
        return None if self.page else max(0.0, self.until - time.monotonic())


class Frames:
    """The messages of a web socket, up to the first one that no page sends."""

    def __init__(self, entry: Entry, receive: Receive, send: Send) -> None:
        self._entry, self._receive, self._send = entry, receive, send
        self._closed = False

    async def receive(self) -> Message:
        """Return the next message; one that is refused ends the connection."""
        try:
            message = await asyncio.wait_for(self._receive(), self._entry.patience)
            if message["type"] != "websocket.receive":
                return message
            text = message.get("text")
            if text is None:
                raise Refused("a binary message")
            if self._entry.page and self._entry.page not in Client.instances:
                raise Refused("its page is gone")
            if self._closed:
                raise Refused("a packet after the last")
            check_packet(text)
            self._closed = text == CLOSE
            return message
        except TimeoutError:
            reason = "named no page"
        except Refused as refused:
            reason = str(refused)
        log.info("A socket was closed: %s.", reason)
        await self._send({"type": "websocket.close", "code": 1008, "reason": reason})
        return {"type": "websocket.disconnect", "code": 1008}


class Gate:
    """Middleware before NiceGUI's socket; must stand within the session's middleware."""

    def __init__(self, app: AsgiApp, origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection or request."""
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or not path.startswith(MOUNT):
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope)
        if refusal is not None:
            status, sentence = refusal
            log.info("A socket was refused: %s", sentence)
            await _answer(scope, send, status, sentence)
            return
        scope[ENTRY] = entry = _entry_of(scope) or Entry()
        if scope["type"] == "websocket":
            receive = Frames(entry, receive, send).receive
        elif scope["method"] == "POST":
            body = await _read(receive)
            try:
                if body is None:
                    raise Refused("a payload that is too large")
                check_payload(body)
            except Refused as refused:
                log.info("A payload was refused: %s.", refused)
                await _answer(scope, send, 400, "This is not what a page of this chat sends.")
                return
            receive = _once(body, receive)
        await self._app(scope, receive, send)

    def _refuse(self, scope: Message) -> tuple[int, str] | None:
        if scope["path"].rstrip("/") != PATH:
            return 404, "There is nothing at this address."
        if scope["type"] == "http" and scope["method"] not in ("GET", "POST"):
            return 405, "Only GET and POST are possible here."
        if not self._from_here(scope):
            return 403, "Pages of other sites may not open this chat's socket."
        try:
            query = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=32)
        except ValueError:
            query = {}
        transport = "websocket" if scope["type"] == "websocket" else "polling"
        if query.get("EIO") != ["4"] or query.get("transport") != [transport]:
            return 400, "Only version 4 of engine.io is spoken here."
        if "j" in query:
            return 400, "JSONP is not possible here."
        if "sid" in query:
            known = core.sio.environ.get(query["sid"][0])
            if known is None or session_of(known["asgi.scope"]) != session_of(scope):
                return 400, "This socket is not open."
        elif scope["type"] == "http" and scope["method"] == "POST":
            return 400, "This socket is not open."
        elif len(core.sio.eio.sockets) >= SOCKETS:
            return 503, "Too many pages are open. Try again in a moment."
        return None

    def _from_here(self, scope: Message) -> bool:
        """Tell whether the page that asks, as far as the browser says, is one of this site."""
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name in headers and name in (b"origin", b"host"):
                return False
            headers[name] = value.decode("latin-1")
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins:
            return True
        hosts = [headers.get(b"host", ""), headers.get(b"x-forwarded-host", "").split(",")[0]]
        return any(same_host(origin, host.strip()) for host in hosts)


def same_host(origin: str, host: str) -> bool:
    """Tell whether an Origin names this Host; a proxy may have taken off the TLS in between."""
    try:
        site = urlsplit(origin)
        here = urlsplit(f"//{host}")
        default = {"http": 80, "https": 443}[site.scheme]
        return (
            bool(site.hostname)
            and "@" not in origin
            and site.hostname == here.hostname
            and (site.port or default) == (here.port or default)
            and origin.lower() == f"{site.scheme}://{site.netloc}".lower()
        )
    except (KeyError, ValueError):
        return False


def session_of(scope: Message) -> str | None:
    """Return the visitor's session, as their signed cookie names it."""
    found = scope.get("session", {}).get("id")
    return found if isinstance(found, str) else None


def session_of_page(page: Client) -> str | None:
    """Return the session of the visitor who asked for a page."""
    return session_of(page.request.scope)


def own_tab(session: str, tab: str) -> str:
    """Return the name under which a visitor's tab is kept; another visitor's is another one."""
    return hashlib.sha256(f"{session}\n{tab}".encode()).hexdigest()


def install() -> None:
    """Put the handlers below in the place of NiceGUI's own."""
    for handler in (connect, handshake, event, javascript_response, ack, log_line):
        name = "log" if handler is log_line else handler.__name__
        core.sio.on(name, handler)


async def connect(sid: str, environ: Message, auth: object = None) -> None:
    """Let a socket in that names its page in its address."""
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
    """Let a socket in that names its page in a message."""
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


def _own_page(sid: str, content: dict[str, Any]) -> Client | None:
    """Return the page that an event names, if it is the one that its socket is bound to."""
    page = Client.instances.get(content["client_id"])
    if page is None or page.id not in core.sio.rooms(sid):
        return None
    return page


def event(sid: str, content: dict[str, Any]) -> None:
    """Hand an event to its element, if its value is one that the element can have."""
    page = _own_page(sid, content)
    element = page.elements.get(content["id"]) if page else None
    listener = element._event_listeners.get(content["listener_id"]) if element else None
    if page is None or element is None or listener is None:
        return
    if listener.type.startswith("sub_pages_"):
        return  # the chat has none
    try:
        arguments = [None if a is None else json.loads(a) for a in content.get("args", [])]
    except ValueError:
        return  # half of a pair of surrogates, if it is from a browser
    value = arguments[0] if len(arguments) == 1 else arguments
    if listener.type.startswith("update:") and isinstance(element, ValueElement):
        fits = value_fits(element, value)
    else:
        fits = not isinstance(value, str) or len(value) <= MESSAGE_CHARACTERS
    if fits:
        page.handle_event(content)


def value_fits(element: ValueElement[Any], value: object) -> bool:
    """Tell whether an element can have this value."""
    if isinstance(element, OpenableElement):
        return isinstance(value, bool)
    if isinstance(element, ui.number | ui.slider):
        return value is None or _is_number(value)
    if isinstance(element, ui.input):
        return value is None or (isinstance(value, str) and len(value) <= MESSAGE_CHARACTERS)
    return False


def _is_number(value: object) -> bool:
    """Tell whether this is a finite number, or the text of one, as a field has it."""
    if isinstance(value, str) and len(value) <= MAX_DIGITS:
        try:
            return not value or math.isfinite(float(value))
        except ValueError:
            return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def javascript_response(sid: str, content: dict[str, Any]) -> None:
    """Take in what a script of the page returned."""
    page = _own_page(sid, content)
    if page is not None:
        page.handle_javascript_response(content)


def ack(sid: str, content: dict[str, Any]) -> None:
    """Forget messages that have arrived."""
    page = _own_page(sid, content)
    if page is not None:
        page.outbox.prune_history(content["next_message_id"])


def log_line(sid: str, content: dict[str, Any]) -> None:
    """Drop what a page would write into the log: it could hold anything."""


def _entry_of(scope: Message) -> Entry | None:
    sid = parse_qs(scope["query_string"].decode("ascii", "replace")).get("sid")
    known = core.sio.environ.get(sid[0]) if sid else None
    found = known["asgi.scope"].get(ENTRY) if known else None
    return found if isinstance(found, Entry) else None


async def _read(receive: Receive) -> bytes | None:
    """Return a request's body, or None if it is too large or did not come."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > PACKET_BYTES:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _once(body: bytes, receive: Receive) -> Receive:
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def _answer(scope: Message, send: Send, status: int, sentence: str) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
