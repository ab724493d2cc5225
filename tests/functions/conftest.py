"""Both functions as Flask test clients, `generate` on a fake engine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import functions_framework
import httpx2 as httpx  # what OpenAI's client is built on
import openai
import pytest
from flask.testing import FlaskClient

from functions.service import Service
from model import load as loading
from model.limits import Limits
from model.load import LoadedModel
from tests.fakes import FakeEngine, byte_tokenizer, fake_model
from tests.functions.clients import tokenize_client
from tests.functions.servers import ROOT, Running, Start, wait_until
from tests.ports import free_port


@dataclass
class Generate:
    """The function `generate`, and the engine under it."""

    client: Any
    engine: FakeEngine
    service: Service[Any]

    def post(self, body: object = None, **options: Any) -> Any:
        return self.client.post("/", json=body, **options)


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Generate]:
    monkeypatch.setenv("PIBLOOM_MAX_BATCH", "2")
    monkeypatch.setenv("PIBLOOM_MAX_QUEUE", "2")
    engine = FakeEngine(byte_tokenizer().ids(" Hello, 你好!"))

    def load(folder: Path, *, limits: Limits, **options: object) -> LoadedModel:
        return fake_model(engine, limits)

    monkeypatch.setattr(loading, "load", load)
    source = ROOT / "functions" / "generate" / "main.py"
    app = functions_framework.create_app("generate", str(source))
    service = app.extensions["pibloom"]
    service.start()
    service.wait(20)
    yield Generate(app.test_client(), engine, service)
    engine.running.set()
    wait_until(lambda: not engine.open or not service.get().scheduler.healthy, 5)
    service.close(0)


@pytest.fixture
def tokenize(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    client: FlaskClient = tokenize_client(monkeypatch)
    return client


@pytest.fixture
def client(generate: Generate) -> Iterator[openai.OpenAI]:
    """OpenAI's package, its requests answered by the function itself."""

    def answer(request: httpx.Request) -> httpx.Response:
        reply = generate.client.open(
            request.url.raw_path.decode(),
            method=request.method,
            headers=dict(request.headers),
            data=request.content,
        )
        return httpx.Response(reply.status_code, headers=dict(reply.headers), content=reply.data)

    with openai.OpenAI(
        base_url="http://pi/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(answer)),
    ) as found:
        yield found


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


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers log errors only: no test reads their output, and a full pipe would stop them."""
    monkeypatch.setenv("PIBLOOM_LOG_LEVEL", "ERROR")
