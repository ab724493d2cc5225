"""`pibloom tokenize`."""

import json

from tests.cli.commands import pibloom


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


def test_input_that_is_no_text_is_refused() -> None:
    done = pibloom("tokenize", stdin=b"\xff\xfe")
    assert done.returncode == 2
    assert "UTF-8" in done.stderr
