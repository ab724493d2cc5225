"""Clients that send or close too slowly: what they hold is bounded."""

import select
import socket
import time

from tests.functions.servers import Start, wait_until


def test_torn_heads_and_bodies_leave_threads_to_probes(start: Start) -> None:
    server = start(BODY_SECONDS="60", HEAD_SECONDS="60")
    wait_until(server.is_ready)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    torn = [head[:30]] * 80 + [head + b"Content-Length: 100\r\n\r\n{"] * 40
    clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in torn]
    for client, data in zip(clients, torn, strict=True):
        client.sendall(data)
    time.sleep(0.5)  # until the server has read them all
    wait_until(server.is_ready)
    for client in clients:
        client.close()


def test_heads_torn_behind_a_whole_request_leave_threads_too(start: Start) -> None:
    server = start(HEAD_SECONDS="60")
    wait_until(server.is_ready)
    clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(150)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HT")
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    time.sleep(0.5)  # until the server has met the other halves
    wait_until(server.is_ready)
    for client in clients:
        client.close()


def test_a_torn_head_too_many_is_told_so(start: Start) -> None:
    server = start(HEAD_SECONDS="60")
    wait_until(server.is_ready)
    clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(30)]
    for client in clients:
        client.sendall(b"GET /heal")
    ready, _, _ = select.select(clients, [], [], 20)
    reply = ready[0].recv(65536)
    assert reply.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"\r\nRetry-After: 1\r\n" in reply
    for client in clients:
        client.close()


def test_heads_that_never_end_hold_no_thread_for_long(start: Start) -> None:
    server = start(PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="1", HEAD_SECONDS="1")
    wait_until(server.is_ready)
    clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(80)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
    wait_until(server.is_ready)  # though there are fewer threads
    assert clients[0].recv(65536) == b""
    for client in clients:
        client.close()


def test_clients_that_never_close_do_not_hold_up_the_others(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    began = time.monotonic()
    clients = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.is_ready()
    assert time.monotonic() - began < 15  # two seconds for each would be forty
    for client in clients:
        client.close()
