"""Input and output that the commands share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import DEMO, pibloom
from tests.functions.servers import Start, wait_until


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
