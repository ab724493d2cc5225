"""ASGI's types, and a whole response in one call."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

TEXT = b"text/plain; charset=utf-8"
HTML = b"text/html; charset=utf-8"


async def respond(
    send: Send,
    status: int,
    body: bytes,
    media_type: bytes = TEXT,
    headers: Iterable[tuple[bytes, bytes]] = (),
    kind: str = "http.response",
) -> None:
    """Send a response; `kind` is another one for a web socket that is refused."""
    fields = [
        (b"content-type", media_type),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": f"{kind}.start", "status": status, "headers": fields})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
