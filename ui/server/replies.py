"""What is answered before NiceGUI sees a request: each is an ASGI app."""

from ui.asgi import Message, Receive, Send, respond


async def healthy(scope: Message, receive: Receive, send: Send) -> None:
    """Answer a probe."""
    await respond(send, 200, b'{"status":"ok"}', b"application/json")


async def no_place(scope: Message, receive: Receive, send: Send) -> None:
    """Refuse a request when all places are taken."""
    sentence = b"Too many connections are open. Try again in a moment."
    headers = [(b"retry-after", b"5"), (b"connection", b"close")]
    await respond(send, 503, sentence, headers=headers)


async def unusable(scope: Message, receive: Receive, send: Send) -> None:
    """Refuse a request whose Host or path cannot be valid."""
    sentence = b"The Host or the path of this request is not valid."
    await respond(send, 400, sentence, headers=[(b"connection", b"close")])
