"""`pibloom eval` from the command line: what it prints, and what bad input gets."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from cli.bake import bake as bake_command
from cli.eval import eval
from cli.main import FAILURE, REFUSED
from model.baked.bake import bake, bake_tokenizer_only
from model.checkpoint.folder import Checkpoint
from model.names import default_model
from tests.cli.commands import pibloom

DEMO = default_model()
QUICK = ("--tokens", "60", "--window", "32", "--threads", "1", "--no-speed")
USAGE = click.UsageError.exit_code


def run(*arguments: object) -> Result:
    return CliRunner().invoke(eval, list(map(str, arguments)))


def facts(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("eval") / "four.bloom"
    bake(Checkpoint.open(DEMO), path, bits=4)
    return path


def test_a_folder_is_compared_with_itself_in_float32() -> None:
    found = facts()
    assert (found["model"]["bits"], found["against"]["bits"]) == (8, 32)
    assert found["scored"] == 59
    assert math.isclose(found["perplexity"], found["against_perplexity"], rel_tol=0.01)
    assert 0 < found["divergence"]["median"] < found["divergence"]["percentile_99"] < 0.01
    assert 0.9 < found["agreement"] <= 1
    assert found["stride"] == 16
    assert "held-out text" in found["texts"][0]["name"]


def test_fewer_bits_lose_more(four_bits: Path) -> None:
    eight, four = facts(DEMO), facts(four_bits, "--against", DEMO)
    assert four["divergence"]["mean"] > 2 * eight["divergence"]["mean"]
    assert four["model"]["bits_a_weight"] < eight["model"]["bits_a_weight"]
    assert four["against_perplexity"] == eight["against_perplexity"]
    assert facts(DEMO, "--bits", "4") == four | {
        "model": four["model"] | {"file": facts(DEMO, "--bits", "4")["model"]["file"]}
    }


def test_two_files_are_compared(four_bits: Path) -> None:
    found = facts(four_bits, "--against", four_bits)
    assert abs(found["divergence"]["mean"]) < 1e-12
    assert found["agreement"] == 1


def test_a_baked_file_alone_is_compared_with_nothing(four_bits: Path) -> None:
    assert facts(four_bits)["divergence"] is None
    assert facts(DEMO, "--alone")["against"] is None
    assert facts(DEMO, "--bits", "32")["against"] is None
    done = run(four_bits, *QUICK)
    assert "perplexity" in done.stdout
    assert "--against" in done.stderr


def test_a_comparison_is_advised_where_it_would_say_what_rounding_cost(tmp_path: Path) -> None:
    small, words = tmp_path / "small.bloom", tmp_path / "words.txt"
    words.write_text("Hello there")
    baked = CliRunner().invoke(
        bake_command, [str(DEMO), "--keep-tokens-of", str(words), "-o", str(small)]
    )
    assert baked.exit_code == 0, baked.stderr
    done = run(small, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "--against" not in done.stderr, "the whole model has another tokenizer: it is refused"


def test_a_model_of_the_hubs_cache_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "models--org--little" / "snapshots" / ("0123456789" * 4)
    shutil.copytree(DEMO, folder)
    assert "baking little at 8 bits" in run(folder, *QUICK, "--alone").stderr


def test_texts_are_scored_apart_and_together(four_bits: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("User: Hello\nAssistant: Hello! How can I help you?</s>")
    (tmp_path / "b.txt").write_text("User: 你好\nAssistant: 你好!", encoding="utf-8")
    found = facts(four_bits, "--text", tmp_path / "a.txt", "--text", tmp_path / "b.txt")
    first, second = found["texts"]
    assert found["scored"] == first["scored"] + second["scored"]
    losses = [each["scored"] * math.log(each["perplexity"]) for each in (first, second)]
    assert math.isclose(found["scored"] * math.log(found["perplexity"]), sum(losses))
    sizes = [found_loss / math.log(2) / each["bits_a_byte"] for each, found_loss in zip(
        (first, second), losses, strict=True)]  # fmt: skip
    assert math.isclose(sum(losses) / math.log(2) / found["bits_a_byte"], sum(sizes))
    table = run(four_bits, "--text", tmp_path / "a.txt", "--text", tmp_path / "b.txt", *QUICK)
    assert table.stdout.count("perplexity") == 3


def test_speed_is_measured(four_bits: Path) -> None:
    done = run(four_bits, "--tokens", 40, "--window", 100, "--threads", 1, "--json")
    speed = json.loads(done.stdout)["speed"]
    assert speed["read"] == 36
    assert min(speed["prefill"], speed["decode"]) > 0


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_shows_each_layer(four_bits: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / f"errors.{suffix}"
    assert run(four_bits, *QUICK, "--plot", plot).exit_code == 0
    assert plot.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    if suffix == "svg":
        assert "attention's output" in plot.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [plot.name]


def text_file(folder: Path, data: bytes) -> Path:
    (folder / "text.txt").write_bytes(data)
    return folder / "text.txt"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\xff\xfe not UTF-8", "is not UTF-8"),
        (b"a", "too short"),
        (None, "cannot be read"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / "text.txt" if data is None else text_file(tmp_path, data)
    done = run("--text", path, "--alone")
    assert done.exit_code == USAGE
    assert said in done.stderr
    assert "text.txt" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--text", "."), "is a folder"),
        (("--window", 1025, "--alone"), "context 1024"),
        (("--window", 32, "--stride", 33, "--alone"), "--stride is 33"),
        (("--window", 1), "--window"),
        (("--stride", 0), "--stride"),
        (("--tokens", 1), "--tokens"),
        (("--alone", "--against", DEMO), "--alone"),
        (("--plot", "errors.pdf"), ".png or .svg"),
        (("--plot", "/nothing/here/errors.png"), "cannot be a file"),
        (("--bits", 32, "--plot", "errors.png"), "no rounding errors"),
        (("--bits", 5), "--bits"),
    ],
)
def test_wrong_usage_is_named(arguments: tuple[object, ...], said: str) -> None:
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    done = run(*arguments)
    assert done.exit_code == USAGE, done.output
    assert said in done.stderr


def test_bits_of_a_baked_file_are_its_own(four_bits: Path) -> None:
    done = run(four_bits, "--bits", "8")
    assert done.exit_code == USAGE
    assert "has its own" in done.stderr


def test_another_tokenizer_is_refused(four_bits: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(DEMO, tmp_path / "other"))
    data = json.loads((other / "tokenizer.json").read_text())
    data["model"]["merges"] = data["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(data))
    done = run(four_bits, "--against", other)
    assert done.exit_code == REFUSED
    assert "other has another tokenizer than" in done.stderr
    assert "baking" not in done.stderr, "it is refused before minutes are spent on a copy"


def test_standard_input_is_a_text(four_bits: Path) -> None:
    found = pibloom(
        "eval", str(four_bits), "--text", "-", *QUICK, "--json", stdin="Hello there, you."
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["texts"][0]["tokens"] > 2


def test_models_that_cannot_be_used(tmp_path: Path) -> None:
    bake_tokenizer_only(DEMO, tmp_path / "tokenizer.bloom")
    (tmp_path / "empty.bloom").touch()
    for name in ("tokenizer.bloom", "empty.bloom", "missing.bloom", "no-folder"):
        for arguments in ((tmp_path / name,), (DEMO, "--against", tmp_path / name)):
            done = run(*arguments)
            assert done.exit_code == REFUSED, done.output
            assert name in done.stderr


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    done = run("--plot", "errors.png")
    assert done.exit_code == FAILURE
    assert "extra 'plot'" in done.stderr


def test_it_needs_no_torch(four_bits: Path) -> None:
    done = pibloom("eval", str(four_bits), *QUICK, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    for package in ("torch", "numpy", "matplotlib", "transformers"):
        assert f" {package}\n" not in done.stderr
