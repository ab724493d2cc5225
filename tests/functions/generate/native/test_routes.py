"""piBLOOM's own routes over HTTP, on a fake engine that writes " Hello, 你好!"."""

import json
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.baked.card import AdapterCard, CalibrationCard, CutCard, ModelCard
from model.text.chat import ChatTemplate
from tests.fakes import byte_tokenizer
from tests.functions.answers import check_error, events_of
from tests.functions.conftest import Generate


def test_a_prompt_is_continued(generate: Generate) -> None:
    response = generate.post({"prompt": "Hi", "seed": 7})
    assert response.status_code == 200
    reply = response.json
    assert reply["text"] == " Hello, 你好!"
    assert reply["finish_reason"] == "stop"
    assert (reply["model"], reply["seed"]) == ("fake", 7)
    # 6 + 1 characters of one byte, 2 of three, a blank, and the end.
    assert reply["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 16,
        "total_tokens": 18,
        "cached_tokens": 0,
    }
    assert set(reply["timings"]) == {"queued_ms", "prefill_ms", "decode_ms", "tokens_per_second"}


def test_messages_are_answered_through_the_chat_template(generate: Generate) -> None:
    reply = generate.post({"messages": [{"role": "user", "content": "Hi"}]}).json
    assert reply["text"] == "Hello, 你好!"
    _, tokens = generate.engine.steps[0][0]
    assert byte_tokenizer().decode(tokens) == "User: Hi\nAssistant:"


def test_messages_that_the_template_refuses_get_422(
    generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = generate.service.get()
    source = "{{ raise_exception('odd') if messages | length > 1 else messages[0].content }}"
    monkeypatch.setattr(generate.service, "_resource", replace(model, chat=ChatTemplate(source)))
    error = check_error(
        generate.post({"messages": [{"role": "user", "content": "a"}] * 2}), "invalid_field"
    )
    assert error["param"] == "messages"


def test_a_dead_engine_is_not_ready(generate: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(generate.service.get().scheduler, "_admit", fail)
    check_error(generate.post({"prompt": "a"}), "internal")
    check_error(generate.client.get("/readyz"), "internal")


def test_a_stream_tells_states_then_whole_characters_then_its_end(generate: Generate) -> None:
    response = generate.post({"prompt": "Hi", "stream": True, "seed": 1})
    assert response.content_type == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.get_data(as_text=True).startswith(": stream\n\n")
    events = events_of(response)
    states = [data["state"] for name, data in events if name == "status"]
    assert list(dict.fromkeys(states)) == ["queued", "prefill", "generating"]
    texts = [data["text"] for name, data in events if name == "token"]
    assert texts == list(" Hello, 你好!")
    assert [data["index"] for name, data in events if name == "token"] == list(range(len(texts)))
    assert [name for name, _ in events if name in ("done", "error")] == ["done"]
    assert events[-1][0] == "done"
    assert events[-1][1]["text"] == "".join(texts)


def test_a_streamed_chat_reply_starts_without_a_blank(generate: Generate) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    texts = [data["text"] for name, data in events_of(generate.post(body)) if name == "token"]
    assert texts[0] == "H"


def test_stop_strings_as_text_or_list(generate: Generate) -> None:
    assert generate.post({"prompt": "Hi", "stop": ","}).json["text"] == " Hello"
    assert generate.post({"prompt": "Hi", "stop": ["!", "ll"]}).json["text"] == " He"


@pytest.mark.parametrize("path", ["/chat/", "/chat"])
def test_the_older_stacks_route(generate: Generate, path: str) -> None:
    response = generate.client.post(path, json={"content": "Hello"})
    assert response.status_code == 200
    assert response.json == {"data": "Hello, 你好!"}


@pytest.mark.parametrize("body", [{"content": ""}, {}, {"content": None}])
def test_the_older_stacks_route_refuses_an_empty_message(generate: Generate, body: object) -> None:
    assert (
        check_error(generate.client.post("/chat/", json=body), "invalid_field")["param"]
        == "content"
    )


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({}, "prompt"),
    ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
    ({"prompt": 3}, "prompt"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": "a", "colour": 1}, "colour"),
    ({"prompt": "a", "temperature": "hot"}, "temperature"),
    ({"prompt": "a", "temperature": -0.1}, "temperature"),
    ({"prompt": "a", "temperature": 5.1}, "temperature"),
    ({"prompt": "a", "temperature": True}, "temperature"),
    ({"prompt": "a", "top_k": -2}, "top_k"),
    ({"prompt": "a", "min_p": -0.1}, "min_p"),
    ({"prompt": "a", "min_p": 1.01}, "min_p"),
    ({"prompt": "a", "top_k": 1.5}, "top_k"),
    ({"prompt": "a", "top_k": 1001}, "top_k"),
    ({"prompt": "a", "top_p": 0}, "top_p"),
    ({"prompt": "a", "top_p": 1.01}, "top_p"),
    ({"prompt": "a", "repetition_penalty": 0}, "repetition_penalty"),
    ({"prompt": "a", "repetition_penalty": 99}, "repetition_penalty"),
    ({"prompt": "a", "max_new_tokens": 0}, "max_new_tokens"),
    ({"prompt": "a", "max_new_tokens": 4097}, "max_new_tokens"),
    ({"prompt": "a", "max_new_tokens": "9"}, "max_new_tokens"),
    ({"prompt": "a", "max_new_tokens": 10**30}, "max_new_tokens"),
    ({"prompt": "a", "seed": -(2**63) - 1}, "seed"),
    ({"prompt": "a", "seed": 2**63}, "seed"),
    ({"prompt": "a", "seed": 1.5}, "seed"),
    ({"prompt": "a", "stop": ["a"] * 9}, "stop"),
    ({"prompt": "a", "stop": ["a" * 65]}, "stop[0]"),
    ({"prompt": "a", "stop": {}}, "stop"),
    ({"prompt": "a", "stream": "yes"}, "stream"),
    ({"prompt": "a", "stream": 1}, "stream"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "a", "x": 1}]}, "messages[0].x"),
    ({"messages": [3]}, "messages[0]"),
]


