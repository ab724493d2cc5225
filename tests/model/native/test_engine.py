"""The native engine against transformers, and against itself on other instruction sets."""

import math
import random
import shutil
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.demo import corpus
from model.engine.contract import OutOfMemory, Work
from model.engine.native import MAX_TOKENS, SLOTS, NativeEngine, divergence
from model.engine.reference import ReferenceEngine
from model.errors import ModelError
from tests.model.native.conftest import Bake

# How far a logit may be off, in standard deviations of all of them; measured: 0.09 and 0.92.
TOLERANCE = {8: 0.2, 4: 1.5}
SETS = ("portable", "avx2", "avx512", "neon", "dotprod")


def open_engine(model: BakedModel, isa: str | None = None, **options: int) -> NativeEngine:
    try:
        return NativeEngine(model, threads=2, isa=isa, **options)
    except ModelError as error:
        if isa is None or "instructions" not in str(error):
            raise
        pytest.skip(str(error))


def logits_of(engine: NativeEngine, *chunks: Sequence[int]) -> list[float]:
    sequence = engine.new_sequence()
    for chunk in chunks:
        (logits,) = engine.forward([Work(sequence, chunk)])
    assert logits is not None
    found = logits.at(range(engine.config.vocab_size))
    engine.release(sequence)
    return found


def reference(checkpoint: Path, tokens: Sequence[int]) -> torch.Tensor:
    model = BloomForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0, -1]
    return logits


def some_tokens(count: int) -> list[int]:
    return random.Random(count).choices(range(4, 8192), k=count)


def test_unquantised_it_equals_transformers(checkpoint: Path, baked: Bake) -> None:
    engine = open_engine(baked(checkpoint, 32), "portable")
    for tokens in (some_tokens(1), some_tokens(16), some_tokens(77)):
        theirs = reference(checkpoint, tokens)[: engine._model.n_vocab]
        ours = torch.tensor(logits_of(engine, tokens)[: engine._model.n_vocab])
        assert (ours - theirs).abs().max() < 1e-3


def test_a_width_that_is_no_multiple_of_the_lanes(demo: Path, tmp_path: Path, baked: Bake) -> None:
    """The padding of the last lanes does not count in a norm, whatever the values' mean is."""
    folder = tmp_path / "narrow"
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=8192, hidden_size=20, n_layer=1, n_head=2))
    with torch.no_grad():
        model.transformer.word_embeddings.weight += 1000
    model.save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder)
    tokens = some_tokens(5)
    theirs = reference(folder, tokens)
    ours = torch.tensor(logits_of(open_engine(baked(folder, 32), "portable"), tokens))
    assert (ours - theirs).abs().max() < 0.02 * theirs.abs().max()


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_it_stays_within_its_tolerance(checkpoint: Path, baked: Bake, bits: int) -> None:
    engine = open_engine(baked(checkpoint, bits))
    tokens = some_tokens(40)
    theirs = reference(checkpoint, tokens)[: engine._model.n_vocab]
    ours = torch.tensor(logits_of(engine, tokens)[: engine._model.n_vocab])
    assert (ours - theirs).abs().max() < TOLERANCE[bits] * theirs.std()


@pytest.mark.parametrize(("bits", "worse"), [(32, 1.001), (8, 1.01), (4, 1.15)])
def test_perplexity_of_held_out_text(demo: Path, baked: Bake, bits: int, worse: float) -> None:
    tokenizer = Checkpoint.open(demo).tokenizer()
    documents = corpus.documents(corpus.languages(), seed=1, held_out=True)
    text = "\n".join(islice(documents, 40))
    tokens = tokenizer.ids(text)[:600]
    plain = BloomForCausalLM.from_pretrained(demo, dtype=torch.float32).eval()
    with torch.inference_mode():
        loss = plain(torch.tensor([tokens]), labels=torch.tensor([tokens])).loss.item()
    engine = open_engine(baked(demo, bits))
    sequence, total = engine.new_sequence(), 0.0
    for token, following in pairwise(tokens):
        (logits,) = engine.forward([Work(sequence, [token])])
        assert logits is not None
        total += logits.logsumexp(1.0, ()) - logits.at([following])[0]
    assert math.exp(total / (len(tokens) - 1)) < worse * math.exp(loss)


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("isa", SETS[1:])
def test_every_set_of_instructions_gives_the_same_bits(
    checkpoint: Path, baked: Bake, bits: int, isa: str
) -> None:
    model = baked(checkpoint, bits)
    tokens = some_tokens(19)
    fast, portable = open_engine(model, isa), open_engine(model, "portable")
    assert fast.isa == isa
    assert logits_of(fast, tokens) == logits_of(portable, tokens)


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_chunks_and_batches_change_nothing(checkpoint: Path, baked: Bake, bits: int) -> None:
    engine = open_engine(baked(checkpoint, bits))
    tokens, other = some_tokens(45), some_tokens(20)
    whole = logits_of(engine, tokens)
    assert logits_of(engine, tokens[:1], tokens[1:17], tokens[17:44], tokens[44:]) == whole
    first, second = engine.new_sequence(), engine.new_sequence()
    engine.forward([Work(first, tokens[:30], False), Work(second, other[:3], False)])
    one, two = engine.forward([Work(first, tokens[30:]), Work(second, other[3:])])
    assert one is not None
    assert two is not None
    assert one.at(range(8192)) == whole[:8192]
    together = two.at(range(8192))
    assert together == logits_of(engine, other)[:8192]


