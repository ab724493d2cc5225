"""One generation from its prompt to its end."""

from model.serving.events import Done, Prefill, Queued, Token
from model.serving.scheduler import Scheduler
from tests.fakes import FakeEngine, byte_tokenizer
from tests.model.serving.simple import Start, engine, finish, request


def test_events_come_in_order_and_end_once(start: Start) -> None:
    events = finish(start(engine()).submit(request()))
    assert events[0] == Queued(1)
    assert events[1] == Prefill(2, 2)
    assert [event.text for event in events[2:-1] if isinstance(event, Token)] == [*"Hello", ""]
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("Hello", "stop")
    assert (last.prompt_tokens, last.completion_tokens) == (2, 6)


def test_a_stop_that_names_a_hidden_token_ends_a_reply_there() -> None:
    tokenizer = byte_tokenizer("<|end|>", "<|other|>")
    reply = tokenizer.ids("Hi<|other|>!<|end|> and on")
    scheduler = Scheduler(FakeEngine(reply, vocabulary=tokenizer.size), tokenizer)
    scheduler.start()
    try:
        last = finish(scheduler.submit(request(stop=("<|end|>",), max_new_tokens=7)))[-1]
    finally:
        scheduler.close()
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason, last.completion_tokens) == ("Hi!", "stop", 5)


def test_length_ends_a_reply(start: Start) -> None:
    last = finish(start(engine()).submit(request(max_new_tokens=3)))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason, last.completion_tokens) == ("Hel", "length", 3)


def test_the_context_ends_a_reply(start: Start) -> None:
    last = finish(start(engine(max_context=6)).submit(request("1234")))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("He", "length")


def test_a_stop_string_is_not_shown(start: Start) -> None:
    events = finish(start(engine("one\nUser: two")).submit(request(stop=("\nUser:",))))
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("one", "stop")
    assert "".join(event.text for event in events if isinstance(event, Token)) == "one"


def test_text_held_back_for_a_stop_string_is_shown_at_the_end(start: Start) -> None:
    last = finish(start(engine("one\nUs")).submit(request(stop=("\nUser:",))))[-1]
    assert isinstance(last, Done)
    assert last.text == "one\nUs"


def test_characters_are_never_cut(start: Start) -> None:
    text = "añ你🌺ب"
    events = finish(start(engine(text)).submit(request()))
    shown = [event.text for event in events if isinstance(event, Token) and event.text]
    assert shown == list(text)
    cut = finish(start(engine("a你")).submit(request(max_new_tokens=2)))[-1]
    assert isinstance(cut, Done)
    assert cut.text == "a"


def test_what_the_engine_remembers_is_not_read_again(start: Start) -> None:
    fake = engine()
    fake.remembers = 5
    events = finish(start(fake).submit(request("12345678")))
    assert [event for event in events if isinstance(event, Prefill)] == [Prefill(8, 8)]
    assert [len(tokens) for _, tokens in fake.steps[0]] == [3]
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.prompt_tokens, last.cached_tokens) == (8, 5)
