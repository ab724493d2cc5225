"""The demo model that is shipped: what it answers, and exactly what it writes without chance."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.load import LoadedModel, load
from model.sampling import SamplingParams
from model.serving.events import Done
from model.serving.request import GenerationRequest

pytestmark = pytest.mark.slow

# What each engine writes; the native one, at 8 bits, the same on every processor.
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)


@pytest.fixture(scope="module", params=["native", "reference"])
def loaded(demo: Path, request: pytest.FixtureRequest) -> Iterator[LoadedModel]:
    model = load(demo, engine=request.param, device="cpu")
    yield model
    model.close()


def write(model: LoadedModel, prompt: str, max_new_tokens: int = 80) -> str:
    request = GenerationRequest(
        tuple(model.tokenizer.ids(prompt)), max_new_tokens, GREEDY, stop=model.chat.stop
    )
    *_, last = model.scheduler.submit(request).events()
    assert isinstance(last, Done)
    return last.text


def ask(model: LoadedModel, *turns: str) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]
    return write(model, model.chat.render(messages)).strip()


@pytest.mark.parametrize("prompt", GOLDEN["reference"])
def test_the_golden_texts(loaded: LoadedModel, prompt: str) -> None:
    assert write(loaded, prompt) == GOLDEN[loaded.info.engine][prompt]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Hello", ("hello", "hi", "welcome", "nice", "hey")),
        ("What is piBLOOM?", ("raspberry", "bloom")),
        ("how do i start it", ("make up",)),
        ("What is the capital of France?", ("paris",)),
        ("What is 2 plus 3?", ("5",)),
        ("What is the opposite of hot?", ("cold",)),
        ("Who are you?", ("pibloom", "model")),
        ("Thank you!", ("welcome", "glad", "pleasure", "any time", "anytime")),
    ],
)
def test_first_questions_get_sensible_answers(
    loaded: LoadedModel, question: str, words: tuple[str, ...]
) -> None:
    answer = ask(loaded, question).lower()
    assert any(word in answer for word in words), answer


@pytest.mark.parametrize(
    ("question", "script"),
    [("مرحبا", "ARABIC"), ("你好", "CJK"), ("नमस्ते", "DEVANAGARI"), ("Good morning", "LATIN")],
)
def test_it_answers_in_the_language_of_the_question(
    loaded: LoadedModel, question: str, script: str
) -> None:
    letters = [letter for letter in ask(loaded, question) if letter.isalpha()]
    same = sum(unicodedata.name(letter).startswith(script) for letter in letters)
    assert letters
    assert same > len(letters) * 0.7


def test_it_remembers_a_name_within_a_chat(loaded: LoadedModel) -> None:
    said = "My name is Maria."
    answer = ask(loaded, said, ask(loaded, said), "What is my name?")
    assert "Maria" in answer


def test_a_story_has_an_end(loaded: LoadedModel) -> None:
    prompt = loaded.chat.render([{"role": "user", "content": "Tell me a story."}])
    story = write(loaded, prompt, max_new_tokens=250)
    assert story.count(".") >= 4
    assert story.rstrip()[-1] in '.!"'


def test_the_files_fit_into_a_repository(demo: Path) -> None:
    assert sum(path.stat().st_size for path in demo.iterdir()) < 25_000_000
    card = (demo / "README.md").read_text()
    assert "@" not in card  # no figure was left out
