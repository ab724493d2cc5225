"""Limits of the system are reached: open files, threads, memory; running requests go on."""

import contextlib
import errno
import http.client
import json
import socket
import threading
from pathlib import Path

import pytest

from tests.functions.servers import (
    Running,
    Start,
    connections,
    events_of,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("quiet")

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
ROOT_PATH = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MB = 1 << 20


def answer(client: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError):
        # To the end of a JSON object, or of a stream's first event.
        while not found.endswith((b"}", b"\n\n", b"\n\n\r\n")) and (part := client.recv(65536)):
            found += part
    return found


def worker(server: Running) -> int:
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def memory(server: Running, field: str) -> int:
    lines = Path(f"/proc/{worker(server)}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def test_silent_connections_beyond_all_files_end_nothing(start: Start) -> None:
    server = start("x" * 100, 0.02, MOST_FILES="64")
    wait_until(server.is_ready)
    first = worker(server)
    stream = server.ask(stream=True).getresponse()
    with connections(server, 200) as silent:
        assert server.is_up()
        assert answer(silent[0]) == b""  # made way
    assert events_of(stream.read().decode())[-1] == "done"
    assert worker(server) == first


def test_idle_connections_make_way_the_oldest_first(start: Start) -> None:
    server = start(MOST_FILES="64")
    wait_until(server.is_ready)
    with connections(server, 100, ROOT_PATH) as idle:
        answered = [answer(client) for client in idle]
        assert all(reply.startswith(b"HTTP/1.1 200 ") for reply in answered)
        idle[-1].sendall(ROOT_PATH)
        assert answer(idle[-1]).startswith(b"HTTP/1.1 200 ")
        assert answer(idle[0]) == b""
        assert server.is_up()


def test_probes_have_places_when_all_others_are_taken(start: Start) -> None:
    server = start(MOST_FILES="64", PIBLOOM_MAX_BATCH="40", PIBLOOM_MAX_QUEUE="40")
    wait_until(server.is_ready)
    body = b'{"prompt": "Hi", "stream": true, "max_new_tokens": 4000}'
    request = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    with connections(server, 60, request) as clients:
        replies = [answer(client) for client in clients]
        taken = [reply for reply in replies if reply.startswith(b"HTTP/1.1 200 ")]
        refused = [reply for reply in replies if reply.startswith(b"HTTP/1.1 429 ")]
        assert len(taken) >= 10
        assert len(taken) + len(refused) == 60
        assert all(b"too many connections are open" in reply for reply in refused)
        assert all(b"\r\nRetry-After: 1\r\n" in reply for reply in refused)
        for _ in range(10):
            assert server.is_up()
            assert server.is_ready()


def test_a_probe_is_not_held_up_by_probes_that_never_end(start: Start) -> None:
    server = start(BODY_SECONDS="60", HEAD_SECONDS="60")
    wait_until(server.is_ready)
    for torn in (b"GET /healthz HT", GET[:-2] + b"Content-Length: 9\r\n\r\n", b"\r\n"):
        with connections(server, 12, torn):
            assert server.is_up()
    with connections(server, 30, GET.replace(b"1.1", b"1.0")):  # and never close
        assert server.is_up()


@pytest.mark.parametrize(
    "number",
    [
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EAGAIN,
        errno.EINTR,
    ],
    ids=lambda number: errno.errorcode[number],
)
def test_no_error_of_accept_ends_the_server(start: Start, number: int) -> None:
    server = start(ACCEPT_ERRORS=f"{number} {number} {number}")
    wait_until(server.is_ready)
    assert server.process.poll() is None


def test_threads_that_cannot_be_started_end_nothing(start: Start) -> None:
    server = start("x" * 20, 0.001, MOST_THREADS="12")
    wait_until(server.is_ready)
    first = worker(server)
    stream = server.ask(stream=True).getresponse()
    statuses = []

    def ask() -> None:
        statuses.append(server.ask(stream=False).getresponse().status)

    clients = [threading.Thread(target=ask) for _ in range(40)]
    for client in clients:
        client.start()
    assert server.is_up()
    for client in clients:
        client.join(60)
    assert len(statuses) == 40
    assert set(statuses) <= {200, 429}
    assert events_of(stream.read().decode())[-1] == "done"
    server.process.terminate()
    assert server.process.wait(30) == 0  # which takes no further thread either
    assert first


LARGE_REQUESTS = {
    "control characters": ("/", b'{"text":"%s"}' % (b"\x7f" * (MB - 20))),
    "one long word": ("/", b'{"text":"%s"}' % (b"ab" * (MB // 2 - 20))),
    "blanks": ("/", b'{"text":"%s"}' % (b" " * (MB - 20))),
    "escapes": ("/", b'{"text":"%s"}' % (b"\\u0001" * (MB // 6 - 20))),
    "flowers": ("/", b'{"text":"%s"}' % ("🌺".encode() * (MB // 4 - 20))),
    "ids": ("/detokenize", b'{"ids":[%s5]}' % (b"5," * (MB // 2 - 20))),
    "ids of long tokens": ("/detokenize", b'{"ids":[%s5]}' % (b"8000," * (MB // 5 - 20))),
    "lists in lists": ("/", b'{"text":[%s[]]}' % (b"[]," * (MB // 3 - 20))),
    "many fields": ("/", b'{%s"text":1}' % b"".join(b'"%x":[],' % n for n in range(100_000))),
}


@pytest.mark.parametrize("name", LARGE_REQUESTS)
def test_large_requests_stay_within_the_manifests_memory(
    tokenize_server: Running, name: str
) -> None:
    path, body = LARGE_REQUESTS[name]
    statuses = []

    def ask() -> None:
        connection = tokenize_server.connect()
        connection.timeout = 60
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        while reply.read(MB):
            pass
        statuses.append(reply.status)

    clients = [threading.Thread(target=ask) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(120)
    assert len(statuses) == 8
    assert set(statuses) <= {200, 422, 429}
    assert tokenize_server.is_up()
    assert memory(tokenize_server, "VmHWM") < 200 * MB


def test_readers_who_stop_leave_places_to_others(tokenize_server: Running) -> None:
    path, body = LARGE_REQUESTS["control characters"]
    head = HEAD.replace(b"POST /", b"POST " + path.encode())
    with connections(
        tokenize_server, 30, head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    ):
        connection = tokenize_server.connect()
        small = {"Content-Type": "application/json"}
        connection.request("POST", "/", json.dumps({"text": "Hi"}), small)
        assert connection.getresponse().status == 200
        assert tokenize_server.is_up()
        assert memory(tokenize_server, "VmHWM") < 200 * MB


def test_memory_goes_back_after_large_requests(start: Start) -> None:
    server = start("Hi", 0.0)
    wait_until(server.is_ready)
    before = memory(server, "VmRSS")
    prompts = ["a" * 16_000] * 64
    body = json.dumps({"model": "fake", "prompt": prompts, "n": 16})

    def ask() -> None:
        connection = server.connect()
        with contextlib.suppress(OSError, http.client.HTTPException):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", body, headers)
            connection.getresponse().read()

    clients = [threading.Thread(target=ask) for _ in range(48)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert memory(server, "VmHWM") < before + 100 * MB
    wait_until(lambda: memory(server, "VmRSS") < before + 40 * MB)


FILLED = b"[%s{}]" % (b'{"a":0},' * 125_000)  # 1 MB, which takes 25 MB once it is decoded
LOOKED_AT_BY_NOBODY = {
    "metadata": ("/v1/chat/completions", b'{"messages":[{"role":"user","content":"Hi"}],%s:%s}'),
    "access_programs": ("/v1/responses", b'{"input":"Hi",%s:%s}'),
    "keep_alive": (
        "/api/chat",
        b'{"stream":false,"messages":[{"role":"user","content":"Hi"}],%s:%s}',
    ),
}


@pytest.mark.parametrize("field", LOOKED_AT_BY_NOBODY)
def test_what_waits_or_is_written_holds_few_large_bodies(start: Start, field: str) -> None:
    path, form = LOOKED_AT_BY_NOBODY[field]
    body = form % (json.dumps(field).encode(), FILLED)
    server = start("x", 600.0)  # nobody's turn ends within the test
    wait_until(server.is_ready)
    before = memory(server, "VmRSS")
    head = HEAD.replace(b"POST /", b"POST " + path.encode())

    def decided() -> int:
        connection = server.connect()
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        counted = ('code="429"', "pibloom_waiting ", "pibloom_running ")
        found = [line for line in lines if any(each in line for each in counted) and line[0] != "#"]
        return round(sum(float(line.split()[-1]) for line in found))

    with contextlib.ExitStack() as stack:
        for count in range(1, 21):
            request = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            stack.enter_context(connections(server, 1, request))
            wait_until(lambda: decided() == count)  # noqa: B023
        assert memory(server, "VmHWM") < before + 200 * MB
