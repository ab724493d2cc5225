"""Models with a cut vocabulary: the same numbers for what is kept, under the new ids."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.baked.bake import bake, bake_tokenizer_only, planned_sizes
from model.baked.file import BakedModel
from model.baked.source import card_of
from model.checkpoint.adapter import Adapter
from model.checkpoint.folder import Checkpoint
from model.engine.contract import Work
from model.engine.native import NativeEngine
from model.load import load
from model.sampling import SamplingParams
from model.serving.events import Done, Token
from model.serving.request import GenerationRequest
from model.text.chat import ChatSource
from model.vocabulary.chat import tokens_of_chats
from model.vocabulary.cut import VocabularyCut, cut_vocabulary
from tests.model.baked.sections import tensors_and_tokenizer

TEXT = "The cat sat on the mat, and नमस्ते. "


@pytest.fixture(scope="module")
def untied(random_bloom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLOOM with an output head of its own."""
    folder = Path(shutil.copytree(random_bloom, tmp_path_factory.mktemp("untied") / "bloom"))
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(3)
    shape = weights["transformer.word_embeddings.weight"].shape
    save_file(weights | {"lm_head.weight": 0.2 * torch.randn(shape)}, folder / "model.safetensors")
    return folder


def cut_of(checkpoint: Checkpoint, *scripts: str, always: tuple[int, ...] = ()) -> VocabularyCut:
    ends = {*checkpoint.config.eos_token_ids, *always}
    return cut_vocabulary(checkpoint.tokenizer(), scripts=scripts or ("Latin",), always=ends)


def logits(path: Path, tokens: list[int], ids: list[int]) -> list[float]:
    engine = NativeEngine(BakedModel(path), threads=1)
    try:
        (found,) = engine.forward([Work(engine.new_sequence(), tokens)])
        assert found is not None
        return found.at(ids)
    finally:
        engine.close()


@pytest.mark.parametrize("bits", [8, 4, 32])
@pytest.mark.parametrize("kind", ["demo", "random_bloom", "untied"])
def test_logits_of_kept_tokens_are_the_same_bits(
    kind: str, bits: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = Checkpoint.open(request.getfixturevalue(kind))
    cut = cut_of(whole, "Latin", "Devanagari")
    smaller = whole.cut_to(cut)
    assert smaller.has_own_head == whole.has_own_head == (kind == "untied")
    bake(whole, tmp_path / "whole.bloom", bits=bits)
    bake(smaller, tmp_path / "cut.bloom", bits=bits)
    before = whole.tokenizer().ids(TEXT)
    after = BakedModel(tmp_path / "cut.bloom").tokenizer().ids(TEXT)
    assert after == [cut.new_ids[id_] for id_ in before]
    expected = logits(tmp_path / "whole.bloom", before, list(cut.ids))
    found = logits(tmp_path / "cut.bloom", after, list(range(len(cut.ids))))
    assert found == expected
    assert len(set(found)) > len(found) / 2, "they differ from each other"


def test_an_adapter_is_merged_into_a_cut_model_too(random_bloom: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(random_bloom)
    module = "h.1.self_attention.dense"
    folder = tmp_path / "lora"
    folder.mkdir()
    described = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(described))
    torch.manual_seed(5)
    prefix = f"base_model.model.transformer.{module}"
    parts = {
        f"{prefix}.lora_A.weight": torch.randn(2, 96),
        f"{prefix}.lora_B.weight": torch.randn(96, 2),
    }
    save_file(parts, folder / "adapter_model.safetensors")
    cut = cut_of(whole)
    smaller = whole.cut_to(cut)
    bake(whole, tmp_path / "a.bloom", adapter=Adapter.open(folder, whole.config))
    bake(smaller, tmp_path / "b.bloom", adapter=Adapter.open(folder, smaller.config))
    bake(smaller, tmp_path / "c.bloom")
    before = whole.tokenizer().ids("The cat")
    after = [cut.new_ids[id_] for id_ in before]
    ids = list(range(len(cut.ids)))
    assert logits(tmp_path / "b.bloom", after, ids) == logits(
        tmp_path / "a.bloom", before, list(cut.ids)
    )
    assert logits(tmp_path / "b.bloom", after, ids) != logits(tmp_path / "c.bloom", after, ids)


@pytest.mark.slow
def test_a_cut_of_a_bin_is_that_of_safetensors(untied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(untied, tmp_path / "bloom"))
    cut = cut_of(Checkpoint.open(folder))
    bake(Checkpoint.open(folder).cut_to(cut), tmp_path / "a.bloom")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    bake(Checkpoint.open(folder).cut_to(cut), tmp_path / "b.bloom")
    one, other = (tensors_and_tokenizer(BakedModel(tmp_path / f"{at}.bloom")) for at in "ab")
    assert one == other


def test_the_ids_that_end_a_reply_are_kept_and_renamed(random_bloom: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_bloom, tmp_path / "bloom"))
    tokenizer = Checkpoint.open(folder).tokenizer()
    (han,) = tokenizer.ids("的", add_special_tokens=False)
    ends = [2, han, 8195]  # the last one is of a row that no token has
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    whole = Checkpoint.open(folder)
    assert whole.config.eos_token_ids == tuple(ends)
    cut = cut_of(whole)
    bake(whole.cut_to(cut), tmp_path / "m.bloom")
    baked = BakedModel(tmp_path / "m.bloom")
    assert han > cut.new_ids[han]
    assert baked.config.eos_token_ids == (2, cut.new_ids[han])
    assert baked.tokenizer().piece(cut.new_ids[han]) == "的"
    assert baked.config.vocab_size == baked.n_vocab == len(cut.ids)


def test_a_cut_model_answers_as_the_whole_one(demo: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(demo)
    chat = tokens_of_chats(ChatSource.read(demo), whole.tokenizer())
    cut = cut_of(whole, "Arabic", always=tuple(chat))
    paths = [tmp_path / "whole.bloom", tmp_path / "cut.bloom"]
    bake(whole, paths[0])
    bake(whole.cut_to(cut_of(whole, "Latin", always=tuple(chat))), paths[1])
    replies = []
    for path in paths:
        model = load(path, threads=1)
        try:
            prompt = model.chat.render([{"role": "user", "content": "What is piBLOOM?"}])
            ids = model.tokenizer.ids(prompt, add_special_tokens=False)
            replies.append((model.chat.stop, model.tokenizer.decode(ids), reply(model, ids)))
        finally:
            model.close()
    assert replies[0] == replies[1]
    assert chat <= set(cut.ids), "what the template writes is kept, whatever else is not"


def test_a_bias_by_id_counts_for_the_new_id(demo: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(demo)
    cut = cut_of(whole)
    (former,) = whole.tokenizer().ids(" water", add_special_tokens=False)
    assert cut.new_ids[former] < former
    bake(whole.cut_to(cut), tmp_path / "m.bloom")
    model = load(tmp_path / "m.bloom", threads=1)
    try:
        sampling = SamplingParams(temperature=0, logit_bias=((cut.new_ids[former], 100.0),))
        assert reply(model, model.tokenizer.ids("The"), sampling, 2) == " water water"
    finally:
        model.close()


def reply(
    model: Any,
    ids: list[int],
    sampling: SamplingParams = SamplingParams(temperature=0),  # noqa: B008
    limit: int = 40,
) -> str:
    request = GenerationRequest(prompt=tuple(ids), max_new_tokens=limit, sampling=sampling)
    events = list(model.scheduler.submit(request).events())
    assert isinstance(events[-1], Done)
    return "".join(each.text for each in events if isinstance(each, Token))


def test_the_card_says_what_was_kept(demo: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(demo)
    cut = cut_of(whole, "Latin", "Han")
    bake(whole.cut_to(cut), tmp_path / "m.bloom")
    bake_tokenizer_only(demo, tmp_path / "t.bloom", cut=cut)
    for name in ("m.bloom", "t.bloom"):
        card = card_of(BakedModel(tmp_path / name)).cut
        assert card is not None
        assert card.kept == ["Latin", "Han"]
        assert (card.entries_before, card.entries_after) == (8192, len(cut.ids))
    model = load(tmp_path / "m.bloom", threads=1)
    model.close()
    assert model.info.cut == card
    assert model.info.vocab_size == len(cut.ids)


def test_the_tokenizer_alone_is_the_one_of_the_cut_model(demo: Path, tmp_path: Path) -> None:
    whole = Checkpoint.open(demo)
    cut = cut_of(whole)
    bake(whole.cut_to(cut), tmp_path / "m.bloom")
    bake_tokenizer_only(demo, tmp_path / "folder.bloom", cut=cut)
    bake_tokenizer_only(tmp_path / "m.bloom", tmp_path / "file.bloom")
    of_model, of_folder, of_file = (
        BakedModel(tmp_path / f"{name}.bloom").tokenizer().compiled
        for name in ("m", "folder", "file")
    )
    assert of_model == of_folder == of_file


@pytest.mark.parametrize("bits", [8, 4, 32])
@pytest.mark.parametrize("kind", ["random_bloom", "untied"])
def test_sizes_are_known_before_anything_is_written(
    kind: str, bits: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = Checkpoint.open(request.getfixturevalue(kind))
    for checkpoint in (whole, whole.cut_to(cut_of(whole))):
        planned = planned_sizes(checkpoint, bits)
        bake(checkpoint, tmp_path / "m.bloom", bits=bits)
        baked = BakedModel(tmp_path / "m.bloom")
        page = 4096
        assert 0 <= baked.header.metadata_offset - planned.file < 2 * page
        skipped = [each for each in baked.tensors if each.name.endswith(".low")]
        if kind == "untied":
            skipped += [
                each
                for each in baked.tensors
                if each.name.startswith("word_embeddings.") and each not in skipped
            ]
        every = sum(each.nbytes for each in baked.tensors)
        assert planned.token == every - sum(each.nbytes for each in skipped)
