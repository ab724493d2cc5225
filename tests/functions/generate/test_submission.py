"""Requests are admitted before any work is done on them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from functions.generate import submission
from functions.http.middleware.uploads import LARGE
from model.serving.request import GenerationRequest
from model.text.chat import ChatTemplate
from model.text.tokenizer import StreamDecoder, Tokenizer
from tests.functions.conftest import Generate
from tests.functions.servers import wait_until

# The fixture's server runs 2 generations and lets 2 wait.
TURN = {"role": "user", "content": "Hi"}
ROUTES: list[tuple[str, dict[str, Any]]] = [
    ("/", {"prompt": "Hi"}),
    ("/", {"prompt": "Hi", "stream": True}),
    ("/", {"messages": [TURN]}),
    ("/chat/", {"content": "Hi"}),
    ("/v1/completions", {"prompt": "Hi"}),
    ("/v1/completions", {"prompt": "Hi", "stream": True}),
    ("/v1/completions", {"prompt": ["Hi", "Ho"], "echo": True}),
    ("/v1/completions", {"prompt": "Hi", "n": 2, "logprobs": 1, "echo": True}),
    ("/v1/completions", {"prompt": [[5, 6], [7]], "echo": True}),
    ("/v1/chat/completions", {"messages": [TURN]}),
    ("/v1/chat/completions", {"messages": [TURN], "n": 2, "stream": True}),
    ("/v1/responses", {"input": "Hi"}),
    ("/v1/responses", {"input": [TURN], "stream": True}),
    ("/api/chat", {"messages": [TURN]}),
    ("/api/chat", {"messages": [TURN], "stream": False}),
    ("/api/generate", {"prompt": "Hi"}),
    ("/api/generate", {"prompt": "Hi", "raw": True, "stream": False}),
]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done on requests, by name."""
    done: list[str] = []

    def watch(type_: type, name: str) -> None:
        original = getattr(type_, name)

        def watched(*args: Any, **options: Any) -> Any:
            done.append(name)
            return original(*args, **options)

        monkeypatch.setattr(type_, name, watched)

    watch(Tokenizer, "ids")
    watch(Tokenizer, "encode")
    watch(Tokenizer, "decode")
    watch(ChatTemplate, "render")
    watch(StreamDecoder, "__init__")
    return done


