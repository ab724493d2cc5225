"""The training text: well formed, reproducible, and held out for real."""

import random
import re
from itertools import islice

import pytest

from model.demo import corpus
from model.text.chat import ChatTemplate

SPOKEN = corpus.languages()


def draw(count: int, seed: int = 3, *, held_out: bool = False) -> list[str]:
    return list(islice(corpus.documents(SPOKEN, seed, held_out=held_out), count))


@pytest.mark.parametrize("language", SPOKEN, ids=lambda language: language.code)
def test_every_template_can_be_filled(language: corpus.Language) -> None:
    rng = random.Random(1)
    for _ in range(3000):
        for turn in language.exchange(rng):
            assert turn.strip() == turn
            assert not re.search(r"[{}]", turn), turn
        assert not re.search(r"[{}]", language.prose(rng))


@pytest.mark.parametrize("language", SPOKEN, ids=lambda language: language.code)
def test_every_language_has_every_kind(language: corpus.Language) -> None:
    assert {kind for kind, _ in language.blocks} == set(corpus.BROAD)
    assert len(language.texts) >= 10
    assert len(language.stories) >= 5


def test_the_same_seed_gives_the_same_text() -> None:
    assert draw(200) == draw(200) != draw(200, seed=4)


def test_no_held_out_exchange_is_trained_on() -> None:
    def exchanges(documents: list[str]) -> set[str]:
        return set(re.findall(r"Assistant: (.*?)</s>", "\n".join(documents), re.DOTALL))

    rng = random.Random(5)
    for language in SPOKEN:
        kept = [language.exchange(rng) for _ in range(2000)]
        share = sum(map(corpus._is_held_out, kept)) / len(kept)
        assert 0.005 < share < 0.05
    assert exchanges(draw(50, held_out=True))


def test_conversations_are_what_the_chat_template_writes() -> None:
    talk = next(text for text in draw(100) if text.count("User:") == 2)
    turns = re.findall(r"(User|Assistant): (.*?)(?=</s>|\n)", talk, re.DOTALL)
    roles = {"User": "user", "Assistant": "assistant"}
    messages = [{"role": roles[who], "content": text} for who, text in turns]
    prompt = ChatTemplate(corpus.CHAT_TEMPLATE).render(messages[:-1])
    assert talk.startswith(prompt + " ")


@pytest.mark.parametrize("operator", ["+", "-", "*", "/"])
def test_sums_are_right(operator: str) -> None:
    rng = random.Random(2)
    for _ in range(500):
        a, b, c = corpus._sum(operator, rng)
        assert eval(f"{a} {operator} {b}") == c
        assert min(a, b, c) >= 0
