"""What goes wrong behind an ingress: each fault is injected, and nothing is lost silently."""

import contextlib
import ctypes
import http.client
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from functions.generate import streams
from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.names import default_model
from model.serving.request import GenerationRequest
from tests.functions.conftest import Generate
from tests.functions.random_bodies import random_json
from tests.functions.servers import ROOT, Running, Start, events_of, wait_until
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quiet")]

Connections = list[http.client.HTTPConnection]


def test_a_reader_that_stops_holds_up_nobody(start: Start) -> None:
    server = start("x" * 1000, 0.001)
    wait_until(server.is_ready)
    stalled = small_reader(server)
    for _ in range(3):
        other = server.ask(stream=False).getresponse()
        assert other.status == 200
        assert json.load(other)["finish_reason"] in ("stop", "length")
    stalled.close()


def test_a_full_queue_answers_two_hundred_at_once(start: Start) -> None:
    server = start("x" * 200, 0.005, PIBLOOM_MAX_BATCH="2", PIBLOOM_MAX_QUEUE="2")
    wait_until(server.is_ready)
    found: list[tuple[int, float, str | None]] = []

    def ask() -> None:
        began = time.monotonic()
        reply = server.ask(stream=False).getresponse()
        reply.read()
        found.append((reply.status, time.monotonic() - began, reply.headers["Retry-After"]))

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    statuses = [status for status, _, _ in found]
    assert len(found) == 200
    assert set(statuses) == {200, 429}
    assert statuses.count(200) >= 4
    assert all(after is not None and int(after) >= 1 for s, _, after in found if s == 429)
    waited = {code: statistics.median(t for s, t, _ in found if s == code) for code in (200, 429)}
    assert waited[429] < waited[200]


def test_malformed_bytes_get_an_answer_or_a_closed_socket(start: Start) -> None:
    server = start("x" * 5, 0.001)
    wait_until(server.is_ready)
    chance = random.Random(5)
    good = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    good += b'Content-Length: 15\r\n\r\n{"prompt":"ab"}'
    for _ in range(400):
        raw = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(raw))
            match chance.randrange(3):
                case 0:
                    raw[at] = chance.randrange(256)
                case 1:
                    del raw[at : at + chance.randrange(1, 9)]
                case _:
                    raw[at:at] = bytes(chance.randrange(256) for _ in range(3))
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(bytes(raw))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert not answer or answer.startswith(b"HTTP/1.")
        assert b"Traceback" not in answer
        assert b"<html" not in answer.lower()
    assert server.is_ready()


def test_ten_thousand_malformed_bodies_cost_no_step(generate: Generate, tokenize: Any) -> None:
    """With the 400 above: cut short, bytes put in, the wrong type, or not as described."""
    chance = random.Random(11)
    for client in (generate.client, tokenize):
        described = described_bodies(client.get("/openapi.json").json)
        sent = 0
        while sent < 4800:
            path = chance.choice(list(described))
            names, validator = described[path]
            count = chance.randrange(1, 1 + min(4, len(names)))
            given = {name: random_json(chance, names) for name in chance.sample(names, count)}
            data, type_ = json.dumps(given | {"x": 1} if chance.random() < 0.1 else given), ""
            at, kind = chance.randrange(1, len(data)), chance.randrange(8)
            raw = data.encode()
            if kind == 0:
                raw = raw[:at]
            elif kind == 1:
                raw = raw[:at] + chance.randbytes(2) + raw[at:]
            elif kind == 2 and not path.startswith("/api/"):  # where no type is looked at
                type_ = chance.choice(["text/plain", "multipart/form-data", "application/xml", "?"])
            if not type_ and not is_malformed(raw, validator):
                continue
            reply = client.post(path, data=raw, content_type=type_ or "application/json")
            assert 400 <= reply.status_code < 500, (path, raw, reply.data)
            error = reply.get_json()["error"]
            if path.startswith("/api/"):  # Ollama's are a sentence
                assert isinstance(error, str)
            else:
                assert {"code", "type", "message", "param"} <= set(error)
                # Below /v1 the code is OpenAI's.
                assert path.startswith("/v1/") or error["code"] == reply.status_code
            sent += 1
    assert not generate.engine.steps
    assert generate.post({"prompt": "Hi"}).status_code == 200


def described_bodies(document: Any) -> dict[str, tuple[list[str], Draft202012Validator]]:
    """The fields of each path's body, and what tells whether one is as described."""
    found = {}
    for path, operations in document["paths"].items():
        if body := operations.get("post", {}).get("requestBody"):
            schema = body["content"]["application/json"]["schema"]
            name = schema["$ref"].rpartition("/")[2]
            names = list(document["components"]["schemas"][name]["properties"])
            validator = Draft202012Validator(schema | {"components": document["components"]})
            found[path] = names, validator
    return found


