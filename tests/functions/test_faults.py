"""What goes wrong behind an ingress: each fault is injected, and nothing is lost silently."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model import scheduler as scheduling
from model.bake import bake
from model.checkpoint import Checkpoint
from model.loader import default_model
from tests.functions.conftest import ROOT, Generate
from tests.functions.test_server import Start, events_of, free_port, start, wait_until

__all__ = ["start"]


def test_a_reader_that_stops_holds_up_nobody(start: Start) -> None:
    server = start("x" * 3000, 0.001)
    wait_until(server.is_ready)
    stalled = server.ask(stream=True)
    assert stalled.sock is not None
    stalled.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
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
    server = start("x" * 5, 0.001, PIBLOOM_LOG_LEVEL="ERROR")
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


def test_a_killed_worker_is_replaced(start: Start) -> None:
    server = start("x" * 300, 0.02)
    wait_until(server.is_ready)
    reply = server.ask(stream=True).getresponse()
    reply.readline()
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    (worker,) = children.read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    assert b"event: done" not in what_comes(reply)  # its client sees that it is not whole
    wait_until(lambda: server.is_ready() and children.read_text().split() != [worker])
    assert json.load(server.ask(stream=False).getresponse())["text"]


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
        process = subprocess.Popen(command, cwd=ROOT, stdout=full, stderr=full)
    try:

        def ask() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            body = json.dumps({"text": "Hi"})
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            return connection.getresponse().status

        def answers() -> bool:
            try:
                return ask() == 200
            except OSError:
                return False

        wait_until(answers)
        assert [ask() for _ in range(5)] == [200] * 5
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


def test_a_model_replaced_by_renaming_disturbs_nobody(tmp_path: Path) -> None:
    from model.baked import BakedModel
    from model.engine import Work
    from model.native_engine import NativeEngine

    path = tmp_path / "model.bloom"
    bake(Checkpoint.open(default_model()), path)
    engine = NativeEngine(BakedModel(path), threads=1)
    other = tmp_path / "new.bloom"
    bake(Checkpoint.open(default_model()), other, bits=4)
    other.rename(path)
    (logits,) = engine.forward([Work(engine.new_sequence(), [5, 6])])
    assert logits is not None
    assert logits.top(1)
    assert BakedModel(path).bits == 4


def test_an_engine_that_hangs_is_told_by_the_probes(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "STUCK", 0.2)
    assert generate.client.get("/healthz").status_code == 200
    generate.engine.running.clear()
    late = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": "0.5"})
    assert late.status_code == 504
    assert generate.client.get("/healthz").status_code == 500
    assert generate.client.get("/readyz").status_code == 500
    generate.engine.running.set()
    wait_until(lambda: generate.client.get("/healthz").status_code == 200)


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


def test_a_deadline_in_the_queue_ends_the_wait(start: Start) -> None:
    server = start("x" * 3000, 0.01, PIBLOOM_MAX_BATCH="1")
    wait_until(server.is_ready)
    running = server.ask(stream=True)
    connection = server.connect()
    headers = {"Content-Type": "application/json", "X-Request-Timeout": "0.5"}
    connection.request("POST", "/", json.dumps({"prompt": "Hi", "stream": True}), headers)
    said = connection.getresponse().read().decode()
    assert events_of(said)[-1] == "error"
    assert '"deadline"' in said
    running.close()
