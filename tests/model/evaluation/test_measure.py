"""Perplexity and divergence are transformers' and torch's, on the same windows."""

import math
import random
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from transformers import BloomForCausalLM

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.demo import corpus
from model.engine.native import NativeEngine
from model.evaluation.measure import Scores, engine_for, mean, percentile, rates, score, together
from model.evaluation.windows import windows
from tests.model.native.conftest import Bake, baked, checkpoint

__all__ = ["baked", "checkpoint"]  # fixtures


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other at every small matrix take seconds on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text(demo: Path) -> list[int]:
    ids: list[int] = []
    tokenizer = Checkpoint.open(demo).tokenizer()
    documents = corpus.documents(corpus.languages(), seed=3, held_out=True)
    while len(ids) < 100:
        ids += tokenizer.ids(next(documents))
    return ids[:100]


def opened(model: BakedModel, tokens: int) -> NativeEngine:
    return engine_for(model, tokens, threads=1)


@cache
def plain(folder: Path) -> BloomForCausalLM:
    return BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def their_logits(folder: Path, tokens: Sequence[int], size: int, stride: int, count: int) -> Tensor:
    """Transformers' logits before each scored token, of the ids that the tokenizer knows."""
    model, found = plain(folder), []
    with torch.inference_mode():
        for window in windows(len(tokens), size, stride):
            logits = model(torch.tensor([tokens[window.start : window.end]])).logits[0]
            first, end = window.first - 1 - window.start, window.end - 1 - window.start
            found.append(logits[first:end, :count].double())
    return torch.cat(found)


@pytest.mark.parametrize(
    ("size", "stride"), [(128, 64), (128, 128), (128, 1000), (64, 63), (32, 8), (17, 5)]
)
def test_perplexity_is_transformers(
    checkpoint: Path, baked: Bake, text: list[int], size: int, stride: int
) -> None:
    stride = min(stride, size)
    model = baked(checkpoint, 32)
    ours = score(opened(model, size), None, text, size, stride)
    targets = [text[at] for w in windows(len(text), size, stride) for at in range(w.first, w.end)]
    logits = their_logits(checkpoint, text, size, stride, model.n_vocab)
    expected = cross_entropy(logits, torch.tensor(targets)).item()
    assert len(ours.loss) == len(targets)
    assert math.isclose(math.exp(mean(ours.loss)), math.exp(expected), rel_tol=1e-4)


def test_divergence_and_agreement_are_torchs(
    checkpoint: Path, baked: Bake, text: list[int]
) -> None:
    size, stride = 64, 32
    exact, rounded = baked(checkpoint, 32), baked(checkpoint, 4)
    found = score(opened(rounded, size), opened(exact, size), text, size, stride)
    engine = opened(rounded, size)
    ours = []
    for window in windows(len(text), size, stride):
        sequence = engine.new_sequence()
        part = text[window.start : window.end]
        logits = engine.forward_places(sequence, part, len(part))
        kept = logits[window.first - 1 - window.start : -1]
        ours.append(torch.tensor([each.all().tolist() for each in kept]).double())
    q, p = torch.cat(ours), their_logits(checkpoint, text, size, stride, exact.n_vocab)
    expected = kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="none", log_target=True).sum(
        -1
    )
    each = torch.tensor(found.divergence, dtype=torch.double)
    assert each.allclose(expected, rtol=1e-2, atol=1e-6)
    assert math.isclose(mean(found.divergence), expected.mean().item(), rel_tol=1e-3)
    same = (q.argmax(-1) == p.argmax(-1)).sum().item()
    assert abs(found.same - same) <= 1  # two logits of float32 may be equal to the last digit
    for share in (0.0, 0.5, 0.99, 1.0):
        theirs = each.quantile(share).item()
        assert math.isclose(percentile(found.divergence, share), theirs, rel_tol=1e-6)


def test_a_model_does_not_diverge_from_itself(demo: Path, baked: Bake, text: list[int]) -> None:
    found = score(opened(baked(demo, 4), 64), opened(baked(demo, 4), 64), text, 64, 32)
    assert found.loss == found.other_loss
    assert max(map(abs, found.divergence)) < 1e-12
    assert found.same == len(found.divergence) == len(text) - 1


def test_texts_are_put_together_token_by_token(demo: Path, baked: Bake, text: list[int]) -> None:
    engine = opened(baked(demo, 8), 64)
    parts = [score(engine, engine, each, 64, 32) for each in (text[:40], text[40:])]
    both = together(parts)
    assert both.loss == parts[0].loss + parts[1].loss
    assert both.same == len(both.divergence) == len(text) - 2
    assert together([]) == Scores()


def test_progress_ends_with_all_of_it(demo: Path, baked: Bake, text: list[int]) -> None:
    seen: list[tuple[int, int]] = []
    score(opened(baked(demo, 8), 50), None, text, 50, 20, lambda *both: seen.append(both))
    assert seen[-1] == (len(text) - 1, len(text) - 1)
    assert all(before[0] < after[0] for before, after in pairwise(seen))


def test_rates_are_numbers(demo: Path, baked: Bake) -> None:
    found = rates(opened(baked(demo, 8), 64), random.Random(0).choices(range(4, 8192), k=64))
    assert found.read == 64
    assert 0 < found.prefill < math.inf
    assert 0 < found.decode < math.inf


def test_damaged_weights_are_an_error(demo: Path, tmp_path: Path, text: list[int]) -> None:
    bake(Checkpoint.open(demo), tmp_path / "m.bloom", bits=32)
    data = bytearray((tmp_path / "m.bloom").read_bytes())
    model = BakedModel(tmp_path / "m.bloom")
    start = model.header.header_size  # of the word embedding
    data[start : start + 4 * 4096] = struct.pack("<f", math.nan) * 4096
    (tmp_path / "damaged.bloom").write_bytes(data)
    with pytest.raises(ArithmeticError, match="damaged"):
        score(opened(BakedModel(tmp_path / "damaged.bloom"), 64), None, text, 64, 32)