@pytest.mark.parametrize(("body", "param"), BAD_FIELDS, ids=str)
def test_a_bad_field_is_named_with_what_it_must_be(
    generate: Generate, body: dict[str, Any], param: str
) -> None:
    error = check_error(generate.post(body), "invalid_field")
    assert error["param"] == param
    assert not generate.engine.steps


def test_a_refusal_says_the_limit_and_what_was_given_but_no_prompt(generate: Generate) -> None:
    error = check_error(generate.post({"prompt": "a", "temperature": 7}), "invalid_field")
    assert "5" in error["message"]
    assert "7" in error["message"]
    secret = check_error(generate.post({"prompt": "a", "top_k": "my secret"}), "invalid_field")
    assert "secret" not in secret["message"]


BAD_BODIES: list[bytes] = [
    b"",
    b"{",
    b"hello",
    b'{"prompt": "a", "temperature": NaN}',
    b'{"prompt": "a", "temperature": Infinity}',
    b'{"prompt": "a", "temperature": 1e999}',
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "a"} trailing',
    b"\x00",
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:40]))
def test_what_is_no_json_gets_400(generate: Generate, body: bytes) -> None:
    response = generate.client.post("/", data=body, content_type="application/json")
    check_error(response, "not_json")


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"3", b"null"])
def test_json_that_is_no_object_gets_422(generate: Generate, body: bytes) -> None:
    response = generate.client.post("/", data=body, content_type="application/json")
    check_error(response, "invalid_field")


@pytest.mark.parametrize("type_", ["text/plain", "application/x-www-form-urlencoded", "", None])
def test_another_content_type_gets_415(generate: Generate, type_: str | None) -> None:
    response = generate.client.post("/", data=b'{"prompt": "a"}', content_type=type_)
    check_error(response, "unsupported_media_type")


@pytest.mark.parametrize("type_", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_may_be_announced_in_any_spelling(generate: Generate, type_: str) -> None:
    response = generate.client.post("/", data=b'{"prompt": "a"}', content_type=type_)
    assert response.status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/chat/more", "/robots.txt", "/favicon.ico", "/%ff"])
def test_another_path_gets_404(generate: Generate, path: str) -> None:
    check_error(generate.client.get(path), "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/chat/", "OPTIONS, POST"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS, POST"),
    ],
)
def test_another_method_gets_405_and_what_is_allowed(
    generate: Generate, method: str, path: str, allowed: str
) -> None:
    response = generate.client.open(path, method=method)
    error = check_error(response, "method_not_allowed")
    assert response.headers["Allow"] == allowed
    others = [method for method in allowed.split(", ") if method != "OPTIONS"]
    assert error["message"].endswith("only " + " and ".join(others))


def test_options_says_what_is_allowed(generate: Generate) -> None:
    response = generate.client.options("/")
    assert response.status_code == 204
    assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert "Content-Type" not in response.headers


def test_a_large_body_is_refused(generate: Generate) -> None:
    error = check_error(generate.post({"prompt": "a" * (2 << 20)}), "body_too_large")
    assert error["limit"] == 1 << 20
    assert error["given"] > 2 << 20


@pytest.mark.parametrize("path", ["/nothing", "/healthz", "/chat/", "/robots.txt"])
def test_a_large_body_is_refused_unread_on_every_path(generate: Generate, path: str) -> None:
    class Unreadable:
        def read(self, size: int = -1) -> bytes:
            raise AssertionError("the body was read")

    environ = {"wsgi.input": Unreadable(), "CONTENT_LENGTH": str(50 << 20)}
    response = generate.client.post(path, environ_overrides=environ)
    check_error(response, "body_too_large")


def test_a_body_that_ends_early_gets_400(generate: Generate) -> None:
    environ = {"CONTENT_LENGTH": "100"}
    response = generate.client.post(
        "/", data=b"{}", content_type="application/json", environ_overrides=environ
    )
    check_error(response, "bad_request")


