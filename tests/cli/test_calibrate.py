"""`pibloom bake --calibrate`: what it refuses; the calibration itself is tested elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from model.names import default_model

ROOT = Path(__file__).parents[2]


def pibloom(*arguments: object, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, input=given, timeout=120)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"much too short", b"has 4 tokens; at least 2048 are needed"),
        (b"", b"has 0 tokens"),
        (b"\xff\xfe", b"standard input is not UTF-8 text"),
    ],
)
def test_a_text_that_is_of_no_use_is_refused(text: bytes, said: bytes, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    output = tmp_path / "m.bloom"
    done = pibloom("bake", default_model(), "--calibrate", "-", "-o", output, given=text)
    assert said in b" ".join(done.stderr.split())
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_text_without_calibrate_is_wrong_usage(tmp_path: Path) -> None:
    done = pibloom("bake", default_model(), "notes.txt", "-o", tmp_path / "m.bloom")
    assert done.returncode == 2
    assert b"notes.txt: a text is for --calibrate" in done.stderr


def test_without_torch_it_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None\nfrom cli.main import main; main()"
    command = [sys.executable, "-c", program, "bake", default_model(), "--calibrate"]
    done = subprocess.run(
        [*map(str, command), "-o", str(tmp_path / "m.bloom")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "--calibrate needs torch; install the extra 'reference'" in done.stderr
    assert done.returncode != 0
    assert not list(tmp_path.iterdir())
