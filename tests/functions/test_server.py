"""Under the real server: streams that arrive, clients that leave, signals, refused starts."""

import contextlib
import http.client
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Start = Callable[..., "Running"]


class Running:
    """A server process on a fake engine, and the file that counts its steps."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, steps: Path) -> None:
        self.process, self.port, self._steps = process, port, steps

    @property
    def steps(self) -> int:
        return self._steps.stat().st_size

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, stream: bool) -> http.client.HTTPConnection:
        connection = self.connect()
        body = json.dumps({"prompt": "Hi", "stream": stream, "max_new_tokens": 4000})
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        return connection

    def is_ready(self) -> bool:
        return self._answers("/readyz")

    def is_up(self) -> bool:
        return self._answers("/healthz")

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = self.connect()
            connection.request("GET", path)
            return connection.getresponse().status == 200
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)  # the process under test gives no event to wait for


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def start(reply: str = "x" * 1500, seconds: float = 0.02, **environment: str) -> Running:
        port, steps = free_port(), tmp_path / "steps"
        steps.touch()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.functions.fake_server", str(port), reply, str(seconds)],
            cwd=ROOT,
            env=os.environ | {"STEPS_FILE": str(steps)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        running = Running(process, port, steps)
        started.append(running)
        return running

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def events_of(raw: str) -> list[str]:
    return [line.removeprefix("event: ") for line in raw.splitlines() if line.startswith("event: ")]


def test_tokens_arrive_one_by_one(start: Start) -> None:
    server = start("Hello, 你好!", 0.1)
    wait_until(server.is_ready)
    response = server.ask(stream=True).getresponse()
    moments = []
    while not (line := response.readline()).startswith(b"event: done"):
        if line.startswith(b"event: token"):
            moments.append(time.monotonic())
            data = response.readline()
            assert "\ufffd" not in json.loads(data.removeprefix(b"data: "))["text"]
    assert len(moments) == len("Hello, 你好!")
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert sum(gap > 0.05 for gap in gaps) >= len(gaps) - 2, "tokens came in lumps"


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


def test_probes_answer_while_streams_run(start: Start) -> None:
    server = start(PIBLOOM_MAX_BATCH="2")
    wait_until(server.is_ready)
    connections = [server.ask(stream=True) for _ in range(6)]
    for connection in connections:
        assert connection.getresponse().status == 200
    assert server.is_ready()


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


JSON = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
NO_HTTP = [
    b"my-secret\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nmy-secret\r\n\r\n",
    b"GET /my-secret" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: my-secret" + b"a" * 20_000 + b"\r\n\r\n",
    JSON + b"Content-Length: ten\r\n\r\n",
    JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    JSON + b"Content-Length: 2\r\nExpect: my-secret\r\n\r\n{}",
    JSON + b"Transfer-Encoding: chunked\r\n\r\nmy-secret\r\n",
    JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}",
    JSON + b'Content-Length: 100\r\n\r\n{"prompt": "my-secret"}',
]


def test_what_is_no_http_gets_the_same_shape_and_is_not_logged(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    for data in NO_HTTP:
        with socket.create_connection(("127.0.0.1", server.port), 10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.headers["Content-Type"] == "application/json", data[:80]
            error = json.loads(response.read())["error"]
            assert response.status in (400, 414, 417, 431, 505), data[:80]
            assert error["code"] == response.status
            assert response.headers["Connection"] == "close"
            assert "secret" not in error["message"]
    assert server.is_ready()
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=20)
    assert b"secret" not in output
    assert b"Traceback" not in output


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


def test_streams_that_wait_for_the_model_leave_threads_to_probes(start: Start) -> None:
    server = start("Hi", 0.0, LOAD_SECONDS="4", PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="2")
    wait_until(server.is_up)
    connections = [server.ask(stream=True) for _ in range(14)]
    statuses = [connection.getresponse().status for connection in connections]
    assert sorted(statuses) == [200] * 3 + [503] * 11
    assert server.is_up()


def test_doubled_slashes_are_no_html_redirect(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    connection = server.connect()
    connection.request("GET", "//")
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")


def test_a_stream_says_loading_until_the_model_is_there(start: Start) -> None:
    server = start("Hello", 0.0, LOAD_SECONDS="2")
    wait_until(server.is_up)
    whole = server.ask(stream=False).getresponse()
    assert whole.status == 503
    assert int(whole.headers["Retry-After"]) >= 1
    raw = server.ask(stream=True).getresponse().read().decode()
    assert raw.index('"state":"loading"') < raw.index("event: token")
    assert events_of(raw)[-1] == "done"


def test_a_stream_that_waits_for_a_model_hears_that_it_failed(start: Start) -> None:
    server = start(LOAD_SECONDS="1", LOAD_ERROR="weights.bin is truncated")
    wait_until(server.is_up)
    raw = server.ask(stream=True).getresponse().read().decode()
    assert events_of(raw) == ["status", "error"]
    assert "weights.bin" not in raw
    assert server.process.wait(20) == 3


def test_a_stream_that_waits_for_a_model_hears_of_a_shutdown(start: Start) -> None:
    server = start(LOAD_SECONDS="60")
    wait_until(server.is_up)
    response = server.ask(stream=True).getresponse()
    server.process.send_signal(signal.SIGTERM)
    raw = response.read().decode()
    assert events_of(raw) == ["status", "error"]
    assert '"type":"draining"' in raw
    assert server.process.wait(20) == 0


def test_sigterm_lets_a_stream_finish_and_refuses_new_requests(start: Start) -> None:
    server = start("x" * 60, 0.05)
    wait_until(server.is_ready)
    response = server.ask(stream=True).getresponse()
    wait_until(lambda: server.steps > 10)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not server.is_ready())
    refused = server.ask(stream=False).getresponse()
    assert refused.status == 503
    assert json.loads(refused.read())["error"]["type"] == "draining"
    raw = response.read().decode()
    assert events_of(raw)[-1] == "done"
    assert server.process.wait(20) == 0


def test_sigterm_ends_a_long_stream_with_an_event_after_the_grace(start: Start) -> None:
    server = start(PIBLOOM_GRACE="1")
    wait_until(server.is_ready)
    response = server.ask(stream=True).getresponse()
    wait_until(lambda: server.steps > 10)
    server.process.send_signal(signal.SIGTERM)
    raw = response.read().decode()
    assert [name for name in events_of(raw) if name in ("done", "error")] == ["error"]
    assert '"type":"draining"' in raw
    assert server.process.wait(20) == 0


def test_a_second_sigterm_ends_at_once(start: Start) -> None:
    server = start(PIBLOOM_GRACE="60")
    wait_until(server.is_ready)
    connection = server.ask(stream=True)
    wait_until(lambda: server.steps > 10)
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not server.is_ready())
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(15)
    connection.close()


def test_sigint_ends_at_once(start: Start) -> None:
    server = start(PIBLOOM_GRACE="60")
    wait_until(server.is_ready)
    response = server.ask(stream=True).getresponse()
    wait_until(lambda: server.steps > 10)
    server.process.send_signal(signal.SIGINT)
    server.process.wait(15)
    response.close()


def test_prompts_are_never_logged(start: Start) -> None:
    server = start("Hello", 0.0, PIBLOOM_LOG_LEVEL="DEBUG")
    wait_until(server.is_ready)
    connection = server.connect()
    for body in ('{"prompt": "my-secret"}', '{"prompt": "my-secret", "x": 1}', '"my-secret'):
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    server.process.send_signal(signal.SIGTERM)
    output, _ = server.process.communicate(timeout=20)
    lines = output.decode().splitlines()
    assert sum('"path":"/"' in line for line in lines) == 3
    assert "secret" not in output.decode()
    for line in lines:
        json.loads(line)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "functions", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_functions_framework_command_serves_them_too() -> None:
    port = free_port()
    command = ["--source", "functions/tokenize/main.py", "--target", "tokenize"]
    process = subprocess.Popen(
        [Path(sys.executable).parent / "functions-framework", *command, "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"HOST": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Running(process, port, Path(os.devnull))
        wait_until(server.is_ready)
        connection = server.connect()
        connection.request("POST", "/", '{"text": "Hi"}', {"Content-Type": "application/json"})
        assert json.loads(connection.getresponse().read())["count"] >= 1
        connection.request("POST", "/", "text", {"Content-Type": "text/plain"})
        assert connection.getresponse().status == 415
    finally:
        process.terminate()
        process.wait(20)


def test_a_busy_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("tokenize", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


@pytest.mark.parametrize("name", ["generate", "tokenize"])
def test_a_refused_checkpoint_ends_the_server_with_a_sentence(name: str, tmp_path: Path) -> None:
    done = serve(name, "--port", str(free_port()), PIBLOOM_MODEL=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_bad_setting_ends_the_server_with_a_sentence() -> None:
    done = serve("tokenize", "--port", str(free_port()), PIBLOOM_SPEED="fast")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PIBLOOM_SPEED" in done.stderr


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


def test_what_is_no_http_is_counted_and_logged_with_its_id(start: Start) -> None:
    server = start()
    wait_until(server.is_ready)
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        head = client.recv(65536).partition(b"\r\n\r\n")[0].decode()
    request_id = head.partition("X-Request-Id: ")[2].partition("\r\n")[0]
    assert len(request_id) == 32
    counted = 'pibloom_requests_total{code="400",method="other",path="other"} 1'
    connection = server.connect()
    connection.request("GET", "/metrics")
    assert counted in connection.getresponse().read().decode().splitlines()
    server.process.kill()
    assert server.process.stdout is not None
    assert request_id in server.process.stdout.read().decode()


def test_a_body_without_a_key_is_not_taken(start: Start) -> None:
    server = start(PIBLOOM_API_KEYS="a-key")
    wait_until(server.is_ready)
    client = socket.create_connection(("127.0.0.1", server.port), 20)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(head + b"Content-Length: 1000000000\r\n\r\n{")
    assert client.recv(65536).startswith(b"HTTP/1.1 401 ")  # though nothing more comes
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
