"""A checkpoint folder: every form that the hub ships, and a sentence for every broken one."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.checkpoint.folder import Checkpoint
from model.engine.reference import ReferenceEngine
from model.errors import ModelError

Rewrite = Callable[[Path, dict[str, Tensor]], None]


def as_bin(folder: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, folder / "pytorch_model.bin")


def as_shards(folder: Path, weights: dict[str, Tensor], suffix: str) -> None:
    names = list(weights)
    halves = [{name: weights[name] for name in names[start::2]} for start in (0, 1)]
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    index: dict[str, str] = {}
    for number, half in enumerate(halves, start=1):
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        if suffix == "safetensors":
            save_file(half, folder / file, metadata={"format": "pt"})
        else:
            torch.save(half, folder / file)
        index |= dict.fromkeys(half, file)
    (folder / f"{stem}.{suffix}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )


FORMS: dict[str, Rewrite] = {
    "safetensors": lambda folder, weights: save_file(
        weights, folder / "model.safetensors", metadata={"format": "pt"}
    ),
    "bin": as_bin,
    "safetensors, sharded": lambda folder, weights: as_shards(folder, weights, "safetensors"),
    "bin, sharded": lambda folder, weights: as_shards(folder, weights, "bin"),
    "bin, without prefix": lambda folder, weights: as_bin(
        folder, {name.removeprefix("transformer."): w for name, w in weights.items()}
    ),
}


@pytest.fixture
def copy(random_bloom: Path, tmp_path: Path) -> Path:
    """A copy of the random BLOOM that a test may break."""
    return Path(shutil.copytree(random_bloom, tmp_path / "bloom"))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_opens_with_the_same_tensors_and_runs(
    random_bloom: Path, copy: Path, form: str
) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    FORMS[form](copy, weights)
    original, found = Checkpoint.open(random_bloom), Checkpoint.open(copy)

    def held(checkpoint: Checkpoint) -> set[tuple[str, tuple[int, ...], str, int]]:
        return {(t.name, t.shape, t.dtype, t.nbytes) for t in checkpoint.tensors}

    assert held(found) == held(original)
    assert found.parameters == original.parameters
    engine = ReferenceEngine(copy, found.config, vocabulary=8000)
    reference = ReferenceEngine(random_bloom, original.config, vocabulary=8000)
    for name, parameter in reference._model.named_parameters():
        assert torch.equal(parameter, engine._model.get_parameter(name)), name


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(
    copy: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(copy)
    (copy / "model.safetensors").unlink()
    if legacy:
        (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"a": RunsCode()}))
    else:
        torch.save({"a": RunsCode()}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        Checkpoint.open(copy)
    assert not (copy / "pwned").exists()


@pytest.mark.parametrize("keep", [0, 7, 100, -1000])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_truncated_file_is_named(copy: Path, form: str, keep: int) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    FORMS[form](copy, weights)
    (path,) = [*copy.glob("*.bin"), *copy.glob("*.safetensors")]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=path.name):
        Checkpoint.open(copy)


def test_a_pointer_to_weights_that_were_not_fetched_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        Checkpoint.open(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    FORMS["safetensors, sharded"](copy, weights)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        Checkpoint.open(copy)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_refused(copy: Path, text: str) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError):
        Checkpoint.open(copy)


def test_an_index_cannot_lead_out_of_the_folder(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../other/model.safetensors"}})
    )
    with pytest.raises(ModelError, match="outside"):
        Checkpoint.open(copy)


def test_missing_weights_and_missing_folders_are_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        Checkpoint.open(copy)
    with pytest.raises(ModelError, match="is not there"):
        Checkpoint.open(copy / "nothing")


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"n_layer": 4}))
    with pytest.raises(ModelError, match=r"lack h\.3\."):
        Checkpoint.open(copy)
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 9000}))
    with pytest.raises(ModelError, match=r"word_embeddings.*8200.*9000"):
        Checkpoint.open(copy)


def test_a_tokenizer_with_too_many_entries_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    name = "transformer.word_embeddings.weight"
    save_file(
        weights | {name: weights[name][:100].contiguous()},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    with pytest.raises(ModelError, match="8192 entries.*100 rows"):
        Checkpoint.open(copy).tokenizer()