def test_a_prompt_that_fills_the_context_says_both_numbers(generate: Generate) -> None:
    assert generate.post({"prompt": "a" * 2047}).status_code == 200
    for size in (2048, 2049, 5000):
        for stream in (False, True):
            response = generate.post({"prompt": "a" * size, "stream": stream})
            error = check_error(response, "context_full")
            assert (error["prompt_tokens"], error["max_context"]) == (size, 2048)


def test_a_full_queue_gets_429_and_when_to_come_back(generate: Generate) -> None:
    generate.engine.running.clear()
    answers: list[int] = []

    def ask() -> None:
        answers.append(generate.post({"prompt": "a"}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    pause = threading.Event()
    for _ in range(500):
        if len(answers) >= 8:  # two run and two wait; the others are refused at once
            break
        pause.wait(0.01)
    assert answers == [429] * 8
    refused = generate.post({"prompt": "a", "stream": True})
    check_error(refused, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1
    generate.engine.running.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [200] * 4 + [429] * 8


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_engine_is_told_once_and_without_its_words(
    generate: Generate, stream: bool
) -> None:
    def fail() -> None:
        raise RuntimeError("/secret/path is broken")

    generate.engine.before_step = fail
    response = generate.post({"prompt": "a", "stream": stream})
    if stream:
        events = events_of(response)
        assert [name for name, _ in events if name in ("done", "error")] == ["error"]
        assert events[-1][1]["error"]["type"] == "internal"
    else:
        check_error(response, "internal")
    assert "secret" not in response.get_data(as_text=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_gets_504(
    generate: Generate, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = sys.modules["main"]  # as functions-framework names what it loads
    monkeypatch.setattr(main.native, "_longest", -1.0)
    response = generate.post({"prompt": "a", "stream": stream})
    if stream:
        assert events_of(response)[-1][1]["error"]["type"] == "deadline"
    else:
        check_error(response, "deadline")


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_gets_504_even_when_the_engine_hangs(
    generate: Generate, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["main"].native, "_longest", 0.1)
    generate.engine.running.clear()
    started = time.monotonic()
    response = generate.post({"prompt": "a", "stream": stream})
    if stream:
        assert events_of(response)[-1][1]["error"]["type"] == "deadline"
    else:
        check_error(response, "deadline")
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_that_is_dropped_frees_its_place(generate: Generate, begun: bool) -> None:
    generate.engine.running.clear()
    (a,) = byte_tokenizer().ids("a")
    response = generate.post({"prompt": "a", "stream": True}, buffered=False)
    if begun:
        assert next(response.response) == b": stream\n\n"
    response.close()
    generate.engine.running.set()
    generate.post({"prompt": "b"})
    dropped = [work for step in generate.engine.steps for work in step if work[0].tokens[0] == a]
    assert len(dropped) <= 1, "it went on beside the other"


def test_probes_and_root_tell_the_state(generate: Generate) -> None:
    assert generate.client.get("/healthz").json == {"status": "ok"}
    assert generate.client.get("/readyz").json == {"status": "ready"}
    root = generate.client.get("/").get_json()
    assert (root["service"], root["state"], root["model"]["name"]) == ("generate", "ready", "fake")


def test_the_models_card_is_shown_whole(generate: Generate) -> None:
    info = generate.service.get().info
    card = ModelCard(
        name="fake",
        revision="c" * 40,
        license="<b>free</b>",
        source="F16 in safetensors",
        adapter=AdapterCard(name="mine", base="bigscience/bloomz-560m", rank=8),
        calibration=CalibrationCard(tokens=9, source="text", error_before=0.2, error_after=0.1),
        cut=CutCard(kept=["Latin"], entries_before=9, entries_after=5),
        chat_origin="the preset belle",
        baked_by="Ada",
        baked_with="0.1.0",
        baked_on="2026-12-01T00:00:00Z",
    )
    vars(info).update(vars(card))  # it is frozen for all but tests
    model = generate.client.get("/").get_json()["model"]
    assert model == model | card.as_description()
    (listed,) = generate.client.get("/v1/models").get_json()["data"]
    for name in ("license", "revision", "adapter", "calibration", "cut"):
        assert listed[name] == card.as_description()[name]


def test_draining_refuses_what_is_new(generate: Generate) -> None:
    generate.service.close(0)
    for response in (
        generate.client.get("/readyz"),
        generate.post({"prompt": "a"}),
        generate.post({"prompt": "a", "stream": True}),
    ):
        check_error(response, "draining")
        assert response.headers["Retry-After"]
    assert generate.client.get("/healthz").status_code == 200


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt", "messages", "temperature", "top_k", "top_p", "stop", "seed", "stream", "x"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_any_json_gets_a_documented_answer(generate: Generate, body: dict[str, Any]) -> None:
    response = generate.client.post(
        "/", data=json.dumps(body).encode("utf-8", "replace"), content_type="application/json"
    )
    if response.status_code != 200:
        type_ = response.get_json()["error"]["type"]
        assert type_ in ("invalid_field", "not_json", "context_full")
        check_error(response, type_)
    response.get_data()
