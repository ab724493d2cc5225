"""The two-plane head finds the same logits as a full scan, however close they are."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.checkpoint.folder import Checkpoint
from model.config import BloomConfig
from model.engine.contract import Work
from model.engine.native import NativeEngine, NativeLogits, _c

HIDDEN, ROWS = 64, 8192


def checkpoint_of(folder: Path, demo: Path, row: Callable[[int], Sequence[float]]) -> Checkpoint:
    """Write a BLOOM of one layer with this word embedding."""
    config = json.loads((demo / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "n_layer": 1, "n_head": 1, "vocab_size": ROWS}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_bytes((demo / "tokenizer.json").read_bytes())
    chance = random.Random(0)
    table, blob = {}, bytearray()
    for name, shape in BloomConfig.from_dict(config).shapes().items():
        if name == "word_embeddings.weight":
            values = [value for id_ in range(ROWS) for value in row(id_)]
        elif len(shape) == 2:
            values = [chance.gauss(0, 0.05) for _ in range(shape[0] * shape[1])]
        else:
            values = [1.0 if name.endswith("weight") else 0.0] * shape[0]
        start = len(blob)
        blob += struct.pack(f"<{len(values)}f", *values)
        table[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(blob)]}
    header = json.dumps(table).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + blob)
    return Checkpoint.open(folder)


def plain(id_: int) -> list[float]:
    chance = random.Random(id_)
    return [chance.gauss(0, 1) for _ in range(HIDDEN)]


def nearly_equal(id_: int) -> list[float]:
    """Rows that differ only in what the lower plane holds."""
    chance = random.Random(7)
    base = [chance.choice((-1.0, 1.0)) for _ in range(HIDDEN)]
    own = random.Random(id_)
    return [value + own.uniform(-0.02, 0.02) for value in base]


def all_equal(id_: int) -> list[float]:
    return [0.5, -0.25] * (HIDDEN // 2)


def zeros(id_: int) -> list[float]:
    return [0.0] * HIDDEN


def one_large(id_: int) -> list[float]:
    """One column that is so large that it decides the scale of all others."""
    return [1000.0, *plain(id_)[1:]]


@pytest.fixture(scope="module", params=[plain, nearly_equal, all_equal, zeros, one_large])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, demo: Path
) -> NativeEngine:
    folder = tmp_path_factory.mktemp("head")
    bake(checkpoint_of(folder, demo, request.param), folder / "m.bloom")
    return NativeEngine(BakedModel(folder / "m.bloom"), threads=2)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.lists(st.integers(4, ROWS - 1), min_size=1, max_size=4),
    count=st.sampled_from([1, 2, 16, 17, 40, 64, 500]),
    without=st.sets(st.integers(0, ROWS + 5), max_size=30),
)
def test_the_largest_are_those_of_a_full_scan(
    engine: NativeEngine, tokens: list[int], count: int, without: set[int]
) -> None:
    sequence = engine.new_sequence()
    (few,) = engine.forward([Work(sequence, tokens)])
    assert isinstance(few, NativeLogits)
    found = few.top(count, without)
    every = few.at(range(ROWS))  # makes all of them exact
    ranked = sorted(enumerate(every), key=lambda pair: (-pair[1], pair[0]))
    assert found == [pair for pair in ranked if pair[0] not in without][:count]
    engine.release(sequence)


def test_the_best_is_found_without_reading_all(demo: Path) -> None:
    from model.baked.cache import baked_copy

    engine = NativeEngine(BakedModel(baked_copy(demo)), threads=1)
    (logits,) = engine.forward([Work(engine.new_sequence(), [5, 6, 7, 8])])
    assert logits is not None
    logits.top(1)
    assert _c().bloom_rescored(engine.handle) < 8192 / 4
