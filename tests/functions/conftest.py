"""Both functions as Flask test clients, `generate` on a fake engine."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import functions_framework
import pytest
from flask.testing import FlaskClient

from functions.service import Service
from model import loader
from tests.fakes import FakeEngine, byte_tokenizer, fake_model

ROOT = Path(__file__).parents[2]


@dataclass
class Generate:
    """The function `generate`, and the engine under it."""

    client: FlaskClient
    engine: FakeEngine
    service: Service[Any]
    gate: threading.Event  # clear it before the first request to hold the loading

    def post(self, body: object = None, **options: Any) -> Any:
        return self.client.post("/", json=body, **options)


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Generate]:
    monkeypatch.setenv("PIBLOOM_MAX_BATCH", "2")
    monkeypatch.setenv("PIBLOOM_MAX_QUEUE", "2")
    engine = FakeEngine(byte_tokenizer().ids(" Hello, 你好!"))
    gate = threading.Event()
    gate.set()

    def load(folder: Path, **options: object) -> loader.Model:
        gate.wait(20)
        return fake_model(engine, **options)

    monkeypatch.setattr(loader, "load", load)
    source = ROOT / "functions" / "generate" / "main.py"
    app = functions_framework.create_app("generate", str(source))
    service = app.extensions["pibloom"]
    service.start()
    service.wait(20)
    yield Generate(app.test_client(), engine, service, gate)
    gate.set()
    engine.running.set()
    service.close(0)
    assert not engine.open, "a generation outlived its request"


@pytest.fixture
def tokenize() -> FlaskClient:
    source = ROOT / "functions" / "tokenize" / "main.py"
    app = functions_framework.create_app("tokenize", str(source))
    service = app.extensions["pibloom"]
    service.start()
    service.wait(20)
    client: FlaskClient = app.test_client()
    return client
