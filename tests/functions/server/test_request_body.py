"""A body as it is read from its connection; test_rfcs.py has what the RFCs say of it."""

import socket

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidChunkSize
from gunicorn.http.parser import RequestParser

from functions.server.request_body import CHUNK_BYTES, SMALL_CHUNKS, RequestBody, _bounded

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"


def body_of(raw: bytes) -> tuple[RequestBody, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    return RequestBody(next(RequestParser(Config(), ours, ("127.0.0.1", 1))), ours), theirs


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"Content-Length: 4\r\n\r\nabcd",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n",
    ],
)
def test_it_has_ended_once_it_was_read_to_its_end(raw: bytes) -> None:
    body, client = body_of(raw)
    assert body.read(2) == b"ab"
    assert not body.ended
    assert body.read() == b"cd"
    assert body.ended
    client.close()


def test_a_client_that_waits_is_asked_at_the_first_read_only() -> None:
    body, client = body_of(HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(99)
    client.sendall(b"{}")
    assert body.read() == b"{}"
    assert client.recv(99) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.close()


def test_small_chunks_are_bounded_and_large_ones_are_not() -> None:
    assert len(list(_bounded(iter([b"a"] * SMALL_CHUNKS)))) == SMALL_CHUNKS
    large = [b"a" * CHUNK_BYTES] * (3 * SMALL_CHUNKS)
    assert len(list(_bounded(iter(large)))) == len(large)
    with pytest.raises(InvalidChunkSize):
        list(_bounded(iter([b"a"] * 2 * SMALL_CHUNKS)))
