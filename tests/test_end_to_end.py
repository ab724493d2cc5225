"""The whole product on this machine, as `make up` runs it, with the demo model."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.ports import free_port
from tests.ui.test_browser import CHROMIUM, FLAGS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """Ports of the chat and of both functions, all of them ready."""
    found = {name: free_port() for name in ("ui", "generate", "tokenize")}
    command = [sys.executable, "-m", "cli.main", "up", "--port", str(found["ui"])]
    command += ["--generate-port", str(found["generate"])]
    command += ["--tokenize-port", str(found["tokenize"])]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    up = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert any(line.startswith("Chat:") for line in up.stdout)
    yield found
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    for port in found.values():
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)


def post(port: int, path: str, body: object) -> str:
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


def test_the_older_stacks_clients_get_their_answer(ports: dict[str, int]) -> None:
    answer = json.loads(post(ports["generate"], "/chat/", {"content": "What is piBLOOM?"}))
    assert set(answer) == {"data"}
    assert "BLOOM" in answer["data"]


def test_a_stream_adds_up_to_what_the_same_seed_gives_whole(ports: dict[str, int]) -> None:
    body = {"messages": [{"role": "user", "content": "给我讲个故事"}], "seed": 5}
    whole = json.loads(post(ports["generate"], "/", body))
    raw = post(ports["generate"], "/", body | {"stream": True})
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    tokens = [json.loads(line)["text"] for line in lines if '"index":' in line]
    assert "".join(tokens) == whole["text"]
    assert len(tokens) > 5
    assert "\ufffd" not in whole["text"]


def test_both_functions_count_the_same_tokens(ports: dict[str, int]) -> None:
    text = "Hello, 你好, مرحبا"
    counted = json.loads(post(ports["tokenize"], "/", {"text": text}))["count"]
    body = {"prompt": text, "max_new_tokens": 1}
    assert json.loads(post(ports["generate"], "/", body))["usage"]["prompt_tokens"] == counted


def test_a_newcomer_asks_in_the_browser_and_reads_an_answer(ports: dict[str, int]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{ports['ui']}")
        page.get_by_role("textbox").first.fill("What is the capital of France?")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Paris").first).to_be_visible(timeout=30_000)
        browser.close()
