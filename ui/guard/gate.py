"""Middleware in front of NiceGUI's socket: lets in what a page of this site sends, and no more."""

import asyncio
import logging
from collections.abc import Iterable
from urllib.parse import parse_qs

from nicegui import Client, core

from ui.asgi import AsgiApp, Message, Receive, Send, respond
from ui.guard.origin import is_own_origin
from ui.guard.packets import CLOSE, PacketError, check_packet, check_payload
from ui.guard.session import ENTRY, SocketEntry, entry_of, session_of, socket_id
from ui.limits import PACKET_BYTES, SOCKETS

MOUNT = "/_nicegui_ws"
PATH = f"{MOUNT}/socket.io"

log = logging.getLogger("pibloom.ui.socket")


class SocketGate:
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
            await _refuse_with(scope, send, status, sentence)
            return
        scope[ENTRY] = entry = entry_of(socket_id(scope)) or SocketEntry()
        if scope["type"] == "websocket":
            receive = CheckedFrames(entry, receive, send).receive
        elif scope["method"] == "POST":
            body = await _read(receive)
            try:
                if body is None:
                    raise PacketError("a payload that is too large")
                check_payload(body)
            except PacketError as error:
                log.info("A payload was refused: %s.", error)
                await _refuse_with(scope, send, 400, "This is not what a page of this chat sends.")
                return
            receive = _replaying(body, receive)
        await self._app(scope, receive, send)

    def _refuse(self, scope: Message) -> tuple[int, str] | None:
        if scope["path"].rstrip("/") != PATH:
            return 404, "There is nothing at this address."
        if scope["type"] == "http" and scope["method"] not in ("GET", "POST"):
            return 405, "Only GET and POST are possible here."
        if not is_own_origin(scope, self._origins):
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


class CheckedFrames:
    """The messages of a web socket, up to the first one that no page sends."""

    def __init__(self, entry: SocketEntry, receive: Receive, send: Send) -> None:
        self._entry, self._receive, self._send = entry, receive, send
        self._closed = False

    async def receive(self) -> Message:
        """Return the next message; one that no page sends ends the connection."""
        try:
            message = await asyncio.wait_for(self._receive(), self._entry.seconds_left)
            if message["type"] != "websocket.receive":
                return message
            text = message.get("text")
            if text is None:
                raise PacketError("a binary message")
            if self._entry.page and self._entry.page not in Client.instances:
                raise PacketError("its page is gone")
            if self._closed:
                raise PacketError("a packet after the last")
            check_packet(text)
            self._closed = text == CLOSE
            return message
        except TimeoutError:
            reason = "named no page"
        except PacketError as error:
            reason = str(error)
        log.info("A socket was closed: %s.", reason)
        await self._send({"type": "websocket.close", "code": 1008, "reason": reason})
        return {"type": "websocket.disconnect", "code": 1008}


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


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read already, then what comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def _refuse_with(scope: Message, send: Send, status: int, sentence: str) -> None:
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
    headers = [(b"retry-after", b"5")] if status == 503 else []
    await respond(send, status, sentence.encode(), headers=headers, kind=kind)