def test_a_step_of_any_length_is_split(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8))
    tokens = some_tokens(3 * MAX_TOKENS + 5)
    pieces = [tokens[at : at + 50] for at in range(0, len(tokens), 50)]
    assert logits_of(engine, tokens) == logits_of(engine, *pieces)


def test_a_long_batch_is_split_too(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8))
    prompts = [some_tokens(100 + at) for at in range(4)]
    sequences = [engine.new_sequence() for _ in prompts]
    results = engine.forward(
        [Work(each, tokens) for each, tokens in zip(sequences, prompts, strict=True)]
    )
    found = [logits.at(range(100)) for logits in results if logits is not None]
    assert found == [logits_of(engine, tokens)[:100] for tokens in prompts]


def test_top_at_and_logsumexp_agree(checkpoint: Path, baked: Bake) -> None:
    engine = open_engine(baked(checkpoint, 8))
    sequence = engine.new_sequence()
    (logits,) = engine.forward([Work(sequence, some_tokens(9))])
    assert logits is not None
    best = logits.top(7)
    every = logits.at(range(engine.config.vocab_size))
    ranked = sorted(enumerate(every), key=lambda pair: (-pair[1], pair[0]))
    assert best == ranked[:7]
    without = [id_ for id_, _ in ranked[:3]]
    assert logits.top(4, without) == ranked[3:7]
    kept = torch.tensor([v for id_, v in enumerate(every) if id_ not in without]).double()
    for temperature in (0.3, 1.0, 2.5):
        expected = (kept / temperature).logsumexp(0).item()
        assert math.isclose(logits.logsumexp(temperature, without), expected, rel_tol=1e-5)
    assert logits.at([engine.config.vocab_size, 2**31]) == [-math.inf, -math.inf]
    assert len(logits.top(10**6)) == engine._model.n_vocab


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_logits_of_many_places_are_those_of_each_prefix(
    checkpoint: Path, baked: Bake, bits: int
) -> None:
    engine = open_engine(baked(checkpoint, bits))
    tokens = some_tokens(40)
    for start, places in ((0, 40), (0, 1), (13, 9), (20, 20)):
        sequence = engine.new_sequence()
        if start:
            engine.forward([Work(sequence, tokens[:start], False)])
        found = [each.all() for each in engine.forward_places(sequence, tokens[start:], places)]
        ends = range(len(tokens) - places + 1, len(tokens) + 1)
        for logits, end in list(zip(found, ends, strict=True))[:: max(1, places // 4)]:
            assert logits.tolist() == logits_of(engine, tokens[:end])[: engine.vocabulary]
        engine.release(sequence)


def test_places_out_of_range_are_refused(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8))
    sequence = engine.new_sequence()
    for count, places in ((3, 0), (3, 4), (3, -1), (MAX_TOKENS, SLOTS + 1)):
        with pytest.raises(ValueError, match="places"):
            engine.forward_places(sequence, some_tokens(count), places)
    with pytest.raises(ValueError, match="context"):
        engine.forward_places(sequence, some_tokens(MAX_TOKENS + 1), 1)
    assert sequence.length == 0
    (kept,) = engine.forward_places(sequence, [5], 1)
    engine.forward([Work(sequence, [5], False)])
    with pytest.raises(RuntimeError, match="former"):
        kept.all()


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1.0, 50.0, 1e4])
def test_divergence_is_torchs(spread: float) -> None:
    torch.manual_seed(0)
    p = torch.randn(5000) * 3
    q = p + torch.randn(5000) * spread
    expected = torch.nn.functional.kl_div(
        q.double().log_softmax(0), p.double().log_softmax(0), reduction="sum", log_target=True
    ).item()
    ours = divergence(array("f", p.tolist()), array("f", q.tolist()))
    assert math.isclose(ours, expected, rel_tol=1e-9, abs_tol=1e-13)
    with pytest.raises(ValueError, match="compared"):
        divergence(array("f", [1.0]), array("f", [1.0, 2.0]))


