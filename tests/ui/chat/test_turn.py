"""A turn on the page: its text as text, and the buttons below its reply."""

import asyncio

import pytest
from nicegui import ui
from nicegui.testing import User

from tests.ui.fake_functions import (
    ARABIC,
    ATTACK,
    Answer,
    error,
    refusal,
    said,
    token,
)
from tests.ui.simulated import (
    Site,
    prose,
    see,
    see_no,
    send,
    texts,
)

pytestmark = pytest.mark.asyncio


async def test_regenerate_replaces_the_reply(user: User, site: Site) -> None:
    site.fake.answers = [said("The first reply"), said("The second reply")]
    send(user, "Hello")
    await see(user, "The first reply")
    await see(user, "12.3 tokens/s")
    user.find(marker="regenerate").click()
    await see(user, "The second reply")
    await see_no(user, "The first reply")
    assert site.fake.requests[0] == site.fake.requests[1]
    assert texts(user, "question") == ["Hello"]


async def test_only_the_last_reply_can_be_regenerated(user: User) -> None:
    for text in ("Hello", "Hello again"):
        send(user, text)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while len(texts(user, "use-seed")) != len(texts(user, "question")):
                await asyncio.sleep(0.02)
    assert len(user.find(marker="regenerate").elements) == 1
    assert len(user.find(marker="copy").elements) == 2


async def test_a_failed_reply_keeps_text_and_place_and_retry_replaces_the_partial(
    user: User, site: Site
) -> None:
    broken = Answer([token("Half of", 0), {"error": error("internal", 500, "no")}])
    site.fake.answers = [broken, said("A whole reply")]
    send(user, "My long question")
    await see(user, "Something went wrong inside")
    assert texts(user, "question") == ["My long question"]
    assert "Half of" in prose(user)
    user.find(marker="retry").click()
    await see(user, "A whole reply")
    assert "Half of" not in prose(user)
    assert texts(user, "question") == ["My long question"]
    await see_no(user, "Something went wrong inside")


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer([token("Hal", 0)]), "The reply broke off"),
        (refusal("overloaded", 429), "Too many people are asking at once. Try again in 3 s."),
        (refusal("deadline", 504), "longer than it is allowed"),
        (refusal("draining", 503), "The model is being restarted."),
        (Answer(status=503, body="no healthy upstream"), "not available at the moment"),
        (Answer(status=200, body="<h1>hi</h1>"), "Something that is not piBLOOM"),
        (refusal("invalid_field", 422, "temperature must be at most 5."), "temperature must be"),
    ],
)
async def test_every_trouble_is_a_sentence_and_a_retry(
    user: User, site: Site, answer: Answer, sentence: str
) -> None:
    site.fake.answers = [answer, said("It works again")]
    send(user, "Hello")
    await see(user, sentence)
    if user._sees(marker="retry"):  # an away function may be back, and the reply resumed, by now
        user.find(marker="retry").click()
    await see(user, "It works again")


async def test_what_the_model_writes_never_becomes_markup(user: User) -> None:
    send(user, "attack me")
    await see(user, "THE END")
    html = prose(user)
    assert "<script" not in html
    assert "<img" not in html
    assert "<svg" not in html
    assert 'href="javascript' not in html
    assert "&lt;script&gt;" in html
    assert ATTACK.splitlines()[0] not in html


async def test_what_the_person_writes_is_text(user: User) -> None:
    send(user, "Hello <b>bold</b> **stars**")
    await see(user, "12.3 tokens/s")
    (question,) = user.find(marker="question").elements
    assert not isinstance(question, ui.html | ui.markdown)
    assert texts(user, "question") == ["Hello <b>bold</b> **stars**"]


async def test_the_seed_of_a_reply_can_be_used_again(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "seed 4711")
    user.find(marker="use-seed").click()
    user.find(marker="regenerate").click()
    await site.fake.wait_for(lambda: len(site.fake.requests) == 2)
    assert site.fake.requests[1]["seed"] == 4711


async def test_a_reply_can_be_copied_as_it_was_written(user: User) -> None:
    send(user, "Some code, please")
    await see(user, "12.3 tokens/s")
    (button,) = user.find(marker="copy").elements
    assert button.props["data-copy"].startswith("A loop adds the numbers:\n\n```python\n")


async def test_messages_and_input_find_their_own_direction(user: User) -> None:
    send(user, "مرحبا! كيف حالك؟")
    await see(user, "12.3 tokens/s")
    (question,) = user.find(marker="question").elements
    (reply,) = user.find(marker="prose").elements
    (box,) = user.find(marker="input").elements
    assert question.props["dir"] == reply.props["dir"] == box.props["dir"] == "auto"
    assert ARABIC.split()[0] in prose(user)
    assert '<p dir="auto">' in prose(user)
