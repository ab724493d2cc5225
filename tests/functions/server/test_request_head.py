"""What is known of a request's head before a thread reads it."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from functions.server import request_head

Pair = tuple[Any, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A new connection as gunicorn holds it, and its client."""
    ours, theirs = socket.socketpair()
    yield SimpleNamespace(sock=ours, initialized=False), theirs
    ours.close()
    theirs.close()


def test_nothing_bytes_and_the_end_are_told_apart(pair: Pair) -> None:
    conn, client = pair
    assert request_head.peek(conn) is None
    client.sendall(b"GET")
    assert request_head.peek(conn) == request_head.peek(conn) == b"GET"
    conn.sock.recv(3)
    client.close()
    assert request_head.peek(conn) == b""


@pytest.mark.parametrize(
    ("sent", "probe", "torn"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", True, False),
        (b"HEAD /readyz?x HTTP/1.1\r\nHost: a\r\n\r\n", True, False),
        (b"GET /healthz/ HTTP/1.0\r\n\r\n", True, False),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", False, True),
        (b"GET /healthz HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", False, False),
        (b"GET /healthz HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\n\r\n", False, False),
        (b"GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", False, False),
        (b"POST /healthz HTTP/1.1\r\n\r\n", False, False),
        (b"GET /healthzzz HTTP/1.1\r\n\r\n", False, False),
        (b"GET / HTTP/1.1\nHost: a\n\n", False, False),
        (b"", False, False),
    ],
)
def test_probes_and_torn_heads_are_recognized(
    pair: Pair, sent: bytes, probe: bool, torn: bool
) -> None:
    conn, client = pair
    client.sendall(sent)
    assert request_head.is_probe(conn) is probe
    assert request_head.is_torn(conn) is torn


@pytest.mark.parametrize(("sent", "left"), [(b"\r\n\r\nGET", b"GET"), (b"\r\n", None), (b"", None)])
def test_empty_lines_are_skipped(pair: Pair, sent: bytes, left: bytes | None) -> None:
    conn, client = pair
    client.sendall(sent)
    assert request_head.skip_empty_lines(conn) is (left is not None)
    assert request_head.peek(conn) == left