def test_tokens_out_of_the_vocabulary_are_refused(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8))
    sequence = engine.new_sequence()
    with pytest.raises(ValueError, match="vocabulary"):
        engine.forward([Work(sequence, [8192])])
    assert sequence.length == 0


def test_memory_runs_out_before_anything_changes(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8), kv_bytes=1 << 20)
    total = engine.kv_tokens_total
    first = engine.new_sequence(capacity=total - 16)
    with pytest.raises(OutOfMemory):
        engine.new_sequence(capacity=17)
    second = engine.new_sequence(capacity=16)
    with pytest.raises(OutOfMemory):
        engine.forward([Work(first, [5]), Work(second, some_tokens(17))])
    assert (first.length, second.length) == (0, 0)
    engine.release(first)
    engine.release(second)
    engine.forward([Work(engine.new_sequence(capacity=total), [5])])


@pytest.fixture
def chat(demo: Path, baked: Bake) -> Iterator[NativeEngine]:
    engine = open_engine(baked(demo, 8))
    yield engine
    engine.close()


def test_the_next_turn_finds_the_last_one(chat: NativeEngine) -> None:
    tokens = some_tokens(90)
    plain = logits_of(chat, tokens)
    again = chat.new_sequence(tokens, len(tokens) + 8)
    assert again.length == 80  # whole pages of 16
    (logits,) = chat.forward([Work(again, tokens[80:])])
    assert logits is not None
    assert logits.at(range(8192)) == plain


def test_a_prompt_is_never_known_whole(chat: NativeEngine) -> None:
    tokens = some_tokens(32)
    logits_of(chat, tokens)
    assert chat.new_sequence(tokens, 40).length == 16


def test_a_closed_engine_says_so(demo: Path, baked: Bake) -> None:
    engine = open_engine(baked(demo, 8))
    sequence = engine.new_sequence()
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.forward([Work(sequence, [5])])


def test_reference_and_native_choose_the_same_tokens(demo: Path, baked: Bake) -> None:
    native = open_engine(baked(demo, 8))
    plain = ReferenceEngine(demo, native.config, vocabulary=8192)
    ids = Checkpoint.open(demo).tokenizer().ids("User: What is the capital of France?\nAssistant:")
    ours, theirs = native.new_sequence(), plain.new_sequence()
    a, b, written = ids, ids, []
    for _ in range(8):
        (x,), (y,) = native.forward([Work(ours, a)]), plain.forward([Work(theirs, b)])
        assert x is not None
        assert y is not None
        (one,), (two,) = x.top(1), y.top(1)
        assert one[0] == two[0]
        written.append(one[0])
        a = b = [one[0]]
        if one[0] == 2:
            break
    assert written


def test_engines_that_come_and_go_leave_no_thread_waiting(demo: Path, baked: Bake) -> None:
    """A thread that is about to sleep when the engine is closed must still be woken."""
    for _ in range(300):
        engine = NativeEngine(baked(demo, 8), threads=4, kv_bytes=1 << 20)
        logits_of(engine, [5])
        engine.close()


def test_keys_and_values_beyond_all_memory_are_refused(demo: Path, baked: Bake) -> None:
    with pytest.raises(ModelError, match="no room"):
        NativeEngine(baked(demo, 8), kv_bytes=1 << 60)


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_moves_with_each_layer_of_a_step_and_only_then(
    demo: Path, baked: Bake, threads: int
) -> None:
    engine = NativeEngine(baked(demo, 8), threads=threads)
    sequence, seen = engine.new_sequence(), [engine.progress]
    for tokens in (some_tokens(90), [5], [6]):
        engine.forward([Work(sequence, tokens)])
        seen.append(engine.progress)
        assert engine.progress == seen[-1]
    grown = [after - before for before, after in pairwise(seen)]
    assert all(each > 5 * engine.config.layers for each in grown)
    engine.close()
    assert engine.progress == 0
