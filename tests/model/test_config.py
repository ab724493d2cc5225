"""The configuration is checked once, and refuses what the engines cannot run."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig as Theirs
from transformers import BloomForCausalLM

from model.config import BloomConfig
from model.errors import ModelError

BLOOM_560M = {
    "model_type": "bloom",
    "vocab_size": 250880,
    "n_embed": 1024,
    "n_layer": 24,
    "num_attention_heads": 16,
    "seq_length": 2048,
    "layer_norm_epsilon": 1e-05,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "masked_softmax_fusion": True,
    "offset_alibi": 100,
    "pretraining_tp": 1,
}


def test_older_and_newer_spellings_mean_the_same() -> None:
    newer = {
        "model_type": "bloom",
        "vocab_size": 250880,
        "hidden_size": 1024,
        "n_layer": 24,
        "n_head": 16,
    }
    assert BloomConfig.from_dict(BLOOM_560M) == BloomConfig.from_dict(newer)
    assert BloomConfig.from_dict(newer).head_size == 64


def test_shapes_add_up_to_the_published_size() -> None:
    count = 0
    for shape in BloomConfig.from_dict(BLOOM_560M).shapes().values():
        count += shape[0] * (shape[1] if len(shape) == 2 else 1)
    assert count == 559_214_592


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"model_type": None}, "BLOOM"),
        ({"n_embed": 1000}, "16 heads"),
        ({"n_layer": 0}, "layers"),
        ({"n_layer": "24"}, "layers"),
        ({"n_layer": True}, "layers"),
        ({"layer_norm_epsilon": "tiny"}, "layer_norm_epsilon"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual"),
        ({"slow_but_exact": True, "pretraining_tp": 4}, "slow_but_exact"),
        ({"slow_but_exact": 1, "pretraining_tp": 2}, "slow_but_exact"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        BloomConfig.from_dict(BLOOM_560M | change)


@pytest.mark.parametrize(
    ("tp", "exact"), [(1, False), (1, True), (2, False), (4, False), (2, True), (4, True)]
)
def test_what_computes_something_else_in_transformers_is_refused(
    tmp_path: Path, tp: int, exact: bool
) -> None:
    """Published models have a pretraining_tp of up to 4, which alone changes nothing."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 4}
    torch.manual_seed(1)
    plain = BloomForCausalLM(Theirs(**sizes)).eval()
    other = BloomForCausalLM(Theirs(**sizes, pretraining_tp=tp, slow_but_exact=exact)).eval()
    with torch.no_grad():
        for weights in plain.parameters():
            weights.add_(torch.randn_like(weights))
        other.load_state_dict(plain.state_dict())
        ids = torch.arange(20)[None]
        same = torch.allclose(plain(ids).logits, other(ids).logits, rtol=1e-3, atol=1e-3)
    other.config.save_pretrained(tmp_path)
    if same:
        assert BloomConfig.open(tmp_path / "config.json").layers == 2
    else:
        with pytest.raises(ModelError, match="slow_but_exact is not supported"):
            BloomConfig.open(tmp_path / "config.json")
    assert same == (not exact or tp == 1)


@pytest.mark.parametrize("field", ["vocab_size", "n_embed", "n_layer", "num_attention_heads"])
def test_a_missing_field_is_named(field: str) -> None:
    data = {name: value for name, value in BLOOM_560M.items() if name != field}
    with pytest.raises(ModelError, match="missing"):
        BloomConfig.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "[]", '"bloom"', "\x00"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="config.json"):
        BloomConfig.open(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="config.json is missing"):
        BloomConfig.open(tmp_path / "config.json")


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(BLOOM_560M))
    assert BloomConfig.open(path).layers == 24