def is_malformed(raw: bytes, validator: Draft202012Validator) -> bool:
    try:
        return not validator.is_valid(json.loads(raw.decode()))
    except ValueError:
        return True


def test_a_killed_worker_is_replaced_and_all_its_clients_see_it(start: Start) -> None:
    server = start("x" * 300, 0.02, PIBLOOM_MAX_BATCH="1")
    wait_until(server.is_ready)
    clients = [post(server), post(server), post(server, stream=False)]
    wait_until(lambda: figure(server, "pibloom_waiting ") == 2)
    (killed,) = workers(server)
    os.kill(killed, signal.SIGKILL)
    for client in clients:
        with pytest.raises((http.client.HTTPException, OSError)):
            client.getresponse().read()
    wait_until(lambda: server.is_ready() and workers(server) != [killed])
    assert json.load(post(server, stream=False, max_new_tokens=3).getresponse())["text"]


def workers(server: Running) -> list[int]:
    """The processes that the server started."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(each) for each in children.read_text().split()]


def what_comes(reply: http.client.HTTPResponse) -> bytes:
    """Read a stream up to its end or to where it breaks off."""
    said = b""
    with contextlib.suppress(http.client.HTTPException, OSError):
        while line := reply.readline():
            said += line
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_loading_ends_it(start: Start, number: signal.Signals) -> None:
    server = start(LOAD_SECONDS="30")
    wait_until(server.is_up)
    server.process.send_signal(number)
    server.process.wait(20)


def test_a_full_disk_for_logs_stops_no_answer() -> None:
    port = free_port()
    command = [sys.executable, "-m", "functions", "tokenize", "--port", str(port)]
    with Path("/dev/full").open("w") as full:
        environment = os.environ | {"PIBLOOM_LOG_LEVEL": "INFO"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=full, stderr=full)
    try:
        server = Running(process, port, Path(os.devnull))
        wait_until(server.is_ready)
        connection = server.connect()  # one for all: a failure would close it
        for _ in range(5):
            connection.request("POST", "/", '{"text": "Hi"}', {"Content-Type": "application/json"})
            assert json.load(connection.getresponse())["count"] >= 1
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"no HTTP\r\n\r\n")  # which is logged before it is answered
            assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    finally:
        process.kill()
        process.wait()


def test_a_model_cut_short_under_the_server_ends_it_and_is_refused(tmp_path: Path) -> None:
    """A read behind the end of a mapping kills the process: what comes up again says why."""
    path, port = tmp_path / "model.bloom", free_port()
    bake(Checkpoint.open(default_model()), path)
    process = subprocess.Popen(
        [sys.executable, "-m", "functions", "generate", "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"PIBLOOM_MODEL": str(path), "PIBLOOM_LOG_LEVEL": "ERROR"},
        stderr=subprocess.PIPE,
    )

    def ready() -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False

    try:
        wait_until(ready)
        os.truncate(path, 8192)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        body = json.dumps({"prompt": "Hello", "stream": True})
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        said = b""
        with contextlib.suppress(http.client.HTTPException, OSError):
            said = what_comes(connection.getresponse())
        assert b"event: done" not in said
        assert process.wait(30) != 0
        assert process.stderr is not None
        assert b"it was cut off" in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_a_model_baked_anew_over_the_one_that_is_served_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "model.bloom"
    bake(Checkpoint.open(default_model()), path)
    engine = NativeEngine(BakedModel(path), threads=1)

    def likeliest() -> list[tuple[int, float]]:
        (logits,) = engine.forward([Work(engine.new_sequence(), [5, 6])])
        assert logits is not None
        return logits.top(5)

    before = likeliest()
    bake(Checkpoint.open(default_model()), path, bits=4)
    assert likeliest() == before
    assert BakedModel(path).bits == 4


def test_an_engine_that_raises_fails_those_who_ran_and_serves_the_next(generate: Generate) -> None:
    def fail() -> None:
        generate.engine.before_step = lambda: None
        raise RuntimeError("broken")

    generate.engine.before_step = fail
    assert generate.post({"prompt": "Hi"}).status_code == 500
    assert generate.post({"prompt": "Hi"}).status_code == 200


@pytest.mark.parametrize(("length", "status"), [(2046, 200), (2047, 200), (2048, 422), (2049, 422)])
def test_prompts_at_the_edge_of_the_context(generate: Generate, length: int, status: int) -> None:
    response = generate.post({"prompt": "a" * length, "max_new_tokens": 5})
    assert response.status_code == status
    if status == 422:
        error = response.json["error"]
        assert (error["prompt_tokens"], error["max_context"]) == (length, 2048)


def test_a_full_disk_does_not_keep_a_refused_model_alive(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "functions", "tokenize", "--port", str(free_port())]
    with Path("/dev/full").open("w") as full:
        environment = os.environ | {"PIBLOOM_MODEL": str(tmp_path)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=full, stderr=full)
    try:
        assert process.wait(30) == 3
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_wall_clock_that_jumps_is_nothing_to_deadlines_and_heartbeats(
    generate: Generate, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    right = time.time
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.5)

    def jump() -> None:
        generate.engine.before_step = lambda: None
        monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
        threading.Event().wait(1.5)  # a step that takes its time, for heartbeats

    generate.engine.before_step = jump
    said = generate.post({"prompt": "Hi", "stream": True}, headers={"X-Request-Timeout": "60"}).text
    assert events_of(said)[-1] == "done"
    assert ": keep-alive" in said

    generate.engine.running.clear()

    def jump_while_held() -> None:
        monkeypatch.setattr(time, "time", lambda: right() + 7200 * hours)

    timer = threading.Timer(0.2, jump_while_held)
    timer.start()
    late = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": "1"})
    assert late.status_code == 504
    scheduler = generate.service.get().scheduler
    held = [scheduler.submit(GenerationRequest((5, 6), 3)) for _ in range(3)]
    refused = generate.post({"prompt": "Hi"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) < 60
    generate.engine.running.set()
    for each in held:
        list(each.events())


def figure(server: Running, name: str) -> float:
    """Read one of the server's metrics."""
    connection = server.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def answered(server: Running, label: str) -> int:
    """How many requests have ended that were counted with a label."""
    connection = server.connect()
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    found = [line for line in lines if line.startswith("pibloom_requests_total{")]
    return sum(int(line.split()[-1]) for line in found if label in line)


