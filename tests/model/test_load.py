"""A loaded model answers, and says what it is."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BloomForCausalLM

from model.errors import ModelError
from model.load import LoadedModel, load
from model.names import ENGINES
from model.sampling import SamplingParams
from model.serving.events import Done, Generation, PromptToken, Token, events_of
from model.serving.request import GenerationRequest


@pytest.fixture(scope="module", params=ENGINES)
def loaded(demo: Path, request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    model = load(demo, engine=request.param, device="cpu")
    yield model
    model.close()


def finish(generation: Generation) -> Done:
    *_, last = generation.events(heartbeat=None)
    assert isinstance(last, Done)
    return last


def ask(model: LoadedModel, text: str, seed: int) -> Generation:
    prompt = model.chat.render([{"role": "user", "content": text}])
    sampling = SamplingParams(temperature=1.0, seed=seed)
    return model.scheduler.submit(
        GenerationRequest(tuple(model.tokenizer.ids(prompt)), max_new_tokens=30, sampling=sampling)
    )


def test_the_same_seed_gives_the_same_text_alone_and_in_a_batch(loaded: LoadedModel) -> None:
    alone = [finish(ask(loaded, "Tell me a story.", seed)).text for seed in (1, 2, 3, 4)]
    generations = [ask(loaded, "Tell me a story.", seed) for seed in (1, 2, 3, 4)]
    noise = [ask(loaded, "What is 2 + 2?", seed) for seed in (5, 6, 7)]
    assert [finish(generation).text for generation in generations] == alone
    for generation in noise:
        finish(generation)
    assert len(set(alone)) > 1


def test_streamed_text_adds_up_to_the_reply(loaded: LoadedModel) -> None:
    generation = ask(loaded, "你好！", 1)
    events = list(generation.events())
    last = events[-1]
    assert isinstance(last, Done)
    assert "".join(event.text for event in events if isinstance(event, Token)) == last.text


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_rows_and_special_tokens_are_never_drawn(random_bloom: Path, engine: str) -> None:
    model = load(random_bloom, engine=engine, device="cpu")
    try:
        wild = SamplingParams(temperature=50, top_k=0, top_p=1, repetition_penalty=1, seed=1)
        request = GenerationRequest((5, 6, 7), max_new_tokens=100, sampling=wild)
        events = list(model.scheduler.submit(request).events())
    finally:
        model.close()
    ids = [event.id for event in events if isinstance(event, Token)]
    assert len(ids) > 20
    assert all(id_ == 2 or 4 <= id_ < model.tokenizer.size for id_ in ids)


def test_it_says_what_it_is(loaded: LoadedModel, random_bloom: Path) -> None:
    info = loaded.info
    assert (info.name, info.architecture) == ("pibloom-demo", "BLOOM")
    assert info.engine in ENGINES
    assert info.vocab_size == 8192
    assert 8_000_000 < info.parameters < 9_000_000
    assert info.parameters < info.size_bytes <= 2 * info.parameters
    assert info.license


def test_an_unknown_engine_is_refused(demo: Path) -> None:
    with pytest.raises(ModelError, match="warp"):
        load(demo, engine="warp")


def test_weights_that_cannot_generate_are_refused(random_bloom: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_bloom, tmp_path / "bloom"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load(folder)


def test_the_native_engine_costs_no_torch(tmp_path: Path) -> None:
    """Serving and baking alike: from a checkpoint folder to a token."""
    code = """
import sys
from pathlib import Path
from model.names import default_model
from model.load import load
load(default_model()).close()
heavy = ("torch", "transformers", "tokenizers", "numpy", "safetensors.torch")
print([name for name in heavy if name in sys.modules])
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"


def test_choices_of_one_prompt_read_it_once(demo: Path) -> None:
    model = load(demo, engine="native")
    ids = tuple(model.tokenizer.ids("Once upon a time there was a small fox. " * 12))
    sampling = replace(model.sampling, seed=1)
    jobs = model.scheduler.submit_all([GenerationRequest(ids, 4, sampling) for _ in range(3)])
    ends = [found[1] for found in events_of(jobs, 20) if found and isinstance(found[1], Done)]
    model.scheduler.close()
    read = sorted(done.prompt_tokens - done.cached_tokens for done in ends)
    assert read[-1] == len(ids)
    assert read[0] <= read[1] <= 16, "what one has read, the others find"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompts_tokens_are_as_likely_as_the_model_says(demo: Path, engine: str) -> None:
    model = load(demo, engine=engine, device="cpu")
    ids = tuple(model.tokenizer.ids("Once upon a time there was a fox."))
    asked = GenerationRequest(
        ids, 1, SamplingParams(temperature=0), logprobs=1, prompt_logprobs=True
    )
    events = list(model.scheduler.submit(asked).events(heartbeat=None))
    model.close()
    reported = [event for event in events if isinstance(event, PromptToken)]
    plain = BloomForCausalLM.from_pretrained(demo, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = plain(torch.tensor([ids])).logits[0, :-1, : model.tokenizer.size]
        logits[:, [0, 1, 3]] = -torch.inf
        right = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    assert [each.id for each in reported] == list(ids[1:])
    ours = torch.tensor([each.likelihood.logprob for each in reported])
    assert (ours - right).abs().max() < (0.3 if engine == "native" else 1e-3)


@pytest.mark.parametrize("template", ["{{ 'a' * 10**9 }}", "{% for %}", b"\xff"], ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_template_that_cannot_be_used_is_overridden_by_the_setting(
    demo: Path, tmp_path: Path, engine: str, template: str | bytes
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(demo, folder)
    data = template if isinstance(template, bytes) else template.encode()
    (folder / "chat_template.jinja").write_bytes(data)
    with pytest.raises(ModelError, match="chat.template.*; PIBLOOM_CHAT_TEMPLATE can name another"):
        load(folder, engine=engine, device="cpu")
    model = load(folder, engine=engine, device="cpu", chat_template="transcript")
    assert model.chat.render([{"role": "user", "content": "a"}]) == "User: a\nAssistant:"
    model.close()
