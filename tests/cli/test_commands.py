"""The commands that answer and end: output, errors as sentences, exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from cli.main import pibloom as commands
from functions import ranges
from model.names import default_model
from tests.foreign import FOREIGN, NOWHERE
from tests.functions.conftest import Generate, generate, start
from tests.functions.servers import Start, free_port, wait_until

__all__ = ["generate", "start"]  # fixtures: the function, and a server, on a fake engine

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


KEY = "sk-a-key-that-nobody-may-see"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(
            (("generate", "a", "--url", url), "is no address like http://127.0.0.1:8081")
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
        (("up", "--host", "a..b"), "is no host"),
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
        (("generate", "\udcff"), "the text is no UTF-8"),
        (("tokenize", "\udcff"), "the text is no UTF-8"),
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


RANGES = {
    "max_new_tokens": ranges.NewTokens,
    "temperature": ranges.Temperature,
    "top_k": ranges.TopK,
    "top_p": ranges.TopP,
    "min_p": ranges.MinP,
    "repetition_penalty": ranges.RepetitionPenalty,
    "seed": ranges.Seed,
}


@pytest.mark.parametrize("name", RANGES)
def test_the_ranges_are_those_of_the_function(name: str, generate: Generate) -> None:
    """At each bound and beside it, by what the function itself says of a body with the value."""
    kind, limits = get_args(RANGES[name])
    step = 1 if kind is int else 1e-6
    low = limits.ge if limits.gt is None else limits.gt
    for value in (low - step, low, low + step, limits.le - step, limits.le, limits.le + step):
        status = generate.post({"prompt": "a", name: value}).status_code
        assert status in (200, 422)
        flag = f"--{name.replace('_', '-')}={value!r}"
        done = CliRunner().invoke(commands, ["generate", "", flag])
        # What gets as far as the empty prompt has passed.
        assert ("the prompt is empty" in done.output) == (status == 200), (flag, done.output)


def test_every_field_of_the_function_has_its_flag(generate: Generate) -> None:
    document = generate.client.get("/openapi.json").json
    fields = document["components"]["schemas"]["GenerateBody"]["properties"]
    flags = pibloom("generate", "--help").stdout
    for name in set(fields) - {"prompt", "messages", "stream"}:
        assert "--" + name.replace("_", "-") in flags


def test_generate_brings_a_key_from_the_environment_or_a_file(start: Start, tmp_path: Path) -> None:
    server = start("Hello", 0.0, PIBLOOM_API_KEYS=f"other,{KEY}")
    wait_until(server.is_ready)
    ask = ("generate", "--url", f"http://127.0.0.1:{server.port}", "Hi")
    (tmp_path / "key").write_text(f"{KEY}\n")
    file = ("--api-key-file", str(tmp_path / "key"))
    for more, environment in (((), {"PIBLOOM_API_KEY": KEY}), (file, {"PIBLOOM_API_KEY": "wrong"})):
        done = pibloom(*ask, *more, **environment)
        assert (done.stdout, done.returncode) == ("Hello\n", 0), done.stderr
    for wrong in ("", "wrong-one"):
        done = pibloom(*ask, PIBLOOM_API_KEY=wrong)
        assert done.returncode == 1
        assert "key" in done.stderr
        assert "wrong-one" not in done.stderr


def test_a_reply_moves_no_cursor_of_a_terminal_and_is_itself_in_a_file(start: Start) -> None:
    reply = "a\x1b[2J\x07\tb\x9b\r\nc"
    server = start(reply, 0.0)
    wait_until(server.is_ready)
    ask = ("generate", "--url", f"http://127.0.0.1:{server.port}", "Hi")
    assert pibloom(*ask).stdout == reply + "\n"
    master, terminal = os.openpty()
    with os.fdopen(master, "rb", buffering=0) as ours:
        subprocess.run(
            [sys.executable, "-m", "cli.main", *ask], stdout=terminal, check=True, timeout=60
        )
        os.close(terminal)
        shown = ours.read(4096)
    assert shown == b"a<U+001B>[2J<U+0007>\tb<U+009B><U+000D>\r\nc\r\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0.0.0.0"])
def test_generate_asks_what_is_here_through_no_proxy(start: Start, host: str) -> None:
    server = start("Hello", 0.0)
    wait_until(server.is_ready)
    proxies = {**FOREIGN["proxies"], "all_proxy": NOWHERE, "ALL_PROXY": NOWHERE}
    for others in (proxies, FOREIGN["proxies"]):
        done = pibloom("generate", "--url", f"http://{host}:{server.port}", "Hi", **others)
        assert done.stdout == "Hello\n", done.stderr


def test_a_proxy_that_cannot_be_used_is_a_sentence() -> None:
    for name, value in (("http_proxy", "nonsense://x"), ("ALL_PROXY", "socks9://x")):
        done = pibloom("generate", "--url", "http://pi.example", "Hi", **{name: value})
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("pibloom: ")


@pytest.mark.parametrize(
    "name", ["[v2] bloom", "[/x]", "[bold]", ":smile:", "a\x1b[31mb", "a\nb", "\u202etxt", "\udcff"]
)
def test_a_name_is_shown_as_it_is_and_moves_no_cursor(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(DEMO, folder)
    shown = pibloom("inspect", str(folder), COLUMNS="400").stdout
    refused = pibloom("inspect", str(folder / "nothing")).stderr
    baked = pibloom(
        "bake", "--tokenizer-only", str(DEMO), "-o", str(tmp_path / f"{name}.bloom")
    ).stderr
    written = pibloom("generate", "Hi", "--model", str(folder), "--max-new-tokens", "1")
    assert written.returncode == 0, written.stderr
    kept = name
    for each in ("\x1b", "\n", "\u202e", "\udcff"):
        kept = kept.replace(each, f"<U+{ord(each):04X}>")
    for text in (shown, refused, baked):
        assert "Traceback" not in text
        assert kept in text
    assert "\x1b" not in written.stderr


def test_a_tilde_is_the_home_folder_where_no_shell_expands_it(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to(DEMO)
    for arguments in (
        ("tokenize", "--json", "Hi", "--model=~/x"),
        ("inspect", "--json", "~/x"),
        ("bake", "--tokenizer-only", "~/x", "-o", "~/t.bloom"),
    ):
        done = pibloom(*arguments, HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "t.bloom").exists()
    assert pibloom("tokenize", "Hi", HOME=str(tmp_path), PIBLOOM_MODEL="~/x").returncode == 0


def test_generate_heeds_the_settings_of_the_model(tmp_path: Path) -> None:
    """An error that names a setting must not be all that comes of it."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    ask = ("generate", "--model", str(folder), *GREEDY, "--chat", "Hello")
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    refused = pibloom(*ask, **cache)
    assert refused.returncode == 3
    assert "PIBLOOM_CHAT_TEMPLATE can name another" in refused.stderr
    done = pibloom(*ask, PIBLOOM_CHAT_TEMPLATE="transcript", PIBLOOM_BITS="4", **cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list((tmp_path / "pibloom").glob("demo-*-w4.bloom"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PIBLOOM_BITS", "5"),
        ("PIBLOOM_THREADS", "many"),
        ("PIBLOOM_KV_MEMORY", "1e9"),
        ("PIBLOOM_ENGINE", "odd"),
        ("PIBLOOM_MODLE", "x"),
    ],
)
def test_generate_names_a_setting_that_cannot_be(name: str, value: str) -> None:
    done = pibloom("generate", "Hi", **{name: value})
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr
