"""The C on other processors, under sanitizers, and with damaged files."""

import json
import platform
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from model.baked.bake import bake
from model.baked.file import BakedModel
from model.baked.source import open_tokenizer
from model.checkpoint.folder import Checkpoint
from model.native.build import build
from tests.model.native.conftest import Bake

PROGRAM = Path(__file__).parent / "run.c"
TOKENS = [str(7 * at % 8000 + 5) for at in range(40)]
SANITIZERS = {
    "address and undefined": [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ],
    "thread": ["-fsanitize=thread"],
}
FUZZED = 3000  # damaged files in a run of the tests

needs_emulator = pytest.mark.skipif(
    not shutil.which("aarch64-linux-gnu-gcc") or not shutil.which("qemu-aarch64-static"),
    reason="gcc-aarch64-linux-gnu and qemu-user-static are not installed",
)


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, capture_output=True, input=text.encode(), timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def without_name(output: str) -> str:
    """Return what the engine printed, without the name of its instruction set."""
    return output.partition(" ")[2]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("here") / "run"
    build(program, program=PROGRAM)
    return program


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("arm") / "run"
    build(program, program=PROGRAM, compiler="aarch64-linux-gnu-gcc", flags=["-static"])
    return program


# Added tokens with each flag.
ADDED = {
    "<a>": ("lstrip", "rstrip", "special"),
    "<a>b": ("single_word",),
    "é": ("single_word", "normalized"),
    "你": ("lstrip", "rstrip", "normalized"),
    "<": ("special", "normalized"),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, random_bloom: Path) -> Path:
    """Return a small model, quick to copy and to damage: 2 layers, 3 heads of 20, an own head."""
    torch = pytest.importorskip("torch")
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path_factory.mktemp("small") / "bloom"
    torch.manual_seed(1)
    config = BloomConfig(
        vocab_size=265,
        hidden_size=60,
        n_layer=2,
        n_head=3,
        seq_length=64,
        tie_word_embeddings=False,
    )
    BloomForCausalLM(config).save_pretrained(folder)
    data = json.loads((random_bloom / "tokenizer.json").read_text())
    kept = sorted(data["model"]["vocab"].items(), key=lambda pair: pair[1])[:260]
    data["model"]["vocab"] = dict(kept)
    data["model"]["merges"] = []
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    data["added_tokens"] += [
        {"id": 260 + at, "content": content} | {flag: flag in which for flag in flags}
        for at, (content, which) in enumerate(ADDED.items())
    ]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


@needs_emulator
@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("processor", ["cortex-a72", "max"])
def test_arm_gives_the_same_bits(
    checkpoint: Path, baked: Bake, here: Path, arm: Path, processor: str, bits: int
) -> None:
    path = str(baked(checkpoint, bits).path)
    emulated = ("qemu-aarch64-static", "-cpu", processor, str(arm))
    theirs = run(*emulated, path, "best", "2", *TOKENS)
    assert theirs.startswith("neon" if processor == "cortex-a72" else "dotprod")
    ours = run(str(here), path, "best", "2", *TOKENS)
    assert without_name(theirs) == without_name(ours)
    assert "chunked as whole" in ours


@needs_emulator
def test_arm_splits_texts_alike(demo: Path, baked: Bake, arm: Path) -> None:
    model = baked(demo, 8)
    text = "Hello, 你好。 नमस्ते! </s> a\u0301\u3000🙂\n" * 50 + "x" * 5000
    emulated = ("qemu-aarch64-static", "-cpu", "cortex-a72", str(arm))
    found = [
        tuple(map(int, line.split()))
        for line in run(*emulated, "--encode", str(model.path), text=text).splitlines()
    ]
    encoding = model.tokenizer().encode(text)
    assert found == [(id_, *ends) for id_, ends in zip(encoding.ids, encoding.offsets, strict=True)]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the sets of x86")
def test_instructions_that_a_processor_lacks_are_refused(
    demo: Path, baked: Bake, here: Path
) -> None:
    done = subprocess.run(
        [str(here), str(baked(demo, 8).path), "neon", "1", "5", "6"], capture_output=True
    )
    assert done.returncode == 1
    assert b"lacks" in done.stderr


@pytest.mark.parametrize("kind", SANITIZERS)
def test_nothing_for_the_sanitizers(
    kind: str, tmp_path: Path, checkpoint: Path, baked: Bake, here: Path
) -> None:
    program = tmp_path / "run"
    build(program, program=PROGRAM, flags=["-O1", *SANITIZERS[kind]])
    for bits in (32, 8, 4):
        path = str(baked(checkpoint, bits).path)
        for isa in ("portable", "best"):
            found = run(str(program), path, isa, "3", *TOKENS)
            assert without_name(found) == without_name(run(str(here), path, isa, "1", *TOKENS))


def test_added_tokens_are_found_within_the_text(small: Path, tmp_path: Path) -> None:
    program, path = tmp_path / "run", tmp_path / "small.bloom"
    build(program, program=PROGRAM, flags=["-O1", *SANITIZERS["address and undefined"]])
    bake(Checkpoint.open(small), path, bits=8)
    tokenizer, rng = open_tokenizer(path), random.Random(1)
    parts = [*ADDED, " ", "\u3000", "\n", "a", "é", "\u0301", "."]
    for _ in range(100):
        text = "".join(rng.choices(parts, k=rng.randint(1, 20)))
        found = [
            tuple(map(int, line.split()))
            for line in run(str(program), "--encode", str(path), text=text).splitlines()
        ]
        encoding = tokenizer.encode(text)
        ends = encoding.offsets
        assert found == [(id_, *end) for id_, end in zip(encoding.ids, ends, strict=True)]


def test_damaged_files_do_no_harm(small: Path, tmp_path: Path) -> None:
    program = tmp_path / "run"
    build(program, program=PROGRAM, flags=["-O1", *SANITIZERS["address and undefined"]])
    for bits in (8, 4, 32):
        path = tmp_path / f"{bits}.bloom"
        bake(Checkpoint.open(small), path, bits=bits)
        BakedModel(path).verify()
        said = run(str(program), "--fuzz", str(path), str(bits), str(FUZZED // 3))
        count, opened = (int(word) for word in said.split() if word.isdigit())
        assert count == FUZZED // 3
        assert opened > count / 20, "the fuzzer no longer gets past the header"