def post(
    server: Running, prompt: str = "Hi", path: str = "/", timeout: float = 60, **more: object
) -> http.client.HTTPConnection:
    """Ask for a stream, unless `more` says otherwise, and do not wait for it."""
    connection = server.connect()
    body = json.dumps({"prompt": prompt, "stream": True} | more)
    headers = {"Content-Type": "application/json", "X-Request-Timeout": str(timeout)}
    connection.request("POST", path, body, headers)
    return connection


LONG = "a" * 2000  # 32 steps to read


def bring(server: Running, phase: str, stream: bool, timeout: float = 60) -> Connections:
    """Have a request at the phase; the last connection is its, those before only make it wait."""
    before = server.steps
    connections = []
    if phase == "queued":
        connections = [post(server, max_new_tokens=2000)]
        wait_until(lambda: figure(server, "pibloom_running ") == 1)
    prompt = LONG if phase == "prefill" else "Hi"
    connections.append(post(server, prompt, stream=stream, timeout=timeout, max_new_tokens=2000))
    match phase:
        case "queued":
            wait_until(lambda: figure(server, "pibloom_waiting ") == 1)
        case "prefill" | "decode":
            wait_until(lambda: server.steps > before + 2)
    return connections


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
def test_a_client_that_leaves_is_noticed_in_each_phase(
    start: Start, phase: str, stream: bool
) -> None:
    server = start("x" * 3000, 0.05, PIBLOOM_MAX_BATCH="1")
    wait_until(server.is_ready)
    *others, leaving = bring(server, phase, stream)
    begun = server.steps
    leaving.close()
    name = "pibloom_waiting " if others else "pibloom_running "
    wait_until(lambda: figure(server, name) == 0)
    assert figure(server, "pibloom_running ") == len(others)
    if phase == "prefill":
        assert server.steps < begun + 25  # it was not read to its end
    for other in others:
        other.close()


def test_clients_that_leave_while_uploading_cost_no_step(start: Start) -> None:
    server = start(PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="1")
    wait_until(server.is_ready)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", server.port), 20) as client:
            client.sendall(head + b'Content-Length: 100\r\n\r\n{"prompt": "Hi"}')
    wait_until(lambda: answered(server, 'method="POST"') == 30)
    assert server.steps == 0


@pytest.mark.parametrize("stream", [True, False])
def test_clients_that_leave_at_the_last_token_leave_nothing_behind(
    start: Start, stream: bool
) -> None:
    server = start("x" * 3, 0.01, PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="1")
    wait_until(server.is_ready)
    for _ in range(12):
        steps = server.steps
        leaving = post(server, stream=stream)
        wait_until(lambda steps=steps: server.steps >= steps + 4)  # type: ignore[misc]
        leaving.close()
        wait_until(lambda: figure(server, "pibloom_running ") == 0)
    assert json.load(post(server, stream=False).getresponse())["text"] == "xxx"


