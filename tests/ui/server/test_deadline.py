"""A client that reads nothing is waited for once, and not for ever."""

import asyncio

import pytest

from ui.server import deadline
from ui.server.deadline import WriteDeadline


class Line(asyncio.Transport):
    """A connection that notes when it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def abort(self) -> None:
        self.ended.set()


def waiting() -> tuple[WriteDeadline, Line]:
    protocol, line = WriteDeadline(), Line()
    protocol.loop, protocol.transport = asyncio.get_running_loop(), line
    return protocol, line


async def test_a_client_that_reads_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "WRITE_S", 0.01)
    protocol, line = waiting()
    protocol.pause_writing()
    async with asyncio.timeout(5):
        await line.ended.wait()


async def test_a_client_that_reads_on_is_not() -> None:
    protocol, line = waiting()
    protocol.pause_writing()
    timer = protocol._deadline
    assert timer is not None
    protocol.pause_writing()
    assert protocol._deadline is timer, "the clock starts once"
    protocol.resume_writing()
    assert timer.cancelled()
    assert protocol._deadline is None
    assert not line.ended.is_set()
