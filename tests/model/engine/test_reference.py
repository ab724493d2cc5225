"""The reference engine is transformers' BLOOM, whatever the batch."""

import random
from pathlib import Path

import pytest
import torch
from transformers import BloomForCausalLM

from model.config import BloomConfig
from model.engine.contract import Logits, Work
from model.engine.reference import ReferenceEngine, ReferenceLogits
from model.errors import ModelError


@pytest.fixture(params=["demo", "random_bloom"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def engine(folder: Path) -> ReferenceEngine:
    return open_engine(folder)


def open_engine(folder: Path, dtype: str = "float32", device: str = "auto") -> ReferenceEngine:
    config = BloomConfig.open(folder / "config.json")
    return ReferenceEngine(folder, config, vocabulary=8000, dtype=dtype, device=device)


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(4)
    return [[rng.randrange(4, 8000) for _ in range(rng.randint(1, 90))] for _ in range(count)]


def values(logits: Logits | None) -> torch.Tensor:
    assert isinstance(logits, ReferenceLogits)
    return logits.values


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_logits_equal_transformers(folder: Path, engine: ReferenceEngine) -> None:
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt in prompts(6):
        theirs = model(torch.tensor([prompt])).logits[0, -1, :8000]
        (ours,) = engine.forward([Work(engine.new_sequence(), prompt)])
        assert close(values(ours), theirs)


@torch.inference_mode()
def test_batched_equals_one_by_one(engine: ReferenceEngine) -> None:
    many = prompts(5)
    together = [engine.new_sequence() for _ in many]
    alone = [engine.new_sequence() for _ in many]
    for sequence, other, prompt in zip(together, alone, many, strict=True):
        engine.forward([Work(sequence, prompt)])
        engine.forward([Work(other, prompt)])
    for step in range(6):
        tokens = [[100 * step + row] for row in range(len(many))]
        batch = engine.forward([Work(s, t) for s, t in zip(together, tokens, strict=True)])
        for row, other in enumerate(alone):
            (one,) = engine.forward([Work(other, tokens[row])])
            assert close(values(batch[row]), values(one))
    assert [s.length for s in together] == [len(prompt) + 6 for prompt in many]


@torch.inference_mode()
def test_a_prompt_in_chunks_equals_the_whole_prompt(engine: ReferenceEngine) -> None:
    prompt = prompts(1)[0][:60] * 2
    (whole,) = engine.forward([Work(engine.new_sequence(), prompt)])
    sequence = engine.new_sequence()
    assert engine.forward([Work(sequence, prompt[:37], wants_logits=False)]) == [None]
    writer = engine.new_sequence()
    engine.forward([Work(writer, [5, 6, 7])])
    mixed = engine.forward([Work(writer, [8]), Work(sequence, prompt[37:])])
    assert close(values(mixed[1]), values(whole))
    (plain,) = engine.forward([Work(engine.new_sequence(), [5, 6, 7, 8])])
    assert close(values(mixed[0]), values(plain))


def test_a_dropped_sequence_leaves_the_others_alone(engine: ReferenceEngine) -> None:
    kept, dropped = engine.new_sequence(), engine.new_sequence()
    engine.forward([Work(kept, [10, 11, 12])])
    engine.forward([Work(dropped, [20, 21, 22, 23, 24])])
    engine.forward([Work(kept, [13]), Work(dropped, [25])])
    engine.release(dropped)
    (after,) = engine.forward([Work(kept, [14])])
    (alone,) = engine.forward([Work(engine.new_sequence(), [10, 11, 12, 13, 14])])
    assert close(values(after), values(alone))


def test_bfloat16_is_near_float32(demo: Path) -> None:
    half, full = open_engine(demo, dtype="bfloat16"), open_engine(demo)
    prompt = prompts(1)[0]
    (rough,) = half.forward([Work(half.new_sequence(), prompt)])
    (exact,) = full.forward([Work(full.new_sequence(), prompt)])
    assert half.dtype == "bfloat16"
    difference = (values(rough).softmax(0) - values(exact).softmax(0)).abs().sum()
    assert 0 < difference < 0.2


@pytest.mark.parametrize(
    ("options", "said"), [({"dtype": "int3"}, "int3"), ({"device": "cuda"}, "GPU")]
)
def test_what_cannot_be_had_is_refused(
    demo: Path, options: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=said):
        open_engine(demo, **options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_logits(folder: Path) -> None:
    gpu, cpu = open_engine(folder, device="cuda"), open_engine(folder, device="cpu")
    prompt = prompts(1)[0]
    (ours,) = gpu.forward([Work(gpu.new_sequence(), prompt)])
    (theirs,) = cpu.forward([Work(cpu.new_sequence(), prompt)])
    assert torch.allclose(values(ours), values(theirs), rtol=1e-3, atol=1e-3)


def test_top_ranks_equals_by_lowest_id() -> None:
    logits = ReferenceLogits(torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0, 2.0]))
    assert logits.top(4) == [(1, 3.0), (3, 3.0), (2, 2.0), (4, 2.0)]
    assert len(logits.top(100)) == 6


def test_sums_and_lookups_agree_with_the_values() -> None:
    logits = ReferenceLogits(torch.tensor([1.0, 2.0, 3.0]))
    expected = torch.tensor([0.5, 1.5]).logsumexp(0).item()
    assert logits.logsumexp(2.0, {1, 99}) == pytest.approx(expected)
    assert logits.at([2, 99, 0]) == [3.0, -torch.inf, 1.0]
