"""The command line as a whole: help, errors as sentences, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import pibloom as commands
from tests.cli.commands import DEMO, pibloom
from tests.ports import free_port

KEY = "sk-a-key-that-nobody-may-see"


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'nicegui', 'flask', 'tokenizers', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    for command in ("up", "generate", "tokenize", "eval", "inspect"):
        assert f"  {command}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["up", "generate", "tokenize", "eval", "inspect"])
def test_each_commands_help_has_examples(command: str) -> None:
    done = pibloom(command, "--help")
    assert done.returncode == 0
    assert f"pibloom {command}" in done.stdout.partition("Examples:")[2]


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
        (("up", "--cors-origins", "foo"), 2, "'foo' is not an origin"),
        (("up", "--api-keys-file", "/nothing/here"), 2, "cannot be read"),
        (("up", "--chat-template", "/nothing/here"), 3, "not a chat template"),
        (("inspect", "README.md"), 3, "README.md is not a folder"),
        (("generate", "--url", "http://127.0.0.1:9", "--model", "m.bloom", "a"), 2, "--model"),
        (
            ("up", "ui", "generate", "--port", "9000", "--generate-port", "9000"),
            1,
            "--generate-port",
        ),
        (("up", "dance"), 2, "dance"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_a_sentence(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    if arguments[0] == "up" and "--port" not in arguments:
        ports = {flag: free_port() for flag in ("--port", "--generate-port", "--tokenize-port")}
        arguments += tuple(f"{flag}={port}" for flag, port in ports.items())
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(
            (("generate", "a", "--url", url), "is not an address like http://127.0.0.1:8081")
            for url in (
                "http://[::1",
                "http://[::1]:x",
                "http://",
                "http:///path",
                "http://:8081",
                "http://127.0.0.1:99999",
                "http://127.0.0.1:0",
                "http://127.0.0.1:-1",
                "http://a b",
                "http://a\nb",
                "http://\udcff",
                "http://" + "a" * 64 + ".example",
                "http://a..b",
                "http://x/?a=b",
                "http://x/#a",
                "ftp://127.0.0.1",
                "file:///etc/passwd",
                "127.0.0.1:8081",
                "//127.0.0.1",
                " ",
            )
        ),
        (("generate", "a", "--url", f"http://me:{KEY}@x"), "must hold no name or password"),
        *(
            (("generate", "a", flag, ""), "it is given, but empty")
            for flag in ("--url", "--model", "--api-key-file", "--stop")
        ),
        (("tokenize", "a", "--model="), "it is given, but empty"),
        (("inspect", ""), "it is given, but empty"),
        (("bake", ""), "it is given, but empty"),
        (("bake", "a", "-o", ""), "it is given, but empty"),
        *(
            (("up", flag, ""), "it is given, but empty")
            for flag in ("--host", "--model", "--api-keys-file", "--cors-origins")
        ),
        (("up", "--port", ""), "--port"),
        (("up", "--start-timeout", "nan"), "--start-timeout"),
        (("up", "--host", "a..b"), "is not a host"),
        (("generate", "a", "--model", "~nobody-of-this-name/x"), "home folder"),
        (("inspect", "~nobody-of-this-name/x"), "home folder"),
        *(
            (("up", *flag), "set PIBLOOM_API_KEYS instead, or name a file by --api-keys-file")
            for flag in (("--api-keys", KEY), (f"--api-keys={KEY}",))
        ),
        *(
            (
                ("generate", "a", *flag),
                "set PIBLOOM_API_KEY instead, or name a file by --api-key-file",
            )
            for flag in (("--api-key", KEY), (f"--api-key={KEY}",))
        ),
        (("generate", "a", "--api-key-file", "keys"), "is for a function, which --url names"),
        (("generate", "a", "--url", "http://x", "--api-key-file", "/no"), "cannot be read"),
        (("generate", "a", "--url", "http://x", "--api-key-file", "/"), "cannot be read"),
        (("generate", "a", "--url", "http://x", "--api-key-file", "/dev/null"), "holds no key"),
        (("generate", "a", "--stop", "x" * 65), "64 are the most"),
        (("generate", "a", *["--stop=x"] * 9), "8 are the most"),
        (("generate", "\udcff"), "the text is not UTF-8"),
        (("tokenize", "\udcff"), "the text is not UTF-8"),
    ],
    ids=lambda value: ascii(" ".join(value))[:60] if isinstance(value, tuple) else "",
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_done(
    arguments: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(commands, list(arguments))
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert said in " ".join(done.output.split())
    assert KEY not in done.output
