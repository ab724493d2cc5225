"""A limit on how long a client may leave unread what it was sent."""

import asyncio

from ui.limits import WRITE_S


class WriteDeadline(asyncio.Protocol):
    """Ends a connection whose client reads nothing for `WRITE_S` seconds.

    A base of uvicorn's protocols, which set `loop` and `transport`.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _deadline: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Start the clock: the client has yet to read what was sent."""
        super().pause_writing()
        if self._deadline is None:
            self._deadline = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the clock."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().resume_writing()
