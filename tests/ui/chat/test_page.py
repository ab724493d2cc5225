"""The chat in simulated browsers: what a person types, sees and presses, and what goes wrong."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from nicegui import app, ui
from nicegui.testing import User
from nicegui.testing.user_interaction import UserInteraction

from tests.ui.conftest import PATIENCE, QUICK, Site, prose, send, texts
from tests.ui.fake_functions import (
    ARABIC,
    ATTACK,
    Answer,
    Fake,
    both,
    done,
    error,
    pieces,
    refusal,
    said,
    token,
)
from ui.api.client import FunctionsClient
from ui.api.events import ReplyEvent, TokenEvent
from ui.chat import markdown
from ui.chat import page as page_module
from ui.chat.draft import MOST_COUNTED
from ui.chat.markdown import render
from ui.chat.page import ChatPage
from ui.settings import Settings

pytestmark = pytest.mark.asyncio

PRIVATE = "what somebody wrote"


async def see(user: User, what: str) -> None:
    await user.should_see(what, retries=PATIENCE)


async def see_no(user: User, what: str) -> None:
    await user.should_not_see(what, retries=PATIENCE)


def draft(user: User) -> str:
    (element,) = user.find(marker="input").elements
    assert isinstance(element, ui.textarea)
    return element.value or ""


async def count_says(user: User, what: str) -> None:
    async with asyncio.timeout(5):
        while texts(user, "draft-tokens") != [what]:
            await asyncio.sleep(0.02)


def halted(text: str, gate: asyncio.Event | None = None) -> Answer:
    """Say a text, then wait, for ever or until the gate opens."""
    steps = [token(piece, index) for index, piece in enumerate(pieces(text))]
    return Answer([*steps, gate or asyncio.Event(), done(text, 5, len(steps))])


async def test_open_type_and_see_the_reply(user: User, site: Site) -> None:
    send(user, "Hello there")
    await see(user, "Hello! I am piBLOOM.")
    await see(user, "12.3 tokens/s")
    assert texts(user, "question") == ["Hello there"]
    assert draft(user) == ""
    assert site.fake.requests[0]["messages"] == [{"role": "user", "content": "Hello there"}]
    await see_no(user, "What shall we talk about?")


async def test_the_second_question_carries_the_first_turn(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    send(user, "And now a story")
    await see(user, "Once upon a time")
    assert [m["role"] for m in site.fake.requests[1]["messages"]] == ["user", "assistant", "user"]


async def test_blank_input_asks_nothing(user: User, site: Site) -> None:
    send(user, "  \n ")
    user.find(marker="send").click()
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert len(site.fake.requests) == 1


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


async def test_stop_keeps_what_is_there_and_ends_the_generation(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half of a reply")]
    send(user, "Hello")
    await see(user, "Half of a reply")
    user.find(marker="stop").click()
    await see(user, "Stopped")
    await site.fake.wait_for(lambda: site.fake.left == 1)
    assert "Half of a reply" in prose(user)
    send(user, "Hello again")
    await see(user, "Hello! I am piBLOOM.")


async def test_stop_before_the_first_step_of_a_reply(user: User, site: Site) -> None:
    (page,) = site.tabs.pages.values()
    with user:
        page.send("Hello")
        page.stop()  # both events came in one packet
    await see(user, "Stopped")
    await see_no(user, "Asking…")
    send(user, "Hello again")
    await see(user, "Hello! I am piBLOOM.")


async def test_another_attempt_right_after_stop_shows_nothing_of_the_first(
    user: User, site: Site
) -> None:
    site.fake.answers = [halted("The first reply"), said("The second one")]
    send(user, "Hello")
    await see(user, "The first")
    (page,) = site.tabs.pages.values()
    with user:
        page.stop()
        page.again()
    await see(user, "The second one")
    await see(user, "12.3 tokens/s")
    assert "first" not in prose(user)


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
    blocks = markdown._blocks

    def noted(text: str) -> tuple[list[str], int]:
        if text:
            threads.append(threading.current_thread())
        return blocks(text)

    monkeypatch.setattr(markdown, "_blocks", noted)
    send(user, "Some code, please")
    await see(user, "12.3 tokens/s")
    assert threads
    assert threading.main_thread() not in threads


async def test_a_running_reply_keeps_the_next_message_in_the_input(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    send(user, "Too early")
    assert draft(user) == "Too early"
    assert len(site.fake.requests) == 1


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


async def test_a_function_that_is_down_is_waited_for_and_then_the_chat_goes_on(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    await user.open("/")
    await see(user, "pibloom-demo")
    # The function goes away: a request is refused where it was answered before.
    site.fake.answers = [Answer(status=503, body="no healthy upstream")]
    site.fake.ready = False
    send(user, "Are you there?")
    await see(user, "Your text is kept")
    await see(user, "Retry")
    assert texts(user, "question") == ["Are you there?"]
    asked = len(site.fake.requests)
    site.fake.ready = True
    await see(user, "The model is back.")
    await see(user, "Once upon a time")
    assert len(site.fake.requests) == asked + 1
    assert texts(user, "question") == ["Are you there?"]
    await see_no(user, "The model is back.")


async def test_a_page_opened_while_the_function_is_down_says_so_and_recovers(
    simulation: tuple[User, Site], fake: Fake
) -> None:
    user, site = simulation
    async with both(Fake()) as gone:
        port = int(gone.generate_url.rpartition(":")[2])
    functions = FunctionsClient(Settings(gone.generate_url, fake.tokenize_url))

    @ui.page("/down")
    async def down() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/down")
    await see(user, "The generate function cannot be reached.")
    await see(user, "Offline")
    user.find(marker="input").type("Do not lose me")
    send_text = draft(user)
    user.find(marker="send").click()
    await see(user, "Retry")
    async with both(Fake(), port):
        await see(user, "The model is back.")
        await see(user, "Once upon a time")
        assert texts(user, "question") == [send_text] == ["Do not lose me"]
        for page in list(site.tabs.pages.values()):
            page.leave()
        await functions.aclose()


async def test_two_tabs_never_see_each_others_text(user: User, site: Site) -> None:
    other = site.new_user()
    await other.open("/")
    await see(other, "What shall we talk about?")
    site.fake.answers = [said("The walrus answers"), said("The zebra answers")]
    send(user, "Where is the walrus?")
    await see(user, "The walrus answers")
    send(other, "Where is the zebra?")
    await see(other, "The zebra answers")
    await see(other, "12.3 tokens/s")
    await user.should_not_see("zebra")
    await other.should_not_see("walrus")
    assert "walrus" not in str(site.fake.requests[1])
    stored = [str(app.storage._tabs[browser.tab_id]) for browser in (user, other)]
    assert "walrus" in stored[0]
    assert "zebra" not in stored[0]
    assert "zebra" in stored[1]
    assert "walrus" not in stored[1]


async def test_two_tabs_of_one_browser_never_see_each_others_text(user: User, site: Site) -> None:
    second = User(user.http_client)  # the same cookies, another tab
    await second.open("/")
    await see(second, "What shall we talk about?")
    send(user, "Hello from one")
    await see(user, "Hello! I am piBLOOM.")
    await second.should_not_see("Hello from one")
    assert texts(second, "question") == []
    assert "Hello from one" not in str(dict(app.storage._users))


async def test_streams_of_two_tabs_do_not_mix(user: User, site: Site) -> None:
    other = site.new_user()
    await other.open("/")
    await see(other, "What shall we talk about?")
    gate = asyncio.Event()
    site.fake.answers = [halted("alpha beta", gate), halted("gamma delta", gate)]
    send(user, "One")
    await see(user, "alpha beta")
    send(other, "Two")
    await see(other, "gamma delta")
    gate.set()
    await see(user, "12.3 tokens/s")
    await see(other, "12.3 tokens/s")
    assert "gamma" not in prose(user)
    assert "alpha" not in prose(other)


async def test_history_and_draft_survive_a_reload(user: User) -> None:
    send(user, "Hello there")
    await see(user, "12.3 tokens/s")
    user.find(marker="input").type("not sent yet")
    await user.open("/")
    await see(user, "Hello there")
    await see(user, "Hello! I am piBLOOM.")
    await see(user, "seed 4711")
    assert draft(user) == "not sent yet"


async def test_a_reload_in_the_middle_ends_the_stream_and_keeps_the_part(
    user: User, site: Site
) -> None:
    site.fake.answers = [halted("Half of a reply"), said("A whole reply")]
    send(user, "Hello")
    await see(user, "Half of a reply")
    await user.open("/")
    await site.fake.wait_for(lambda: site.fake.left == 1)
    await see(user, "Half of a reply")
    await see(user, "Stopped")
    user.find(marker="regenerate").click()
    await see(user, "A whole reply")


async def test_closing_the_tab_ends_its_stream(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    assert user.client is not None
    user.client.delete()
    await site.fake.wait_for(lambda: site.fake.left == 1)
    assert site.tabs.pages == {}


async def test_leaving_the_page_ends_its_stream_at_once(user: User, site: Site) -> None:
    site.fake.answers = [halted("Half")]
    send(user, "Hello")
    await see(user, "Half")
    with user:
        layout = user.current_layout
        for listener in layout._event_listeners.values():
            if listener.type == "pibloom_leave":
                assert listener.handler is not None
                listener.handler()
    await site.fake.wait_for(lambda: site.fake.left == 1)


async def test_a_new_chat_is_empty_and_can_be_undone(user: User, site: Site) -> None:
    send(user, "Hello there")
    await see(user, "12.3 tokens/s")
    user.find(marker="new-chat").click()
    await see(user, "What shall we talk about?")
    await user.should_not_see("Hello there")
    user.find(marker="undo").click()
    await see(user, "Hello there")
    user.find(marker="new-chat").click()
    send(user, "Another")
    await see(user, "Once upon a time")
    assert len(site.fake.requests[1]["messages"]) == 1


async def test_what_is_typed_wakes_the_model_and_is_read_along(user: User, site: Site) -> None:
    site.fake.answers = [said("Hi.")]
    send(user, "Hello")
    await see(user, "Hi.")
    user.find(marker="input").clear()
    user.find(marker="input").type("How are you?")
    await site.fake.wait_for(lambda: len(site.fake.warmed) == 1)
    assert site.fake.warmed[0] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]


async def test_how_long_it_took_to_wake_is_told(user: User, site: Site) -> None:
    gate = asyncio.Event()
    site.fake.answers = [
        Answer([{"status": {"state": "loading"}}, gate, token("Hi", 0), done("Hi", 5, 1)])
    ]
    send(user, "Hello")
    await see(user, "Loading the model… 0.")
    gate.set()
    await see(user, "awake after 0.")


async def test_tokens_are_counted_once_for_what_was_typed_last(user: User, site: Site) -> None:
    for text in ("one", " two", " three"):
        user.find(marker="input").type(text)
    await count_says(user, "3 tokens")
    assert site.fake.counted == ["one two three"]


async def test_a_draft_that_is_very_long_is_not_counted(user: User, site: Site) -> None:
    user.find(marker="input").type("a" * (MOST_COUNTED + 1))
    await count_says(user, f"more than {MOST_COUNTED:,} characters")
    user.find(marker="input").clear().type("one")
    await count_says(user, "1 token")
    assert site.fake.counted == ["one"]


async def test_a_late_count_never_overwrites_a_newer_one(user: User, site: Site) -> None:
    site.fake.count_delay = 0.3
    user.find(marker="input").type("one")
    await site.fake.wait_for(lambda: site.fake.counted == ["one"])
    site.fake.count_delay = 0.0
    user.find(marker="input").type(" two")
    await count_says(user, "2 tokens")
    await asyncio.sleep(0.4)  # the first answer is due by now
    assert texts(user, "draft-tokens") == ["2 tokens"]


async def test_a_missing_tokenize_function_is_silent(
    simulation: tuple[User, Site], fake: Fake
) -> None:
    user, site = simulation
    async with both(Fake()) as gone:
        pass
    functions = FunctionsClient(Settings(fake.generate_url, gone.tokenize_url))

    @ui.page("/uncounted")
    async def uncounted() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/uncounted")
    await see(user, "pibloom-demo")
    user.find(marker="input").type("Hello")
    await count_says(user, "– tokens")
    assert not user._sees(marker="banner")
    send(user, "")
    user.find(marker="send").click()
    await see(user, "Hello! I am piBLOOM.")
    await functions.aclose()


async def test_a_reply_that_never_begins_is_asked_for_again(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    functions = FunctionsClient(site.settings, idle_s=0.3)

    @ui.page("/impatient")
    async def impatient() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/impatient")
    await see(user, "pibloom-demo")
    site.fake.answers = [Answer([asyncio.Event()])]
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert len(site.fake.requests) == 2
    await functions.aclose()


async def test_a_count_waits_for_its_function_to_wake(
    simulation: tuple[User, Site],
) -> None:
    user, site = simulation
    functions = FunctionsClient(site.settings, short_s=0.1)
    site.fake.count_delay = 0.3

    @ui.page("/asleep")
    async def asleep() -> None:
        await ChatPage(functions, site.tabs, QUICK).run()

    await user.open("/asleep")
    await see(user, "pibloom-demo")
    user.find(marker="input").type("Hello")
    await count_says(user, "1 token")
    await functions.aclose()


async def test_the_chats_share_of_the_context_is_shown(user: User) -> None:
    await see(user, "Chat 0 / 512")
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    await see(user, "Chat 8 / 512")  # 3 of the prompt and 5 of the reply


async def test_a_chat_that_outgrows_the_context_loses_its_oldest_turns_and_says_so(
    user: User, site: Site
) -> None:
    site.fake.max_context = 80
    for question in ("first " * 12, "second " * 12, "third " * 12):
        send(user, question)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while len(texts(user, "use-seed")) != len(texts(user, "question")):
                await asyncio.sleep(0.02)
    assert user._sees(marker="left-out")
    await see(user, "no longer fit into the model's memory")
    last = site.fake.requests[-1]["messages"]
    assert "first" not in str(last)
    assert "third" in last[-1]["content"]
    assert len(texts(user, "question")) == 3  # what was left out can still be read


async def test_a_single_message_that_is_too_long_gets_a_sentence_and_can_be_edited(
    user: User, site: Site
) -> None:
    site.fake.max_context = 20
    long = "word " * 40
    send(user, long)
    await see(user, "This message is too long for the model: 42 tokens")
    assert not user._sees(marker="retry")
    user.find(marker="edit").click()
    assert draft(user) == long.strip()
    assert texts(user, "question") == []


async def test_a_message_that_is_too_long_pushes_nothing_out(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    site.fake.max_context = 40
    send(user, "word " * 60)
    await see(user, "This message is too long for the model")
    assert not user._sees(marker="left-out")
    send(user, "And you?")
    async with asyncio.timeout(5):
        while len(texts(user, "use-seed")) != 2:
            await asyncio.sleep(0.02)
    contents = [message["content"] for message in site.fake.requests[-1]["messages"]]
    assert contents[0] == "Hello"
    assert contents[-1] == "And you?"


async def test_messages_and_input_find_their_own_direction(user: User) -> None:
    send(user, "مرحبا! كيف حالك؟")
    await see(user, "12.3 tokens/s")
    (question,) = user.find(marker="question").elements
    (reply,) = user.find(marker="prose").elements
    (box,) = user.find(marker="input").elements
    assert question.props["dir"] == reply.props["dir"] == box.props["dir"] == "auto"
    assert ARABIC.split()[0] in prose(user)
    assert '<p dir="auto">' in prose(user)


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


async def test_settings_go_into_the_request_and_survive_a_reload(user: User, site: Site) -> None:
    user.find(marker="settings").click()
    for name, value in (
        ("temperature", 0.0),
        ("top_p", 0.5),
        ("top_k", 7),
        ("min_p", 0.25),
        ("max_new_tokens", 32),
    ):
        (number,) = user.find(marker=name).elements
        assert isinstance(number, ui.number)
        number.value = value
    user.find(marker="seed").type(str(2**63 - 1))
    await user.open("/")
    await see(user, "What shall we talk about?")
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    sent = site.fake.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (0, 0.5, 7, 0.25)
    assert (sent["max_new_tokens"], sent["seed"]) == (32, 2**63 - 1)
    await see(user, "seed 9223…5807")


async def test_reset_goes_back_to_the_defaults(user: User, site: Site) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="temperature").elements
    assert isinstance(number, ui.number)
    number.value = 0.1
    user.find(marker="seed").type("5")
    user.find(marker="reset").click()
    assert number.value == 0.8
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert site.fake.requests[0]["temperature"] == 0.8
    assert "seed" not in site.fake.requests[0]


async def test_a_setting_that_is_left_empty_shows_what_is_in_force(user: User) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="max_new_tokens").elements
    assert isinstance(number, ui.number)
    number.value = None
    user.find(marker="max_new_tokens").trigger("blur")
    assert number.value == 256


@pytest.mark.parametrize("bad", [99.0, -1.0, float("nan"), None])
async def test_a_setting_out_of_its_limits_is_never_sent(
    user: User, site: Site, bad: float | None
) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="temperature").elements
    assert isinstance(number, ui.number)
    number.value = bad
    user.find(marker="seed").type("not a number")
    await see(user, "A whole number from 0 to")
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert site.fake.requests[0]["temperature"] == 0.8
    assert "seed" not in site.fake.requests[0]


async def test_the_seed_of_a_reply_can_be_used_again(user: User, site: Site) -> None:
    send(user, "Hello")
    await see(user, "seed 4711")
    user.find(marker="use-seed").click()
    user.find(marker="regenerate").click()
    await site.fake.wait_for(lambda: len(site.fake.requests) == 2)
    assert site.fake.requests[1]["seed"] == 4711


async def test_the_theme_is_chosen_and_remembered(user: User) -> None:
    user.find(marker="settings").click()
    user.find(marker="theme-dark").click()
    await user.open("/")
    await see(user, "What shall we talk about?")
    with user:
        (mode,) = [e for e in user.current_layout.descendants() if isinstance(e, ui.dark_mode)]
    assert mode.value is True
    response = await user.http_client.get("/")
    assert "html{background:#17131a;color-scheme:dark}" in response.text


async def test_an_example_is_one_press_away(user: User, site: Site) -> None:
    examples = user.find(marker="example").elements
    assert {"en", "ar", "zh"} <= {example.props["lang"] for example in examples}
    assert all(example.props["dir"] == "auto" for example in examples)
    (chinese,) = (example for example in examples if example.props["lang"] == "zh")
    UserInteraction(user, {chinese}, None).click()
    await see(user, "我是 piBLOOM")
    assert site.fake.requests[0]["messages"][0]["content"].startswith("你是谁")


async def test_a_reply_can_be_copied_as_it_was_written(user: User) -> None:
    send(user, "Some code, please")
    await see(user, "12.3 tokens/s")
    (button,) = user.find(marker="copy").elements
    assert button.props["data-copy"].startswith("A loop adds the numbers:\n\n```python\n")


async def test_a_finished_reply_is_read_out_once_and_its_running_one_is_busy(
    user: User, site: Site
) -> None:
    gate = asyncio.Event()
    site.fake.answers = [halted("Slow words", gate)]
    send(user, "Hello")
    await see(user, "Slow words")
    (reply,) = user.find(marker="reply").elements
    (said_,) = user.find(marker="said").elements
    assert reply.props["aria-busy"] == "true"
    assert said_.props["aria-live"] == "polite"
    assert "Slow words" not in texts(user, "said")[0]
    gate.set()
    await see(user, "12.3 tokens/s")
    assert reply.props["aria-busy"] == "false"
    assert texts(user, "said")[0].startswith("Slow words")


async def test_every_bare_button_has_a_name(user: User) -> None:
    send(user, "Hello")
    await see(user, "12.3 tokens/s")
    buttons = [e for e in user.current_layout.descendants() if e.tag == "button"]
    assert len(buttons) > 8
    for button in buttons:
        words = [getattr(child, "text", "") for child in button.descendants()]
        assert button.props.get("aria-label") or any(words)


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


async def test_the_health_check_and_the_headers(simulation: tuple[User, Site]) -> None:
    user, _ = simulation
    health = await user.http_client.get("/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    page = await user.http_client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    missing = await user.http_client.get("/nowhere")
    assert missing.status_code == 404
    assert "There is nothing at this address." in missing.text


async def test_a_chat_that_is_full_takes_no_more(
    user: User, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "CHAT_CHARACTERS", 100)
    send(user, "first " * 10)
    await see(user, "tokens/s")
    send(user, "second " * 10)
    await user.should_see("This chat is full. Start a new one to send this.", retries=PATIENCE)
    assert len(texts(user, "question")) == 1
