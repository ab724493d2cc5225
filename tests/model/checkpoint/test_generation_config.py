"""What is taken of `generation_config.json` and `config.json`, against transformers' reading."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig as Theirs

from model.checkpoint.generation_config import GenerationConfig
from model.errors import ModelError
from model.load import load
from model.sampling import MAX_TOP_K, SamplingParams
from model.serving.events import Done
from model.serving.request import GenerationRequest

ABSENT = object()  # of a field
NO_FILE = object()
ROWS = 100


def write(folder: Path, config: object, generation: object) -> None:
    written: dict[str, Any] = {} if config is ABSENT else {"eos_token_id": config}
    (folder / "config.json").write_text(json.dumps({"model_type": "bloom"} | written))
    if generation is not NO_FILE:
        written = {} if generation is ABSENT else {"eos_token_id": generation}
        (folder / "generation_config.json").write_text(json.dumps(written))


def theirs(folder: Path) -> object:
    """What `BloomForCausalLM.from_pretrained` takes of a folder, without loading weights."""
    try:
        return Theirs.from_pretrained(folder).eos_token_id
    except OSError:  # there is no such file
        return Theirs.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True
        ).eos_token_id


@pytest.mark.parametrize("generation", [NO_FILE, ABSENT, None, 2, 0, [5, 6], [7], [5, 5], 7.0])
@pytest.mark.parametrize("config", [ABSENT, None, 2, [3, 4], [9]])
def test_the_ends_are_those_of_transformers(
    tmp_path: Path, config: object, generation: object
) -> None:
    write(tmp_path, config, generation)
    right = theirs(tmp_path)
    expected = dict.fromkeys([] if right is None else right if isinstance(right, list) else [right])
    found = GenerationConfig.open(tmp_path, ROWS)
    assert found.eos_token_ids == tuple(expected)
    assert all(type(id_) is int for id_ in found.eos_token_ids)
    assert bool(found.notes) == (not expected), "there is a note about a model without an end"


@pytest.mark.parametrize("value", ["2", True, [True], {}, [[2]], [2, "x"], [2, None], 2.5, [2.5]])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_ends_that_are_no_ids_are_refused_by_name(tmp_path: Path, file: str, value: object) -> None:
    write(tmp_path, value, NO_FILE if file == "config.json" else value)
    with pytest.raises(ModelError, match=rf"{file}: eos_token_id must be an id"):
        GenerationConfig.open(tmp_path, ROWS)


@pytest.mark.parametrize("value", [-1, 100, 250_680, 10**30, [2, -1], [2, 10**30]])
def test_ends_outside_of_the_vocabulary_end_nothing_and_are_told(
    tmp_path: Path, value: object
) -> None:
    write(tmp_path, 2, value)
    found = GenerationConfig.open(tmp_path, ROWS)
    assert found.eos_token_ids == ((2,) if isinstance(value, list) else ())
    assert "is not an id of the vocabulary" in found.notes[0]


OURS = SamplingParams()
SAMPLING: list[tuple[dict[str, object], SamplingParams, bool]] = [
    ({}, OURS, False),
    ({"temperature": None, "top_k": None, "top_p": None, "do_sample": None}, OURS, False),
    ({"do_sample": False}, replace(OURS, temperature=0.0), False),
    ({"do_sample": False, "temperature": 0.6}, replace(OURS, temperature=0.0), False),
    ({"do_sample": True, "temperature": 0.6}, replace(OURS, temperature=0.6), False),
    ({"temperature": 1}, replace(OURS, temperature=1.0), False),
    ({"temperature": 0.0}, replace(OURS, temperature=0.0), False),
    ({"temperature": -1}, OURS, True),
    ({"temperature": "hot"}, OURS, True),
    ({"temperature": float("nan")}, OURS, True),
    ({"temperature": 10**400}, OURS, True),
    ({"top_k": 0}, replace(OURS, top_k=0), False),
    ({"top_k": 50.0}, replace(OURS, top_k=50), False),
    ({"top_k": -1}, replace(OURS, top_k=0), True),
    ({"top_k": 5000}, replace(OURS, top_k=MAX_TOP_K), True),
    ({"top_k": MAX_TOP_K}, replace(OURS, top_k=MAX_TOP_K), False),
    ({"top_k": 2.5}, OURS, True),
    ({"top_k": True}, OURS, True),
    ({"top_k": [50]}, OURS, True),
    ({"top_p": 1}, replace(OURS, top_p=1.0), False),
    ({"top_p": 1.5}, replace(OURS, top_p=1.0), False),
    ({"top_p": -0.1}, OURS, True),
    ({"min_p": 0.1}, replace(OURS, min_p=0.1), False),
    ({"min_p": 2}, OURS, True),
    ({"repetition_penalty": 1.3}, replace(OURS, repetition_penalty=1.3), False),
    ({"repetition_penalty": 0}, OURS, True),
    ({"repetition_penalty": None}, OURS, False),
    ({"num_beams": 1, "typical_p": 1.0, "no_repeat_ngram_size": 0}, OURS, False),
    ({"num_beams": 4}, OURS, True),
    ({"suppress_tokens": []}, OURS, False),
    ({"suppress_tokens": [5]}, OURS, True),
    ({"stop_strings": ["User:"]}, OURS, True),
    ({"guidance_scale": 1.5}, OURS, True),
    ({"max_length": 20, "pad_token_id": 3, "transformers_version": "4.30.0"}, OURS, False),
]


@pytest.mark.parametrize(("data", "expected", "noted"), SAMPLING, ids=lambda value: str(value)[:60])
def test_odd_sampling_never_refuses_a_model(
    data: dict[str, object], expected: SamplingParams, noted: bool
) -> None:
    found = GenerationConfig.from_dict({"eos_token_id": 2} | data, ROWS)
    assert found.sampling == expected
    assert bool(found.notes) == noted
    for note in found.notes:
        assert note.startswith("generation_config.json: ")
        assert any(name in note for name in data)


def test_a_top_p_of_zero_keeps_the_likeliest_only() -> None:
    found = GenerationConfig.from_dict({"eos_token_id": 2, "top_p": 0.0}, ROWS)
    assert 0 < found.sampling.top_p < 1e-9
    assert not found.notes


def test_without_its_file_the_model_s_configuration_says(tmp_path: Path) -> None:
    """As transformers does for older checkpoints."""
    (tmp_path / "config.json").write_text('{"eos_token_id": 5, "temperature": 0.3, "top_k": 7}')
    found = GenerationConfig.open(tmp_path, ROWS)
    assert found.sampling == replace(OURS, temperature=0.3, top_k=7)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert GenerationConfig.open(tmp_path, ROWS).sampling == OURS


# What may stand there and changes no word of a reply, or nothing but its length.
WITHOUT_EFFECT = {
    *("max_length", "max_new_tokens", "max_time", "num_return_sequences"),
    *("bos_token_id", "decoder_start_token_id", "pad_token_id", "transformers_version"),
    *("output_attentions", "output_hidden_states", "output_logits", "output_scores"),
    *("remove_invalid_values", "renormalize_logits", "return_dict_in_generate"),
    # How keys and values are held, and how it is computed.
    *("cache_config", "cache_implementation", "compile_config", "disable_compile", "low_memory"),
    *("max_cache_len", "prefill_chunk_size", "use_cache", "continuous_batching_config"),
    # Speculation, which draws the same in other steps.
    *("assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight"),
    *("assistant_lookbehind", "is_assistant", "max_matching_ngram_size", "num_assistant_tokens"),
    *("num_assistant_tokens_schedule", "prompt_lookup_num_tokens", "speculation_type"),
    *("target_lookbehind", "use_mtp"),
    # For several beams, which num_beams shows.
    *("diversity_penalty", "early_stopping", "length_penalty", "num_beam_groups"),
}


def test_every_field_that_transformers_knows_is_taken_told_or_without_effect() -> None:
    taken = {"eos_token_id", "do_sample", *SamplingParams.__dataclass_fields__}
    noted = set()
    known = {name for name in Theirs().__dict__ if not name.startswith("_")}
    for name in known - taken:
        notes = GenerationConfig.from_dict({"eos_token_id": 2, name: 7}, ROWS).notes
        if any(
            note.startswith(f"generation_config.json: {name} 7 is not supported") for note in notes
        ):
            noted.add(name)
    assert known - taken - noted == WITHOUT_EFFECT & known
    assert {"no_repeat_ngram_size", "suppress_tokens", "token_healing"} <= noted


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "\x00", "[" * 100_000])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        GenerationConfig.open(tmp_path, ROWS)


def greedy(folder: Path, engine: str) -> Done:
    model = load(folder, engine=engine, device="cpu")
    try:
        ids = tuple(model.tokenizer.ids("Once upon a time"))
        request = GenerationRequest(ids, 40, SamplingParams(temperature=0, repetition_penalty=1.0))
        *_, last = model.scheduler.submit(request).events()
    finally:
        model.close()
    assert isinstance(last, Done)
    return last


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_every_end_of_the_list_ends_a_reply(tmp_path: Path, demo: Path, engine: str) -> None:
    folder = Path(shutil.copytree(demo, tmp_path / "demo"))
    path = folder / "generation_config.json"
    path.write_text('{"eos_token_id": null}')
    free = greedy(folder, engine)
    assert free.finish_reason == "length"
    model = load(folder, engine="native")
    written = model.tokenizer.ids(free.text)
    model.close()
    path.write_text(json.dumps({"eos_token_id": [2, written[5]]}))
    ended = greedy(folder, engine)
    assert ended.finish_reason == "stop"
    assert ended.completion_tokens <= 6
    assert free.text.startswith(ended.text)
    assert len(ended.text) < len(free.text)


def test_the_demo_names_its_end(demo: Path) -> None:
    found = GenerationConfig.open(demo, 8192)
    assert found.eos_token_ids == (2,)
    assert not found.notes
