"""Connections: silent ones make way, and probes always find a place."""

import asyncio
import os
import socket
from contextlib import ExitStack

import httpx

from tests.ui.bare_browser import (
    Browser,
    Chat,
)
from tests.ui.server.conftest import DESCRIPTORS
from ui.limits import PROBE_CONNECTIONS
from ui.server.connections import ConnectionTable


def test_silent_connections_make_way_and_probes_are_answered(chat: Chat) -> None:
    """More of them than the process may have files open."""
    with ExitStack() as stack:
        for _ in range(DESCRIPTORS + 200):
            stack.enter_context(socket.create_connection(("127.0.0.1", chat.port), timeout=10))
        for _ in range(5):
            assert httpx.get(f"{chat.url}/healthz", timeout=10).json() == {"status": "ok"}
        Browser(chat).enter().close()
        open_files = len(os.listdir(f"/proc/{chat.process.pid}/fd"))
        assert open_files < DESCRIPTORS - 100
    assert httpx.get(f"{chat.url}/healthz", timeout=10).status_code == 200


class Line(asyncio.Transport):
    """A connection that notes whether it was ended."""

    ended = False

    def abort(self) -> None:
        self.ended = True


def test_the_longest_silent_make_way_and_probes_find_a_place_when_all_are_busy() -> None:
    table = ConnectionTable()
    table.limit = 4
    lines = [Line() for _ in range(4)]
    assert all(table.add(line) for line in lines)
    table.mark_busy(lines[0])
    new = Line()
    assert table.add(new)
    assert [line.ended for line in lines] == [False, True, False, False]
    for line in (*lines[2:], new):
        table.mark_busy(line)
    probes = [Line() for _ in range(PROBE_CONNECTIONS)]
    assert not any(table.add(probe) for probe in probes)
    assert not any(probe.ended for probe in probes)
    assert not table.add(Line())
    assert [probe.ended for probe in probes[:2]] == [True, False]
    table.mark_silent(new)
    assert table.add(Line())
    assert new.ended
    assert len(table.open) == 4 + PROBE_CONNECTIONS
