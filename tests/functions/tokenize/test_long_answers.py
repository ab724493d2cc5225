"""Long answers, which are written in blocks, say what a short one does."""

import random
from contextlib import ExitStack

import pytest
from flask.testing import FlaskClient

from functions.errors import TooManyUploads
from functions.tokenize import long_answers
from functions.tokenize.long_answers import LONG_ANSWERS, MOST_ANSWERS, LongAnswers
from model.names import default_model
from model.text.tokenizer import Tokenizer

LONG_TEXTS = {
    "control characters": "\x7f" * 9000,
    "escapes": '\x01"\\' * 3000,
    "words": "Hello, 你好 🌺 " * 3000,
    "cut characters": "𐍈𝄞" * 3000,
    "one token short of long": "\x7f" * 4096,
    "one token more": "\x7f" * 4097,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_answer_is_as_a_short_one(tokenize: FlaskClient, name: str) -> None:
    text = LONG_TEXTS[name]
    expected = Tokenizer.open(default_model()).encode(text)
    reply = tokenize.post("/", json={"text": text})
    assert reply.content_type == "application/json"
    assert reply.json == {
        "ids": expected.ids,
        "pieces": expected.pieces,
        "offsets": [list(pair) for pair in expected.offsets],
        "count": len(expected.ids),
    }


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 20_000])
def test_many_ids_become_text(tokenize: FlaskClient, count: int) -> None:
    chance = random.Random(count)
    ids = [chance.randrange(8192) for _ in range(count)]
    expected = Tokenizer.open(default_model()).decode(ids)
    assert tokenize.post("/detokenize", json={"ids": ids}).json == {"text": expected}


@pytest.mark.parametrize(("size", "most"), [(1000, LONG_ANSWERS), (1, MOST_ANSWERS)])
def test_a_bounded_number_is_sent_at_once(
    size: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_answers, "PATIENCE", 0.01)
    room, places = LongAnswers(1000), ExitStack()
    for _ in range(most):
        room.reserve(size, places)
    with pytest.raises(TooManyUploads):
        room.reserve(size, places)
    places.close()
    with ExitStack() as again:
        room.reserve(size, again)
