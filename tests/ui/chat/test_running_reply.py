"""A reply while it is written: its states, its speed, its text, and how it fails."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from nicegui.testing import User

from tests.ui.fake_functions import (
    Answer,
    done,
    halted,
    token,
)
from tests.ui.simulated import (
    Site,
    prose,
    see,
    send,
)
from ui.api.client import FunctionsClient
from ui.api.events import ReplyEvent, TokenEvent
from ui.chat import markdown
from ui.chat.markdown import render

PRIVATE = "what somebody wrote"

pytestmark = pytest.mark.asyncio


async def test_each_state_is_said_in_words(user: User, site: Site) -> None:
    gates = [asyncio.Event() for _ in range(5)]
    site.fake.answers = [
        Answer(
            [
                gates[0],
                {"status": {"state": "loading"}},
                gates[1],
                {"status": {"state": "queued", "position": 2}},
                gates[2],
                {"status": {"state": "prefill", "done": 16, "total": 64}},
                gates[3],
                {"status": {"state": "generating"}},
                token("Hi", 0),
                0.4,
                token(" there", 1),
                gates[4],
                done("Hi there", 5, 2),
            ]
        )
    ]
    send(user, "Hello")
    for words, gate in zip(
        (
            "Asking",
            "Loading the model",
            "place 2",
            "Reading the prompt · 25 %",
            "Writing · 2 tokens",
        ),
        gates,
        strict=True,
    ):
        await see(user, words)
        gate.set()
    await see(user, "2 tokens · 12.3 tokens/s · 1.0 s")
    await see(user, "seed 4711")


async def test_a_connection_without_an_answer_is_said_to_be_waking(user: User, site: Site) -> None:
    site.fake.answers = [Answer([asyncio.Event()])]
    send(user, "Hello")
    await see(user, "Waking the function… 0.")


async def test_the_speed_is_shown_while_it_writes(user: User, site: Site) -> None:
    gate = asyncio.Event()
    site.fake.answers = [
        Answer([token("a", 0), 0.4, token("b", 1), gate, done("ab", 1, 2)]),
    ]
    send(user, "Hello")
    await see(user, "Writing · 2 tokens · 2")  # one more token in 0.4 s
    gate.set()
    await see(user, "12.3 tokens/s")


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, RecursionError, OSError])
@pytest.mark.parametrize("place", ["before the first event", "behind a token"])
async def test_an_unexpected_error_ends_the_reply_and_not_the_chat(
    user: User,
    site: Site,
    kind: type[Exception],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reply(*_: object) -> AsyncIterator[ReplyEvent]:
        if place == "behind a token":
            yield TokenEvent("Half", 1)
        raise kind(PRIVATE)

    with monkeypatch.context() as patch:
        patch.setattr(FunctionsClient, "reply", reply)
        send(user, "Hello")
        await see(user, "Something went wrong in the chat.")
    assert kind.__name__ in caplog.text
    assert PRIVATE not in caplog.text
    caplog.clear()
    user.find(marker="retry").click()
    await see(user, "Hello! I am piBLOOM.")


async def test_tokens_are_counted_while_it_writes_and_not_pieces(user: User, site: Site) -> None:
    gate = asyncio.Event()
    piece = {"token": {"text": "你好", "index": 0, "tokens": 5}}
    site.fake.answers = [Answer([piece, gate, done("你好", 1, 5)])]
    send(user, "Hello")
    await see(user, "Writing · 5 tokens")
    gate.set()
    await see(user, "5 tokens · 12.3 tokens/s")


async def test_a_long_block_is_shown_to_its_end_while_it_is_written(user: User, site: Site) -> None:
    text = "".join(f"- item {number}\n" for number in range(300))
    gate = asyncio.Event()
    site.fake.answers = [halted(text, gate)]
    send(user, "Hello")
    await see(user, "item 299")
    gate.set()
    await see(user, "12.3 tokens/s")
    assert prose(user) == "".join(render(text))


async def test_markdown_is_rendered_off_the_event_loop(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    blocks = markdown.render_blocks

    def noted(text: str) -> tuple[list[str], int]:
        if text:
            threads.append(threading.current_thread())
        return blocks(text)

    monkeypatch.setattr(markdown, "render_blocks", noted)
    send(user, "Some code, please")
    await see(user, "12.3 tokens/s")
    assert threads
    assert threading.main_thread() not in threads


async def test_how_long_it_took_to_wake_is_told(user: User, site: Site) -> None:
    gate = asyncio.Event()
    site.fake.answers = [
        Answer([{"status": {"state": "loading"}}, gate, token("Hi", 0), done("Hi", 5, 1)])
    ]
    send(user, "Hello")
    await see(user, "Loading the model… 0.")
    gate.set()
    await see(user, "awake after 0.")


async def test_only_changed_blocks_of_a_streaming_reply_are_touched(user: User, site: Site) -> None:
    gate = asyncio.Event()
    text = "First paragraph.\n\nSecond\n"
    site.fake.answers = [
        Answer([token(text, 0), gate, token("and more", 1), done(text + "and more", 1, 2)])
    ]
    send(user, "Hello")
    await see(user, "Second")
    (element,) = user.find(marker="prose").elements
    before = list(element)
    gate.set()
    await see(user, "and more")
    assert list(element) == before
