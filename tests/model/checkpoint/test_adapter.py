"""LoRA adapters: made by PEFT, added by us, against PEFT's own merge."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BloomForCausalLM

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.adapter import _NEUTRAL, _READ, Adapter
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Reader
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.errors import ModelError

QKV, DENSE, UP, DOWN = "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"
VOCABULARY = 8192  # entries of the tokenizer; the embedding has some rows more
TOKENS = [5, 300, 44, 8000, 17, 9]
CASES: dict[str, dict[str, Any]] = {
    "the usual": {"target_modules": [QKV]},
    "all linear layers": {"target_modules": [QKV, DENSE, UP, DOWN], "r": 4, "lora_alpha": 16},
    "rsLoRA": {"target_modules": [QKV, DENSE], "r": 9, "lora_alpha": 5, "use_rslora": True},
    "DoRA": {"target_modules": [QKV, UP], "use_dora": True},
    "DoRA, rsLoRA": {"target_modules": [DOWN], "use_dora": True, "use_rslora": True, "r": 2},
    "fan_in_fan_out": {"target_modules": [QKV], "fan_in_fan_out": True},
    "some layers": {"target_modules": [QKV, UP], "layers_to_transform": [0, 2]},
    "ranks by pattern": {
        "target_modules": [QKV, DENSE, UP],
        "rank_pattern": {QKV: 3, r"^transformer.h.1.mlp.dense_h_to_4h": 5},
        "alpha_pattern": {"h.0.self_attention.dense": 40, UP: 1},
    },
    "a fraction of alpha": {"target_modules": [QKV], "lora_alpha": 1, "r": 3},
    "rank 1": {"target_modules": [DOWN], "r": 1},
    "gaussian": {"target_modules": [QKV], "init_lora_weights": "gaussian"},
}


def train(base: Path, folder: Path, *, safe: bool = True, **config: Any) -> BloomForCausalLM:
    """Save an adapter of random weights, and return its model merged by PEFT."""
    torch.manual_seed(1)
    model = BloomForCausalLM.from_pretrained(base, dtype=torch.float32)
    peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, weight in peft.named_parameters():
        if "lora_" in name:
            scale = 0.02 if "magnitude" in name else 0.1
            weight.data += scale * torch.randn_like(weight)
    peft.save_pretrained(str(folder), safe_serialization=safe)
    return peft.merge_and_unload().eval()


def merged(base: Path, adapter: Adapter) -> dict[str, Tensor]:
    found = {}
    checkpoint = Checkpoint.open(base)
    with Reader(base) as reader, Reader(adapter.folder) as added:
        for info in checkpoint.tensors:
            rows = adapter.merged(info.name, reader.rows(info), added)
            parts = [torch.tensor(some.values[:]).reshape(some.rows, some.cols) for some in rows]
            found[info.name] = torch.cat(parts).reshape(info.shape)
    return found


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_pefts_own_merge(
    random_bloom: Path, tmp_path: Path, case: str
) -> None:
    expected = train(random_bloom, tmp_path, **CASES[case]).state_dict()
    adapter = Adapter.open(tmp_path, Checkpoint.open(random_bloom).config)
    changed = 0
    for name, weight in merged(random_bloom, adapter).items():
        theirs = expected[f"transformer.{name}"]
        assert (weight - theirs).abs().max() <= 2e-6 * (1 + theirs.abs().max()), name
        changed += name in adapter.matrices
    assert changed == len(adapter.matrices) > 0


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("case", ["all linear layers", "DoRA"])
def test_logits_are_those_of_pefts_own_merge(
    random_bloom: Path, tmp_path: Path, case: str, safe: bool
) -> None:
    model = train(random_bloom, tmp_path / "lora", safe=safe, **CASES[case])
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0, -1, :VOCABULARY]
    checkpoint = Checkpoint.open(random_bloom)
    adapter = Adapter.open(tmp_path / "lora", checkpoint.config)
    outcomes = []
    for name, added in (("with", adapter), ("without", None)):
        path = tmp_path / f"{name}.bloom"
        bake(checkpoint, path, bits=32, adapter=added)
        engine = NativeEngine(BakedModel(path), threads=1)
        (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
        assert logits is not None
        outcomes.append((torch.tensor(logits.at(range(len(expected)))) - expected).abs().max())
    assert outcomes[0] < 1e-3 < outcomes[1]


def test_one_process_reads_all_of_an_adapters_pickle(
    random_bloom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(random_bloom, tmp_path / "lora", safe=False, **CASES["all linear layers"])
    adapter = Adapter.open(tmp_path / "lora", Checkpoint.open(random_bloom).config)
    start = Mock(wraps=subprocess.Popen)
    monkeypatch.setattr(subprocess, "Popen", start)
    merged(random_bloom, adapter)
    assert start.call_count == 1


def test_an_adapter_leaves_an_output_head_of_its_own_alone(
    random_bloom: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(random_bloom, tmp_path / "bloom-untied"))
    weights = load_file(base / "model.safetensors")
    torch.manual_seed(2)
    weights["lm_head.weight"] = torch.randn_like(weights["transformer.word_embeddings.weight"])
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    model = train(base, tmp_path / "lora", target_modules=[QKV, DOWN])
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0, -1, :VOCABULARY]
    checkpoint, path = Checkpoint.open(base), tmp_path / "m.bloom"
    bake(checkpoint, path, bits=32, adapter=Adapter.open(tmp_path / "lora", checkpoint.config))
    engine = NativeEngine(BakedModel(path), threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), TOKENS)])
    assert logits is not None
    assert (torch.tensor(logits.at(range(VOCABULARY))) - expected).abs().max() < 1e-3


BESIDES: dict[str, tuple[dict[str, Any], str]] = {
    "the head, saved whole": ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is ['lm_head']"),
    "the embedding, saved whole": (
        {"modules_to_save": ["word_embeddings"]},
        "'modules_to_save' is ['word_embeddings']",
    ),
    "matrices of the head": ({"target_modules": ["lm_head"]}, "is nothing that can be added"),
    "matrices of the embedding": (
        {"target_modules": ["word_embeddings"]},
        "is nothing that can be added",
    ),
    "rows of the embedding": (
        {"trainable_token_indices": [5, 6]},
        "'trainable_token_indices' is [5, 6]",
    ),
    "biases": ({"bias": "all"}, "bias is 'all'"),
}


@pytest.mark.parametrize("case", BESIDES)
def test_what_peft_trains_besides_is_refused_by_name(
    random_bloom: Path, tmp_path: Path, case: str
) -> None:
    config, said = BESIDES[case]
    model = BloomForCausalLM.from_pretrained(random_bloom, dtype=torch.float32)
    settings: dict[str, Any] = {"target_modules": [QKV], "task_type": "CAUSAL_LM"} | config
    get_peft_model(model, LoraConfig(**settings)).save_pretrained(str(tmp_path / "lora"))
    with pytest.raises(ModelError) as caught:
        Adapter.open(tmp_path / "lora", Checkpoint.open(random_bloom).config)
    assert said in str(caught.value)


def test_a_baked_model_tells_its_adapter(random_bloom: Path, tmp_path: Path) -> None:
    train(random_bloom, tmp_path / "lora", target_modules=[QKV])
    checkpoint = Checkpoint.open(random_bloom)
    for bits in (8, 4):
        path = tmp_path / "model.bloom"
        bake(
            checkpoint, path, bits=bits, adapter=Adapter.open(tmp_path / "lora", checkpoint.config)
        )
        described = BakedModel(path).metadata
        assert described["name"] == "bloom-random+lora"
        assert described["adapter"] == {"name": "lora", "base": "bloom-random", "rank": 8}


def test_the_base_is_told_by_its_name(random_bloom: Path, tmp_path: Path) -> None:
    train(random_bloom, tmp_path, target_modules=[QKV])
    adapter = Adapter.open(tmp_path, Checkpoint.open(random_bloom).config)
    adapter.check_base("bloom-random")
    adapter.check_base("BLOOM-Random")
    with pytest.raises(ModelError, match=r"was trained on '.*bloom-random', and this is bloomz"):
        adapter.check_base("bloomz")


def test_every_field_of_pefts_configuration_is_accounted_for() -> None:
    """A new one fails here until it is known whether it changes what the weights mean."""
    refused = {
        "modules_to_save",
        "trainable_token_indices",
        "velora_config",
        "alora_invocation_tokens",
        "use_qalora",
        "monteclora_config",
        "layer_replication",
        "lora_bias",
        "target_parameters",
        "use_bdlora",
        "arrow_config",
        "kasa_config",
    }
    assert {each.name for each in fields(LoraConfig)} == _NEUTRAL | _READ | refused


def describe(**change: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return apply


def rename(old: str, new: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({k.replace(old, new): v for k, v in load_file(path).items()}, path)

    return apply


def reshape(part: str, shape: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        weights = load_file(path)
        weights = {k: shape(v).contiguous() if part in k else v for k, v in weights.items()}
        save_file(weights, path)

    return apply


def drop(part: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        save_file({k: v for k, v in load_file(path).items() if part not in k}, path)

    return apply


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "/lora is missing; an adapter is"),
    "no description": (lambda f: (f / "adapter_config.json").unlink(), "is missing; an adapter is"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has neither"),
    "a truncated file": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"),
        "truncated or not a safetensors",
    ),
    "damaged JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as"),
    "another kind": (describe(peft_type="IA3"), "of the kind 'IA3' is not supported"),
    "no kind": (describe(peft_type=None), "of the kind None"),
    "PiSSA": (describe(init_lora_weights="pissa_niter_4"), "changes the model's own weights too"),
    "biases": (describe(bias="lora_only"), "bias is 'lora_only'"),
    "saved modules": (describe(modules_to_save=["lm_head"]), "'modules_to_save' is"),
    "block-diagonal": (describe(use_bdlora={"x": 1}), "'use_bdlora' is"),
    "a future field": (describe(new_trick=True), "'new_trick' is True, which is not supported"),
    "layers repeated": (describe(layer_replication=[[0, 2]]), "'layer_replication' is"),
    "DoRA without lengths": (describe(use_dora=True), "contradict each other"),
    "another rank": (describe(r=7), "has the rank 8, but r is 7"),
    "alpha a text": (describe(lora_alpha="8"), "lora_alpha must be a number"),
    "alpha not a number": (describe(lora_alpha=math.nan), "lora_alpha must be a number"),
    "alpha missing": (describe(lora_alpha=None), "lora_alpha must be a number, not None"),
    "a hostile pattern": (describe(rank_pattern={"(a+)+b": 3}), "the pattern '(a+)+b' of rank"),
    "patterns in a list": (describe(alpha_pattern=[1]), "alpha_pattern must be an object"),
    "an embedding's matrices": (
        rename("h.0.self_attention.query_key_value.lora_A", "word_embeddings.lora_embedding_A"),
        "is nothing that can be added",
    ),
    "a layer too many": (rename("h.2.", "h.7."), "has no linear layer 'h.7.self_attention"),
    "a norm's": (rename("self_attention.query_key_value", "input_layernorm"), "no linear layer"),
    "another width": (reshape("lora_A", lambda a: a[:, :64]), "is for another model"),
    "another height": (reshape("lora_B", lambda b: b[:100]), "is for another model"),
    "a vector": (reshape("lora_B", lambda b: b[:, 0]), "is for another model"),
    "half of it": (drop("h.1.self_attention.query_key_value.lora_B"), "lacks its lora_A or its"),
    "nothing in it": (drop("lora"), "without any matrix"),
    "whole numbers": (reshape("lora_A", lambda a: a.to(torch.int32)), "is of the type 'I32'"),
}


@pytest.fixture(scope="module")
def usual(random_bloom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("usual") / "lora"
    train(random_bloom, folder, target_modules=[QKV])
    return folder


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_added_whole_is_refused_by_name(
    random_bloom: Path, usual: Path, tmp_path: Path, case: str
) -> None:
    damage, message = BAD[case]
    folder = Path(shutil.copytree(usual, tmp_path / "lora"))
    damage(folder)
    with pytest.raises(ModelError) as caught:
        Adapter.open(folder, Checkpoint.open(random_bloom).config)
    said = str(caught.value)
    assert message in said
    assert str(folder) in said
    assert "\n" not in said


def test_fields_that_say_nothing_are_taken(random_bloom: Path, usual: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(usual, tmp_path / "lora"))
    describe(new_trick=None, other=False, more=[], lora_dropout=0.3, r=8, eva_config={"a": 1})(
        folder
    )
    assert len(Adapter.open(folder, Checkpoint.open(random_bloom).config).matrices) == 3