@pytest.fixture
def full(generate: Generate) -> Iterator[Generate]:
    """A server whose every place is taken."""
    scheduler = generate.service.get().scheduler
    generate.engine.running.clear()
    held = [scheduler.submit(GenerationRequest((5, 6), 3)) for _ in range(4)]
    wait_until(lambda: scheduler.stats()["running"] == 1, 5)
    yield generate
    generate.engine.running.set()
    for each in held:
        list(each.events())


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=str)
def test_on_a_full_server_nothing_is_worked_on(
    full: Generate, work: list[str], path: str, body: dict[str, Any]
) -> None:
    work.clear()  # of what runs
    response = full.client.post(path, json=body)
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert work == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["Hi"] * 64, "n": 16, "echo": True}),
        ("/v1/completions", {"prompt": [[5]] * 64, "n": 16, "logprobs": 1}),
        ("/v1/completions", {"prompt": ["Hi"] * 5}),
        ("/v1/completions", {"prompt": "Hi", "n": 5}),
        ("/v1/chat/completions", {"messages": [TURN], "n": 5}),
    ],
    ids=str,
)
def test_more_replies_than_ever_fit_are_refused_before_any_is_built(
    generate: Generate, work: list[str], path: str, body: dict[str, Any], stream: bool
) -> None:
    work.clear()
    response = generate.client.post(path, json=body | {"stream": stream})
    assert response.status_code in (400, 422)
    assert response.json["error"]["param"] == "n"
    assert work == []


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=str)
def test_an_error_while_a_request_is_made_gives_its_places_back(
    generate: Generate, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(Tokenizer, "ids", fail)
        broken.setattr(Tokenizer, "decode", fail)
        for _ in range(5):  # one more than there are places
            assert generate.client.post(path, json=body).status_code in (200, 500)
    scheduler = generate.service.get().scheduler
    wait_until(lambda: scheduler.idle, 5)
    assert generate.client.post(path, json=body | {"stream": False}).status_code == 200


def test_two_that_come_at_once_do_not_share_a_place(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first holds its place while it is tokenized."""
    scheduler = generate.service.get().scheduler
    generate.engine.running.clear()
    held = [scheduler.submit(GenerationRequest((5, 6), 3)) for _ in range(3)]
    wait_until(lambda: scheduler.stats()["running"] == 1, 5)
    tokenizing, go_on, ids = threading.Event(), threading.Event(), Tokenizer.ids

    def slow(self: Tokenizer, text: str, **options: Any) -> list[int]:
        tokenizing.set()
        assert go_on.wait(20)
        return ids(self, text, **options)

    monkeypatch.setattr(Tokenizer, "ids", slow)
    statuses: list[int] = []
    first = threading.Thread(
        target=lambda: statuses.append(generate.post({"prompt": "Hi"}).status_code)
    )
    first.start()
    assert tokenizing.wait(20)
    assert generate.post({"prompt": "Hi"}).status_code == 429
    go_on.set()
    generate.engine.running.set()
    first.join(20)
    assert statuses == [200]
    for each in held:
        list(each.events())


def test_prompts_that_are_read_at_once_are_bounded(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, lock, ids = 0, 0, threading.Lock(), Tokenizer.ids
    one_is_in, go_on = threading.Event(), threading.Event()

    def counted(self: Tokenizer, text: str, **options: Any) -> list[int]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        one_is_in.set()
        assert go_on.wait(20)
        with lock:
            at_once -= 1
        return ids(self, text, **options)

    monkeypatch.setattr(submission, "_preparing", threading.BoundedSemaphore(1))
    monkeypatch.setattr(Tokenizer, "ids", counted)
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(generate.post({"prompt": "Hi"}).status_code)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert one_is_in.wait(20)
    scheduler = generate.service.get().scheduler
    wait_until(lambda: len(scheduler._admission._reserved) == 3, 5)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 3
    assert most == 1


def test_who_waits_too_long_to_be_read_is_told_so(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_preparing", threading.BoundedSemaphore(1))
    monkeypatch.setattr(submission, "PREPARING_SECONDS", 0.01)
    submission._preparing.acquire()
    response = generate.post({"prompt": "Hi"})
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    submission._preparing.release()
    assert generate.post({"prompt": "Hi"}).status_code == 200


def test_long_prompts_hold_up_no_short_ones_and_few_are_in_line(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, ids = threading.Event(), Tokenizer.ids

    def slow(self: Tokenizer, text: str, **options: Any) -> list[int]:
        assert len(text) < LARGE or go_on.wait(20)
        return ids(self, text, **options)

    monkeypatch.setattr(submission, "_preparing", threading.BoundedSemaphore(1))
    monkeypatch.setattr(submission, "_long", threading.BoundedSemaphore(2))
    monkeypatch.setattr(Tokenizer, "ids", slow)
    long_prompt = {"prompt": "a" * (LARGE + 1)}
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(generate.post(long_prompt).status_code))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    scheduler = generate.service.get().scheduler
    wait_until(lambda: len(scheduler._admission._reserved) == 2, 5)
    wait_until(lambda: submission._long._value == 0, 5)
    refused = generate.post(long_prompt)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert generate.post({"prompt": "Hi"}).status_code == 200
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert statuses == [422, 422]  # more than the context holds
    assert generate.post(long_prompt).status_code == 422


def test_a_header_shortens_the_deadline(generate: Generate) -> None:
    generate.engine.running.clear()
    late = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": "0.3"})
    generate.engine.running.set()
    assert late.status_code == 504
    for more in ("86401", "1e9"):  # which it does not lengthen
        assert (
            generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": more}).status_code == 200
        )
    for odd in ("soon", "-1", "nan", "0", "inf"):
        refused = generate.post({"prompt": "Hi"}, headers={"X-Request-Timeout": odd})
        assert refused.json["error"]["param"] == "X-Request-Timeout"
