"""`pibloom bake` with an adapter: what it takes and refuses; the weights are tested elsewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.names import default_model
from model.text.presets import PRESETS

ROOT = Path(__file__).parents[2]
MODULE = "h.0.self_attention.query_key_value"


def pibloom(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """One that adds nothing to the demo model, so that the weights stay the same."""
    folder = tmp_path / "lora"
    folder.mkdir()
    described = {
        "peft_type": "LORA",
        "base_model_name_or_path": "pibloom/pibloom-demo",
        "r": 2,
        "lora_alpha": 4,
    }
    (folder / "adapter_config.json").write_text(json.dumps(described))
    out, in_ = Checkpoint.open(default_model()).config.shapes()[f"{MODULE}.weight"]
    prefix = f"base_model.model.transformer.{MODULE}"
    weights = {
        f"{prefix}.lora_A.weight": torch.ones(2, in_),
        f"{prefix}.lora_B.weight": torch.zeros(out, 2),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_merged_and_named(adapter: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bloom"
    done = pibloom("bake", default_model(), "--adapter", adapter, "-o", path)
    assert done.returncode == 0, done.stderr
    assert BakedModel(path).metadata["name"] == "pibloom-demo+lora"
    assert json.loads(pibloom("inspect", path, "--json").stdout)["adapter"] == {
        "name": "lora",
        "base": "pibloom/pibloom-demo",
        "rank": 2,
    }
    shown = pibloom("inspect", path).stdout
    assert re.search(r"adapter +lora, rank 2, trained on pibloom/pibloom-demo *\n", shown)


def test_an_adapter_of_another_model_is_refused_unless_it_is_wanted(
    adapter: Path, tmp_path: Path
) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace("pibloom-demo", "bloomz-560m"))
    path = tmp_path / "model.bloom"
    refused = pibloom("bake", default_model(), "--adapter", adapter, "-o", path)
    assert refused.returncode == 3
    assert "was trained on 'pibloom/bloomz-560m', and this is pibloom-demo" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.bloom*"))
    assert pibloom(*refused.args[3:], "--any-base").returncode == 0


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (("--adapter", "lora"), "one adapter is merged at a time"),
        (("--tokenizer-only",), "an adapter has no tokenizer"),
    ],
)
def test_what_has_no_meaning_is_wrong_usage(
    adapter: Path, tmp_path: Path, further: tuple[str, ...], said: str
) -> None:
    output = tmp_path / "m.bloom"
    done = pibloom("bake", default_model(), "--adapter", adapter, *further, "-o", output)
    assert done.returncode == 2
    assert said in done.stderr
    assert not output.exists()


def test_a_chat_template_can_be_baked_in(tmp_path: Path) -> None:
    path = tmp_path / "model.bloom"
    done = pibloom("bake", default_model(), "--chat-template", "belle", "-o", path)
    assert done.returncode == 0, done.stderr
    assert BakedModel(path).metadata["chat_template"] == PRESETS["belle"]
    shown = json.loads(pibloom("inspect", path, "--json").stdout)
    assert shown["chat_template"] == "the preset belle"
    of_folder = json.loads(pibloom("inspect", default_model(), "--json").stdout)
    assert of_folder["chat_template"] == "the model's own"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("nonsense", "nonsense is not a chat template (transcript, instruction, belle, "),
        ("broken.jinja", "broken.jinja: the chat template cannot be used"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_not_baked_in(
    tmp_path: Path, template: str, said: str
) -> None:
    (tmp_path / "broken.jinja").write_text("{{ 1 / 0 }}")
    named = tmp_path / template if template.endswith(".jinja") else template
    done = pibloom("bake", default_model(), "--chat-template", named, "-o", tmp_path / "m.bloom")
    assert done.returncode == 3
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("m.bloom*"))


@pytest.mark.parametrize(
    "given", [{"PIBLOOM_BAKED_BY": "Ada"}, {"SOURCE_DATE_EPOCH": "1700000000"}]
)
def test_who_and_when_are_told_only_where_they_are_given(
    tmp_path: Path, given: dict[str, str]
) -> None:
    path = tmp_path / "model.bloom"
    done = pibloom("bake", default_model(), "--tokenizer-only", "-o", path, **given)
    assert done.returncode == 0, done.stderr
    card = json.loads(pibloom("inspect", path, "--json").stdout)
    assert card["baked_by"] == given.get("PIBLOOM_BAKED_BY")
    dates = {"1700000000": "2023-11-14T22:13:20Z", "": None}
    assert card["baked_on"] == dates[given.get("SOURCE_DATE_EPOCH", "")]


@pytest.mark.parametrize("date", ["today", "1e3", "9" * 40, "1.5"])
def test_a_date_that_is_none_is_wrong_usage(tmp_path: Path, date: str) -> None:
    path = tmp_path / "model.bloom"
    done = pibloom("bake", default_model(), "-o", path, SOURCE_DATE_EPOCH=date)
    assert done.returncode == 2
    assert done.stderr.endswith("must be a whole number of seconds since 1970\n")
    assert not list(tmp_path.iterdir())


def of_another_shape(folder: Path) -> None:
    prefix = f"base_model.model.transformer.{MODULE}"
    weights = {
        f"{prefix}.lora_A.weight": torch.ones(2, 1024),
        f"{prefix}.lora_B.weight": torch.zeros(3072, 2),
    }
    save_file(weights, folder / "adapter_model.safetensors")


def cut_off(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 100)


def undescribed(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_another_shape, "the adapter is for another model"),
        (cut_off, "is truncated or not a safetensors file"),
        (
            lambda folder: (folder / "adapter_config.json").unlink(),
            "adapter_config.json is missing",
        ),
        (shutil.rmtree, "lora is missing; an adapter is a folder as PEFT saves it"),
        (a_file, "lora is a file; an adapter is a folder as PEFT saves it"),
    ],
    ids=["of another shape", "cut off", "not described", "not there", "a file"],
)
def test_an_adapter_that_does_not_fit_is_one_sentence(
    adapter: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    change(adapter)
    path = tmp_path / "model.bloom"
    refused = pibloom("bake", default_model(), "--adapter", adapter, "-o", path)
    assert refused.returncode == 3
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.bloom*"))
