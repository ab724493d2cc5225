"""The commands that answer and end: output, errors as sentences, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.loader import default_model
from tests.functions.test_server import Start, start, wait_until

__all__ = ["start"]  # the fixture of a server on a fake engine

DEMO = default_model()
GREEDY = ("--temperature", "0", "--max-new-tokens", "12")


def pibloom(
    *arguments: str, stdin: str | bytes = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        input=data,
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'nicegui', 'flask', 'tokenizers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    for command in ("up", "generate", "tokenize", "inspect"):
        assert f"  {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["up", "generate", "tokenize", "inspect"])
def test_each_commands_help_has_examples(command: str) -> None:
    done = pibloom(command, "--help")
    assert done.returncode == 0
    assert f"pibloom {command}" in done.stdout.partition("Examples:")[2]


def test_tokenize_shows_a_table() -> None:
    done = pibloom("tokenize", "Hello, 你好")
    assert done.returncode == 0
    assert "你好" in done.stdout
    assert "·" in done.stdout
    assert done.stdout.rstrip().endswith("tokens")


def test_tokenize_sends_no_control_characters_to_the_terminal() -> None:
    shown = pibloom("tokenize", "a\x1b[2J\x07").stdout
    assert "<U+001B>" in shown
    assert "<U+0007>" in shown
    assert "\x1b" not in shown


def test_tokenize_reads_stdin_and_prints_json() -> None:
    found = json.loads(pibloom("tokenize", "--json", stdin="Hello").stdout)
    assert found["count"] == len(found["ids"]) == len(found["offsets"])
    assert "".join(found["pieces"]) == "Hello"


def test_inspect_tells_what_a_checkpoint_holds() -> None:
    table = pibloom("inspect", "--tensors").stdout
    assert "8,416,256" in table
    assert "h.7.mlp.dense_4h_to_h.weight" in table
    facts = json.loads(pibloom("inspect", "--json").stdout)
    assert (facts["parameters"], facts["license"]) == (8_416_256, "apache-2.0")
    assert sum(tensor["bytes"] for tensor in facts["tensors"]) == facts["weights_bytes"]


def test_generate_streams_the_same_text_as_its_json() -> None:
    text = pibloom("generate", "--chat", "Hello", *GREEDY).stdout
    reply = json.loads(pibloom("generate", "--chat", "--json", *GREEDY, stdin="Hello").stdout)
    assert reply["text"] + "\n" == text
    assert reply["usage"]["completion_tokens"] <= 12


def test_generate_asks_a_running_function(start: Start) -> None:
    server = start("Hello, 你好!", 0.0)
    wait_until(server.is_ready)
    url = f"http://127.0.0.1:{server.port}"
    assert pibloom("generate", "--url", url, "Hi").stdout == "Hello, 你好!\n"
    refused = pibloom("generate", "--url", url, "x" * 3000)
    assert refused.returncode == 1
    assert "context" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("inspect", "/nothing/here"), 3, "/nothing/here"),
        (("tokenize", "--model", "/nothing/here", "a"), 3, "tokenizer.json"),
        (("generate", "--model", "/nothing/here", "a"), 3, "/nothing/here"),
        (("generate", "a", "--temperature", "9"), 2, "temperature"),
        (("generate", "a", "--temperature", "nan"), 2, "temperature"),
        (("generate", ""), 2, "empty"),
        (("generate", "--url", "http://127.0.0.1:9", "a"), 1, "127.0.0.1:9"),
        (("generate", "--url", "nonsense", "a"), 2, "nonsense"),
        (("dance",), 2, "dance"),
        (("up", "--model", "/nothing/here"), 3, "/nothing/here"),
        (("up", "--port", "0"), 2, "port"),
        (("up", "--cors-origins", "foo"), 2, "'foo' is no origin"),
        (("up", "--api-keys-file", "/nothing/here"), 2, "cannot be read"),
        (("up", "--chat-template", "/nothing/here"), 3, "no chat template"),
        (("inspect", "README.md"), 3, "README.md is no folder"),
        (("generate", "--url", "http://127.0.0.1:9", "--model", "m.bloom", "a"), 2, "--model"),
        (("up", "--port", "9000", "--generate-port", "9000"), 1, "--generate-port"),
        (("up", "dance"), 2, "dance"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = pibloom(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tokenizer_alone_writes_nothing(tmp_path: Path) -> None:
    file = str(tmp_path / "tokenizer.bloom")
    assert pibloom("bake", str(DEMO), "--tokenizer-only", "-o", file).returncode == 0
    for command in (("generate", "--model", file, "a"), ("up", "--model", file)):
        done = pibloom(*command)
        assert done.returncode == 3
        assert "only a tokenizer" in done.stderr
    assert json.loads(pibloom("tokenize", "--model", file, "--json", "a").stdout)
    before = Path(file).read_bytes()
    assert pibloom("bake", file, "--tokenizer-only", "-o", file).returncode == 3
    assert Path(file).read_bytes() == before


def test_input_that_is_no_text_is_refused() -> None:
    done = pibloom("tokenize", stdin=b"\xff\xfe")
    assert done.returncode == 2
    assert "UTF-8" in done.stderr


def test_a_checkpoint_that_lost_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    done = pibloom("inspect", str(tmp_path))
    assert done.returncode == 3
    assert "gpt2" in done.stderr


def test_a_reader_that_leaves_causes_no_noise() -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "inspect", "--tensors"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.close()
    assert writer.wait(60) in (0, 1)
    assert writer.stderr is not None
    assert b"Traceback" not in writer.stderr.read()