VANISHES = struct.pack("HBBI", 6, 0, 0, 0)  # a packet filter of one instruction: drop all


def vanish(connection: http.client.HTTPConnection) -> None:
    """Be as a machine without power: nothing that comes is acknowledged, and nothing is sent."""
    assert connection.sock is not None
    instruction = ctypes.create_string_buffer(VANISHES)
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    connection.sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such filter")
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanished_without_a_word_is_given_up(start: Start, stream: bool) -> None:
    server = start("x" * 3000, 0.05, GONE_SECONDS="1")
    wait_until(server.is_ready)
    (client,) = bring(server, "decode", stream)
    vanish(client)
    wait_until(lambda: figure(server, "pibloom_running ") == 0)


def small_reader(server: Running, timeout: float = 60) -> socket.socket:
    """Ask for more than the buffers between a server and a client hold."""
    client = socket.socket()
    client.settimeout(20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # it sizes the server's buffer
    client.connect(("127.0.0.1", server.port))
    body = json.dumps({"prompt": "Hi", "stream": True, "max_tokens": 1500, "logprobs": 20})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Timeout: {timeout}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body.encode())
    return client


def test_a_reader_that_stops_is_given_up(start: Start) -> None:
    server = start("x" * 3000, 0.001, GONE_SECONDS="1")
    wait_until(server.is_ready)
    client = small_reader(server)
    wait_until(lambda: answered(server, 'path="/v1/completions"') == 1)
    assert figure(server, "pibloom_running ") == 0
    client.close()


def test_a_reader_that_drips_holds_its_thread_for_a_bounded_time(start: Start) -> None:
    server = start("x" * 3000, 0.001, GONE_SECONDS="2", PIBLOOM_DEADLINE="2")
    wait_until(server.is_ready)
    client, ended = small_reader(server), threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            while not ended.wait(0.05) and client.recv(1000):
                pass

    reader = threading.Thread(target=drip)
    reader.start()
    try:
        wait_until(lambda: answered(server, 'path="/v1/completions"') == 1)
    finally:
        ended.set()
        reader.join(20)
        client.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
def test_sigterm_in_each_phase_tells_the_client(start: Start, phase: str, stream: bool) -> None:
    server = start("x" * 3000, 0.1, PIBLOOM_MAX_BATCH="1", PIBLOOM_GRACE="0.5")
    wait_until(server.is_ready)
    *others, asked = bring(server, phase, stream)
    server.process.send_signal(signal.SIGTERM)
    reply = asked.getresponse()
    said = reply.read()
    assert reply.status == (200 if stream else 503)
    assert b'"type":"draining"' in said
    assert server.process.wait(20) == 0
    for other in others:
        other.close()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["queued", "prefill", "decode"])
def test_sigkill_in_each_phase_is_an_error_to_the_client(
    start: Start, phase: str, stream: bool
) -> None:
    server = start("x" * 3000, 0.05, PIBLOOM_MAX_BATCH="1")
    wait_until(server.is_ready)
    *others, asked = bring(server, phase, stream)
    for process in (server.process.pid, *workers(server)):  # as when a container is killed
        os.kill(process, signal.SIGKILL)
    with pytest.raises((http.client.HTTPException, OSError)):
        asked.getresponse().read()
    wait_until(lambda: is_free(server.port))
    for other in others:
        other.close()


def is_free(port: int) -> bool:
    """Whether nobody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_worker_without_its_master_finishes_and_goes(start: Start) -> None:
    server = start("x" * 40, 0.05)
    wait_until(server.is_ready)
    (asked,) = bring(server, "decode", True)
    server.process.kill()
    assert b"event: done" in what_comes(asked.getresponse())
    wait_until(lambda: is_free(server.port))


@pytest.mark.parametrize("phase", ["loading", "queued", "prefill", "decode"])
def test_a_deadline_holds_in_each_phase(start: Start, phase: str) -> None:
    loading = "30" if phase == "loading" else "0"
    server = start("x" * 3000, 0.1, PIBLOOM_MAX_BATCH="1", LOAD_SECONDS=loading)
    wait_until(server.is_up if phase == "loading" else server.is_ready)
    *others, late = bring(server, phase, True, timeout=1)
    said = late.getresponse().read().decode()
    assert events_of(said)[-1] == "error"
    assert '"type":"deadline"' in said
    assert said.count("event: ") < 100  # ten steps a second
    state = "generating" if phase == "decode" else phase
    assert said.rindex(f'"state":"{state}"') == said.rindex('"state":')
    if phase != "loading":
        wait_until(lambda: figure(server, "pibloom_running ") == len(others))
    for other in others:
        other.close()
