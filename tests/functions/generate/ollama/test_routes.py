"""Ollama's routes."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.fakes import byte_tokenizer
from tests.functions.conftest import Generate

REPLY = "Hello, 你好!"
TOKENS = len(byte_tokenizer().ids(" " + REPLY)) + 1  # a blank that is not shown, and the end
CHAT = ("/api/chat", {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]})
PROMPT = ("/api/generate", {"model": "fake", "prompt": "Hi"})
BOTH = pytest.mark.parametrize(("route", "body"), [CHAT, PROMPT])


def ask(generate: Generate, route: str, body: Any, **fields: Any) -> Any:
    return generate.client.post(route, json={"stream": False} | body | fields)


def text_of(reply: Any) -> str:
    text: str = reply["message"]["content"] if "message" in reply else reply["response"]
    return text


def prompted(generate: Generate) -> str:
    return byte_tokenizer().decode(generate.engine.steps[-1][0][0].prompt)


@BOTH
def test_a_reply_has_ollamas_fields(generate: Generate, route: str, body: Any) -> None:
    reply = ask(generate, route, body).json
    assert text_of(reply) == REPLY
    if "message" in reply:
        assert reply["message"]["role"] == "assistant"
    assert (reply["model"], reply["done"], reply["done_reason"]) == ("fake", True, "stop")
    assert datetime.fromisoformat(reply["created_at"]).tzinfo is not None
    assert reply["eval_count"] == TOKENS
    assert reply["prompt_eval_count"] == len("User: Hi\nAssistant:")
    parts = [f"{name}_duration" for name in ("load", "prompt_eval", "eval")]
    assert all(type(reply[name]) is int for name in (*parts, "total_duration"))  # nanoseconds
    assert abs(reply["total_duration"] - sum(reply[name] for name in parts)) < 10
    assert "context" not in reply


@BOTH
def test_a_reply_is_streamed_unless_told_otherwise(
    generate: Generate, route: str, body: Any
) -> None:
    answer = generate.client.post(route, json=body)
    assert answer.mimetype == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.get_data().splitlines()]
    assert "".join(text_of(line) for line in lines) == REPLY
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 3
    assert text_of(lines[-1]) == ""
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("stop", TOKENS)
    assert not any("eval_count" in line for line in lines[:-1])


@BOTH
def test_a_stream_that_fails_ends_with_an_error(generate: Generate, route: str, body: Any) -> None:
    def fail() -> None:
        if len(generate.engine.steps) > 5:
            raise RuntimeError("broken")

    generate.engine.before_step = fail
    last = generate.client.post(route, json=body).get_data().splitlines()[-1]
    assert json.loads(last) == {"error": "the model failed to generate"}


@BOTH
def test_a_body_is_read_under_any_media_type(generate: Generate, route: str, body: Any) -> None:
    """As with curl -d, which Ollama's own document uses; but from no other origin's page."""
    data = json.dumps(body)
    for kind in ("application/x-www-form-urlencoded", "text/plain", None):
        answer = generate.client.post(route, data=data, content_type=kind)
        assert answer.status_code == 200
        answer.close()
        origin = {"Origin": "http://elsewhere"}
        refused = generate.client.post(route, data=data, content_type=kind, headers=origin)
        assert refused.status_code == 415


@pytest.mark.parametrize("name", ["fake", "fake:latest"])
@BOTH
def test_a_name_may_have_the_usual_tag(
    generate: Generate, route: str, body: Any, name: str
) -> None:
    assert ask(generate, route, body, model=name).json["model"] == name


# Every field and option of Ollama's package and document: what changes nothing, what is done, and
# what is refused by its name.
NEUTRAL: list[tuple[str, Any]] = [
    ("keep_alive", "5m"),
    ("keep_alive", -1),
    ("format", ""),
    ("think", False),
    ("options", {}),
    ("logprobs", False),
    ("top_logprobs", 0),
    ("truncate", True),
    ("truncate", False),
    ("shift", True),
    ("shift", False),
    ("_debug_render_only", False),
]
CHAT_NEUTRAL: list[tuple[str, Any]] = [
    ("tools", []),
    ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
    ("messages", [{"role": "user", "content": "Hi", "images": [], "tool_calls": []}]),
    ("messages", [{"role": "user", "content": "Hi", "images": None, "thinking": ""}]),
    ("messages", [{"role": "user", "content": "Hi", "tool_name": "", "tool_call_id": ""}]),
]
PROMPT_NEUTRAL: list[tuple[str, Any]] = [
    ("suffix", ""),
    ("system", ""),
    ("template", ""),
    ("context", []),
    ("images", []),
    ("raw", False),
]
OPTION_NEUTRAL: list[tuple[str, Any]] = [
    ("num_ctx", 4096),
    ("num_keep", 5),
    ("num_batch", 2),
    ("num_gpu", 1),
    ("num_thread", 8),
    ("main_gpu", 0),
    ("numa", False),
    ("low_vram", False),
    ("f16_kv", True),
    ("logits_all", False),
    ("vocab_only", False),
    ("embedding_only", False),
    ("use_mmap", True),
    ("use_mlock", False),
    ("penalize_newline", True),
    ("mirostat", 0),
    ("mirostat_tau", 5.0),
    ("mirostat_eta", 0.1),
    ("tfs_z", 1),
    ("typical_p", 1.0),
    ("repeat_last_n", -1),
    ("repeat_last_n", 0),
    ("num_predict", -1),
    ("num_predict", -2),
    ("num_predict", 8192),
    ("num_predict", 2**31 - 1),
    ("stop", []),
]
OPTION_DONE: list[tuple[str, Any]] = [
    ("temperature", 0),
    ("top_k", 20),
    ("top_p", 0.9),
    ("min_p", 0.05),
    ("seed", 42),
    ("repeat_penalty", 1.2),
    ("presence_penalty", 1.5),
    ("frequency_penalty", 1.0),
    ("num_predict", 100),
    ("stop", ["\n", "user:"]),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("format", "json", "format"),
    ("format", {"type": "object"}, "format"),
    ("think", True, "think"),
    ("think", "high", "think"),
    ("top_logprobs", 3, "top_logprobs"),
    ("stream", "yes", "stream"),
    ("_debug_render_only", True, "_debug_render_only"),
    ("odd", 1, "odd"),
    ("options", {"mirostat": 1}, "options.mirostat"),
    ("options", {"tfs_z": 0.5}, "options.tfs_z"),
    ("options", {"typical_p": 0.7}, "options.typical_p"),
    ("options", {"repeat_last_n": 64}, "options.repeat_last_n"),
    ("options", {"num_predict": -3}, "options.num_predict"),
    ("options", {"temperature": 9}, "options.temperature"),
    ("options", {"repeat_penalty": 0}, "options.repeat_penalty"),
    ("options", {"what_comes_next_year": 1}, "options.what_comes_next_year"),
]
CHAT_REFUSED: list[tuple[str, Any, str]] = [
    ("messages", [{"role": "tool", "content": "5"}], "messages[0].role"),
    ("messages", [{"role": "user", "content": "Hi", "images": ["aGk="]}], "messages[0].images"),
    (
        "messages",
        [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}],
        "messages[0].tool_calls",
    ),
    ("messages", [{"role": "assistant", "content": "", "thinking": "Hm"}], "messages[0].thinking"),
]
PROMPT_REFUSED: list[tuple[str, Any, str]] = [
    ("suffix", "b", "suffix"),
    ("template", "{{ .Prompt }}", "template"),
    ("context", [1, 2], "context"),
    ("images", ["aGk="], "images"),
    ("width", 64, "width"),
    ("height", 64, "height"),
    ("steps", 4, "steps"),
]


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [(asked, *each) for asked in (CHAT, PROMPT) for each in NEUTRAL]
    + [(CHAT, *each) for each in CHAT_NEUTRAL]
    + [(PROMPT, *each) for each in PROMPT_NEUTRAL]
    + [(asked, "options", dict([each])) for asked in (CHAT, PROMPT) for each in OPTION_NEUTRAL],
)
def test_what_changes_nothing_is_taken(
    generate: Generate, asked: Any, field: str, value: Any
) -> None:
    answer = ask(generate, *asked, **{field: value})
    assert answer.status_code == 200, answer.json
    assert text_of(answer.json) == REPLY


@pytest.mark.parametrize(("option", "value"), OPTION_DONE)
def test_an_option_that_is_done_is_taken(generate: Generate, option: str, value: object) -> None:
    for asked in (CHAT, PROMPT):
        assert ask(generate, *asked, options={option: value}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "field", "value", "name"),
    [(asked, *each) for asked in (CHAT, PROMPT) for each in REFUSED]
    + [(CHAT, *each) for each in CHAT_REFUSED]
    + [(PROMPT, *each) for each in PROMPT_REFUSED],
)
def test_what_cannot_be_done_is_refused_by_name(
    generate: Generate, asked: Any, field: str, value: Any, name: str
) -> None:
    refused = ask(generate, *asked, **{field: value})
    assert refused.status_code == 400
    assert list(refused.json) == ["error"]
    assert name in refused.json["error"]


def test_null_is_not_given(generate: Generate) -> None:
    options = {name for name, _ in (*OPTION_NEUTRAL, *OPTION_DONE)}
    fields = {name for name, _ in (*NEUTRAL, *CHAT_NEUTRAL)} - {"messages"}
    given: dict[str, Any] = dict.fromkeys(fields) | {"options": dict.fromkeys(options)}
    assert text_of(ask(generate, *CHAT, **given).json) == REPLY
    fields = {name for name, _ in (*NEUTRAL, *PROMPT_NEUTRAL)}
    given = dict.fromkeys(fields) | {"options": dict.fromkeys(options)}
    assert text_of(ask(generate, *PROMPT, **given).json) == REPLY


def test_options_are_ollamas_in_effect(generate: Generate) -> None:
    short = ask(generate, *CHAT, options={"num_predict": 4}).json
    assert (text_of(short), short["done_reason"], short["eval_count"]) == ("Hel", "length", 4)
    stopped = ask(generate, *CHAT, options={"stop": [","]}).json
    assert (text_of(stopped), stopped["done_reason"]) == ("Hello", "stop")


def test_a_prompt_is_asked_as_a_chat_is(generate: Generate) -> None:
    ask(generate, *PROMPT, system="Be brief")
    assert prompted(generate) == "User: Be brief\nUser: Hi\nAssistant:"
    reply = ask(generate, *PROMPT, raw=True).json
    assert prompted(generate) == "Hi"
    assert text_of(reply) == " " + REPLY  # as it is written, with its blank
    refused = ask(generate, *PROMPT, raw=True, system="Be brief")
    assert "system" in refused.json["error"]


@pytest.mark.parametrize("empty", [{"prompt": ""}, {"prompt": None}, {}])
def test_a_request_without_a_prompt_asks_for_the_model(generate: Generate, empty: Any) -> None:
    for stream in (True, False):
        reply = generate.client.post("/api/generate", json={"model": "fake", "stream": stream})
        assert (reply.json["done"], reply.json["done_reason"]) == (True, "load")
    reply = generate.client.post("/api/chat", json={"model": "fake", "messages": []}).json
    assert (reply["done"], reply["done_reason"], text_of(reply)) == (True, "load", "")


def test_log_probabilities_are_told(generate: Generate) -> None:
    logprobs = ask(generate, *CHAT, logprobs=True, top_logprobs=2).json["logprobs"]
    assert [each["token"] for each in logprobs[:3]] == [" ", "H", "e"]
    assert {len(each["top_logprobs"]) for each in logprobs} == {2}
    lines = generate.client.post(CHAT[0], json=CHAT[1] | {"logprobs": True}).get_data().splitlines()
    sent = [each for line in lines for each in json.loads(line).get("logprobs", [])]
    assert [each["token"] for each in sent] == [each["token"] for each in logprobs]


def test_errors_have_ollamas_shape(generate: Generate) -> None:
    other = ask(generate, *CHAT, model="llama3.2")
    assert (other.status_code, list(other.json)) == (404, ["error"])
    assert "llama3.2" in other.json["error"]
    for route in ("/api/pull", "/api/embed", "/api/nothing"):
        missing = generate.client.post(route, json={"model": "fake"})
        assert (missing.status_code, list(missing.json)) == (404, ["error"])
        assert route in missing.json["error"]
    assert generate.client.get("/api/chat").status_code == 405
    assert list(generate.client.post("/api/chat", data="{").json) == ["error"]
    long = ask(generate, *PROMPT, prompt="x" * 5000)
    assert long.status_code == 400
    assert "context" in long.json["error"]


def test_the_model_is_listed_and_described(generate: Generate) -> None:
    tags = generate.client.get("/api/tags").json
    assert [model["name"] for model in tags["models"]] == ["fake:latest"]
    assert len(tags["models"][0]["digest"]) == 64
    running = generate.client.get("/api/ps").json
    assert running["models"][0]["context_length"] == 2048
    shown = generate.client.post("/api/show", json={"model": "fake"}).json
    assert shown["model_info"]["bloom.context_length"] == 2048
    assert shown["capabilities"] == ["completion"]
    assert generate.client.post("/api/show", json={"name": "fake:latest"}).status_code == 200
    assert generate.client.post("/api/show", json={"model": "llama3.2"}).status_code == 404
    assert generate.client.get("/api/version").json["version"]
