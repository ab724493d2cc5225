"""Bodies in hand: how many bytes, who decodes, and when the memory goes back."""

import contextlib
import select
import socket
import threading

import pytest

from functions.http.middleware.uploads import LARGE, ByteBudget
from tests.functions.conftest import Generate
from tests.functions.servers import Start, connections, wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MB = 1 << 20


def test_bytes_are_taken_waited_for_and_given_back() -> None:
    shared = ByteBudget(100)
    assert shared.take(60, 0)
    assert not shared.take(60, 0.01)
    assert shared.take(40, 0)
    waits = threading.Thread(target=shared.take, args=(90, 20))
    waits.start()
    shared.give_back(60)
    shared.give_back(40)
    waits.join(20)
    assert not waits.is_alive()
    assert not shared.take(11, 0)
    assert shared.take(10, 0)


def test_what_is_more_than_all_is_all() -> None:
    shared = ByteBudget(100)
    assert shared.take(1000, 0)
    assert not shared.take(1, 0)
    shared.give_back(1000)
    assert shared.take(100, 0)


@pytest.mark.parametrize("text", ["a" * LARGE * 2, "a", " "])
@pytest.mark.parametrize("path", ["/", "/chat/", "/v1/completions", "/nowhere", "/healthz"])
def test_every_large_body_is_let_go(generate: Generate, path: str, text: str) -> None:
    field = "content" if path == "/chat/" else "prompt"
    for _ in range(12):  # three times as many as there is room for
        reply = generate.client.post(path, json={field: text, "model": "fake"})
        assert reply.status_code in (200, 400, 404, 405, 422), reply.text
        reply.close()


def test_a_body_over_the_limit_is_refused_unread(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client.sendall(head + b"Content-Length: 52428800\r\n\r\n" + b"x" * 1000)
        answer = b""
        while b"}}" not in answer and (part := client.recv(65536)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


def test_a_chunked_body_is_cut_at_the_limit(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                client.sendall(chunk)
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_bodies_that_never_come_hold_no_thread_for_long(start: Start) -> None:
    server = start(PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="1", BODY_SECONDS="1")
    wait_until(server.is_ready)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(20)]
    for client in clients:
        client.sendall(head + b"Content-Length: 100\r\n\r\n{")
    wait_until(server.is_ready)  # as many clients as there are threads, twice
    assert clients[0].recv(65536).startswith(b"HTTP/1.1 400 ")
    for client in clients:
        client.close()


def test_more_uploads_than_there_is_room_for_are_told_so(start: Start) -> None:
    server = start(BODY_SECONDS="60")
    wait_until(server.is_ready)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(40)]
    for client in clients:
        client.sendall(head + b"Content-Length: 100\r\n\r\n{")
    ready, _, _ = select.select(clients, [], [], 20)
    assert ready
    assert ready[0].recv(65536).startswith(b"HTTP/1.1 429 ")
    for client in clients:
        client.close()


def test_large_bodies_that_never_come_leave_room_for_small_ones(start: Start) -> None:
    server = start("Hi", 0.0, BODY_SECONDS="60")
    wait_until(server.is_ready)
    announced = HEAD + b"Content-Length: %d\r\n\r\n{" % MB
    with connections(server, 8, announced) as clients:
        refused = [client for client in clients if b" 429 " in impatient(client)]
        assert len(refused) == 4
        assert server.ask(stream=False).getresponse().status == 200


def impatient(client: socket.socket) -> bytes:
    client.settimeout(2)
    with contextlib.suppress(TimeoutError):
        return client.recv(65536)
    return b""
