"""`pibloom inspect` says "whole" only of what would be served."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.inspect import inspect
from model.baked.bake import bake
from model.checkpoint.folder import Checkpoint
from model.names import default_model
from tests.cli.commands import pibloom

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

Change = Callable[[Path], None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(default_model(), tmp_path / "bloom"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(inspect, list(map(str, arguments)))


def rewrite(folder: Path, **fields: object) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def with_weights(change: Callable[[dict[str, Any]], None]) -> Change:
    def rewritten(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return rewritten


def other_head(weights: dict[str, Any]) -> None:
    weights["lm_head.weight"] = weights["transformer.word_embeddings.weight"] * 2


def not_finite(weights: dict[str, Any]) -> None:
    weights["transformer.h.0.mlp.dense_4h_to_h.weight"][0, 0] = float("nan")


def tiny(weights: dict[str, Any]) -> None:
    name = "transformer.h.0.mlp.dense_4h_to_h.weight"
    weights[name] = weights[name].float() * 1e-9


def one_more(weights: dict[str, Any]) -> None:
    weights["score.weight"] = torch.zeros(2, 256)


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")


REFUSED: dict[str, tuple[Change, bool]] = {  # and whether only --verify finds it
    "a head for another task": (with_weights(one_more), False),
    "an adapter": (adapter, False),
    "a template that cannot be used": (template, False),
    "a weight that is no number": (with_weights(not_finite), True),
    "tiny weights": (with_weights(tiny), True),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_not_be_served_is_not_whole(copy: Path, case: str) -> None:
    change, deep = REFUSED[case]
    change(copy)
    done = run(copy, "--verify")
    assert done.exit_code == 3
    assert "whole" not in done.output
    if deep:
        assert "--verify reads the rest" in run(copy).output
    else:
        assert run(copy).exit_code == 3


@pytest.mark.parametrize("own", [True, False])
def test_an_output_head_of_its_own_is_shown(copy: Path, tmp_path: Path, own: bool) -> None:
    if own:
        with_weights(other_head)(copy)
    baked = tmp_path / "m.bloom"
    bake(Checkpoint.open(copy), baked)
    for path in (copy, baked):
        facts = json.loads(run(path, "--json", "--tensors").output)
        assert facts["output_head"] == ("a matrix of its own" if own else "the word embedding")
        assert any(row["name"].startswith("lm_head.") for row in facts["tensors"]) == own
    errors = {row["name"]: row["relative_error"] for row in facts["tensors"]}
    assert not own or 0 < errors["lm_head.high"] == errors["word_embeddings.high"]


def test_ends_and_notes_are_shown(copy: Path, tmp_path: Path) -> None:
    rewrite(copy, eos_token_id=[2, 7], num_beams=4)
    baked = tmp_path / "m.bloom"
    bake(Checkpoint.open(copy), baked)
    for path in (copy, baked):
        facts = json.loads(run(path, "--json").output)
        assert facts["eos_token_ids"] == [2, 7]
        assert any("num_beams" in note for note in facts["notes"])
        assert "2, 7" in run(path).output
    assert "whole, every" in run(copy, "--verify").output


def test_a_model_without_an_adapter_names_none(tmp_path: Path) -> None:
    baked = tmp_path / "m.bloom"
    bake(Checkpoint.open(default_model()), baked)
    assert not re.search("^adapter", run(baked).output, re.MULTILINE)
    assert json.loads(run(baked, "--json").output)["adapter"] is None


@pytest.mark.parametrize("columns", [1, 5, 20, 40])
def test_a_narrow_terminal_still_shows_the_facts(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = run().output
    assert "architecture" in said
    assert "BLOOM" in said


def test_inspect_tells_what_a_checkpoint_holds() -> None:
    table = pibloom("inspect", "--tensors").stdout
    assert "8,416,256" in table
    assert "h.7.mlp.dense_4h_to_h.weight" in table
    facts = json.loads(pibloom("inspect", "--json").stdout)
    assert (facts["parameters"], facts["license"]) == (8_416_256, "apache-2.0")
    assert sum(tensor["bytes"] for tensor in facts["tensors"]) == facts["weights_bytes"]


def test_a_checkpoint_that_lost_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    done = pibloom("inspect", str(tmp_path))
    assert done.returncode == 3
    assert "gpt2" in done.stderr
