"""`pibloom bake` with a cut vocabulary: what it shows, writes and refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.baked.file import BakedModel
from model.names import default_model
from tests.cli.commands import pibloom as with_input

ROOT = Path(__file__).parents[2]


def pibloom(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def report(*arguments: object) -> Any:
    done = pibloom("bake", default_model(), *arguments, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["cut"]


def test_a_dry_run_shows_what_changes_and_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "m.bloom"
    done = pibloom(
        "bake", default_model(), "--keep-scripts", "latn,Deva", "--dry-run", "-o", output
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["Latin", "2,670", "2,670", "="] in lines
    assert "dropped whole" in done.stdout
    assert ["English", "51", "51", "="] in lines
    assert any(line[0] == "Arabic" and line[3].startswith("+") for line in lines if len(line) == 4)
    assert not list(tmp_path.iterdir())


def test_what_is_shown_is_what_is_written(tmp_path: Path) -> None:
    output = tmp_path / "m.bloom"
    done = pibloom("bake", default_model(), "--keep-scripts", "Latin", "--json", "-o", output)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["cut"] == report("--keep-scripts", "Latin")
    assert len(shown["errors"]) == 33
    size = output.stat().st_size - len(json.dumps(BakedModel(output).metadata, ensure_ascii=False))
    assert abs(size - shown["cut"]["file_bytes"]["after"]) < 2 * 4096
    assert BakedModel(output).n_vocab == shown["cut"]["entries"]["after"]
    described = json.loads(pibloom("inspect", output, "--json").stdout)
    assert described["cut"]["kept"] == ["Latin"]
    assert described["cut"]["entries_after"] == shown["cut"]["entries"]["after"]


def test_standard_input_is_a_text() -> None:
    cut = ("bake", str(default_model()), "--keep-tokens-of", "-", "--dry-run", "--json")
    found = with_input(*cut, stdin="Hello, my world")
    assert found.returncode == 0, found.stderr
    assert 256 < json.loads(found.stdout)["cut"]["entries"]["after"] < 1000


def test_scripts_and_texts_add_up(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("你好,世界 of the world")
    by_scripts = report("--keep-scripts", "Arabic")["entries"]["after"]
    by_text = report("--keep-tokens-of", text)["entries"]["after"]
    both = report("--keep-scripts", "Arabic", "--keep-tokens-of", text)
    assert by_text < by_scripts < both["entries"]["after"] < by_text + by_scripts
    assert both["scripts"]["Han"]["after"] > 0


def test_the_tokenizer_alone_is_cut_as_its_model_is(tmp_path: Path) -> None:
    model, alone, taken = (tmp_path / f"{name}.bloom" for name in ("model", "alone", "taken"))
    cut = ("--keep-scripts", "Arabic", "--chat-template", "belle")
    for arguments in (
        (default_model(), *cut, "-o", model),
        (default_model(), *cut, "--tokenizer-only", "-o", alone),
        (model, "--tokenizer-only", "-o", taken),
    ):
        done = pibloom("bake", *arguments)
        assert done.returncode == 0, done.stderr
    of_model, *others = (BakedModel(path).tokenizer().compiled for path in (model, alone, taken))
    assert others == [of_model, of_model]
    kept = json.loads(pibloom("inspect", alone, "--json").stdout)["cut"]
    assert kept == json.loads(pibloom("inspect", model, "--json").stdout)["cut"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keep-scripts", "Latin,Arabik"), "no script 'Arabik'; did you mean Arabic"),
        (("--keep-scripts", ""), "no script ''"),
        (("--keep-scripts", "Runic"), "nothing would be kept"),
        (("--keep-tokens-of", "{empty}"), "nothing would be kept"),
        (("--keep-tokens-of", "{empty}", "--tokenizer-only"), "nothing would be kept"),
        (("--keep-tokens-of", "{binary}"), "binary.txt is not UTF-8 text"),
        (("--keep-tokens-of", "{missing}"), "missing.txt cannot be read"),
        (("--dry-run",), "--dry-run shows what --keep-scripts or --keep-tokens-of changes"),
    ],
)
def test_a_cut_that_cannot_be_made_is_wrong_usage(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    named = {name: tmp_path / f"{name}.txt" for name in ("empty", "binary", "missing")}
    given = [argument.format(**named) for argument in arguments]
    done = pibloom("bake", default_model(), *given, "-o", tmp_path / "m.bloom")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("m.bloom*"))


@pytest.mark.parametrize("further", [(), ("--tokenizer-only",)])
def test_a_template_that_cannot_be_used_is_refused_with_a_cut_too(
    tmp_path: Path, further: tuple[str, ...]
) -> None:
    cut = ("--keep-scripts", "Latin", "--chat-template", "nonsense")
    done = pibloom("bake", default_model(), *cut, *further, "-o", tmp_path / "m.bloom")
    assert done.returncode == 3
    assert "nonsense is not a chat template" in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.glob("m.bloom*"))


def test_a_baked_model_is_not_cut(tmp_path: Path) -> None:
    whole = tmp_path / "whole.bloom"
    assert pibloom("bake", default_model(), "--tokenizer-only", "-o", whole).returncode == 0
    done = pibloom(
        "bake", whole, "--tokenizer-only", "--keep-scripts", "Latin", "-o", tmp_path / "m.bloom"
    )
    assert done.returncode == 2
    assert "is baked, and a vocabulary is cut when" in done.stderr
    assert not (tmp_path / "m.bloom").exists()
