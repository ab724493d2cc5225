"""Under the real server: streams that arrive, clients that leave, signals, refused starts."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.functions.servers import ROOT, Running, Start, events_of, serve, wait_until
from tests.ports import free_port


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


def test_probes_answer_while_streams_run(start: Start) -> None:
    server = start(PIBLOOM_MAX_BATCH="2")
    wait_until(server.is_ready)
    connections = [server.ask(stream=True) for _ in range(6)]
    for connection in connections:
        assert connection.getresponse().status == 200
    assert server.is_ready()


def test_streams_that_wait_for_the_model_leave_threads_to_probes(start: Start) -> None:
    server = start("Hi", 0.0, LOAD_SECONDS="4", PIBLOOM_MAX_BATCH="1", PIBLOOM_MAX_QUEUE="2")
    wait_until(server.is_up)
    connections = [server.ask(stream=True) for _ in range(14)]
    statuses = [connection.getresponse().status for connection in connections]
    assert sorted(statuses) == [200] * 3 + [503] * 11
    assert server.is_up()


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


@pytest.mark.parametrize("name", ["generate", "tokenize"])
def test_a_refused_checkpoint_ends_the_server_with_a_sentence(name: str, tmp_path: Path) -> None:
    done = serve(name, "--port", str(free_port()), PIBLOOM_MODEL=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
