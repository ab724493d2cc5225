"""Clients that leave are noticed."""

import time

import pytest

from tests.functions.servers import Running, Start, wait_until


@pytest.mark.parametrize(("stream", "pipelined"), [(True, False), (False, False), (False, True)])
def test_a_client_that_leaves_ends_its_generation(
    start: Start, stream: bool, pipelined: bool
) -> None:
    server = start()
    wait_until(server.is_ready)
    before = server.steps
    connection = server.ask(stream)
    wait_until(lambda: server.steps > before + 5)
    assert connection.sock is not None
    if pipelined:
        connection.sock.sendall(b"GET / HTTP/1.1\r\n")
    connection.sock.close()
    connection.close()
    # It is noticed at the next token or tick; 1500 tokens would take half a minute.
    wait_until(lambda: stands_still(server), 5)
    assert server.steps < before + 400


def stands_still(server: Running) -> bool:
    before = server.steps
    time.sleep(0.3)  # many times the pause between two steps
    return server.steps == before
