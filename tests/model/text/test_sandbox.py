"""A chat template of a hostile checkpoint costs little, and ends in a sentence."""

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.errors import ModelError
from model.text.chat import ChatError, ChatTemplate
from tests.model.text.hostile_templates import HOSTILE

MEMORY = 512 << 20  # bytes that a template may add to the process
SECONDS = 20  # of the processor; a machine that does much else is slow
REPO = Path(__file__).parents[3]


def attempt(name: str) -> dict[str, Any]:
    """Try one template in a process of its own that may not grow or run for long."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        return json.loads(said) if said else {"ended": f"by status {status}"}
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        ChatTemplate(HOSTILE[name])
        ended = "taken"
    except ModelError as error:
        ended = f"refused: {error}"
    except BaseException as error:
        ended = f"{type(error).__name__}: {str(error)[:200]}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {"ended": ended, "seconds": time.process_time(), "peak": peak}
    with os.fdopen(writing, "w") as file:
        json.dump(result, file)
    os._exit(0)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.model.text.test_sandbox"],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_refused_with_a_sentence(
    name: str, outcomes: dict[str, dict[str, Any]]
) -> None:
    ended = outcomes[name]["ended"]
    assert ended.startswith("refused: the chat template "), ended
    assert len(ended) < 500
    assert "MemoryError" not in ended


@pytest.mark.parametrize("expression", ["'a' * 10**9", "1 / 0", "messages[5].x", "10 ** 5000"])
def test_what_a_template_does_to_certain_messages_only_is_refused_with_them(
    expression: str,
) -> None:
    source = "{% if messages[0].content == 'go' %}{{ " + expression + " }}{% endif %}x"
    chat = ChatTemplate(source)
    assert chat.render([{"role": "user", "content": "stay"}]) == "x"
    with pytest.raises(ChatError, match="refuses these messages"):
        chat.render([{"role": "user", "content": "go"}])


def test_each_rendering_has_a_budget_of_its_own() -> None:
    chat = ChatTemplate("{{ messages[0].content }}{{ 'a' * 3000000 }}")
    asked = [{"role": "user", "content": "hi"}]
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: chat.render(asked), range(40)))
    assert {len(text) for text in texts} == {3_000_002}


if __name__ == "__main__":
    print(json.dumps({name: attempt(name) for name in HOSTILE}))
