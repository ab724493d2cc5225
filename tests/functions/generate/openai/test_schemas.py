"""OpenAI's published schema, by field: each is honoured, taken as neutral, or refused by name.

The schema is that of the installed package `openai`; a field that a newer version brings fails here
until it is given its place.
"""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from openai.types import (
    Completion,
    CompletionCreateParams,
    CompletionUsage,
    Model,
)
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionAssistantMessageParam,
    ChatCompletionChunk,
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartInputAudioParam,
    ChatCompletionContentPartRefusalParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
    chat_completion_content_part_param,
)
from openai.types.chat import (
    completion_create_params as chat_params,
)

from tests.functions.answers import chunks_of
from tests.functions.conftest import Generate

pytestmark = pytest.mark.slow

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "Hi"}
BODY: dict[str, dict[str, Any]] = {CHAT: {"messages": [USER]}, TEXT: {"prompt": "Hi"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"name": "x", "schema": {}}


@dataclass(frozen=True)
class Field:
    """What becomes of a field: values that are taken, and values that are refused by its name."""

    taken: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()
    required: bool = False  # null is not taken, as for OpenAI


def honoured(*values: Any, refused: tuple[Any, ...] = (), required: bool = False) -> Field:
    return Field(values, refused, required)


def neutral(*values: Any) -> Field:
    return Field(values)


def refused(*values: Any, taken: tuple[Any, ...] = ()) -> Field:
    return Field(taken, values)


SAMPLED = {
    "frequency_penalty": honoured(-2, 0, 0.5, 2.0, refused=(3, "a")),
    "logit_bias": honoured({}, {"50": 5}, {"50": -100.0}, refused=({"9999": 1},)),
    "n": honoured(1, 2, 2.0, refused=(0, 17)),
    "presence_penalty": honoured(-2, 0.5, 2, refused=(3,)),
    "seed": honoured(0, 5, 5.0, -1, -(2**63), 2**63 - 1, refused=(2**63, "a")),
    "stop": honoured("a", "", [], [""], ["a", "b"], ["a"] * 8, refused=(["a"] * 9, 5)),
    "stream": honoured(True, False, refused=("yes",)),
    "temperature": honoured(0, 1, 2.0, refused=(9, "hot")),
    "top_p": honoured(0, 0.5, 1, refused=(1.5,)),
    "user": neutral("me", ""),
    "model": honoured("fake", refused=("gpt-4",)),
}
STREAM_OPTIONS = honoured(
    {}, {"include_usage": False}, {"include_obfuscation": True}, refused=({"include_usage": True},)
)
# The published fields of each kind of object, and what becomes of them.
PARAMS: dict[str, dict[str, Field]] = {
    TEXT: SAMPLED | {
        "stream_options": STREAM_OPTIONS,
        "prompt": honoured(
            "a", ["a"], ["a", "b"], [5, 6], [[5, 6], [7]], ["a", [5]], [5] * 100, [5.0],
            refused=("", [], [""], [[]], [5, "a"], ["a", 5], [[5], 5], [-1], [10**9], [True],
                     [[True]], [5.5], {}, 5, [{}], [None], [["a"]], [[[5]]], ["a"] * 65),
            required=True,
        ),
        "best_of": honoured(1, refused=(0, 2, "a")),
        "echo": honoured(True, False),
        "logprobs": honoured(0, 5, refused=(21, True)),
        "max_tokens": honoured(0, 1, 16.0, 10**6, refused=(-1, "a")),
        "suffix": refused("end", taken=("",)),
    },
    CHAT: SAMPLED | {
        "messages": honoured([USER], refused=([], "a", [5], {}), required=True),
        "audio": refused({"format": "wav", "voice": "alloy"}),
        "function_call": refused({"name": "f"}, "f", taken=("auto", "none")),
        "functions": neutral([], [{"name": "f"}]),
        "logprobs": honoured(True, False),
        "max_completion_tokens": honoured(1, 16.0, 10**6, refused=(0, -1)),
        "max_tokens": honoured(1, 16.0, 10**6, refused=(0, -1)),
        "metadata": neutral({}, {"a": "b"}),
        "modalities": honoured(["text"], [], refused=(["text", "audio"], ["audio"])),
        "moderation": refused({"model": "omni-moderation-latest"}),
        "parallel_tool_calls": neutral(True, False),
        "prediction": neutral({"type": "content", "content": "Hello"}),
        "prompt_cache_key": neutral("key"),
        "prompt_cache_options": neutral({"mode": "implicit", "ttl": "30m"}),
        "prompt_cache_retention": neutral("in_memory", "24h"),
        "reasoning_effort": neutral("none", "minimal", "low", "medium", "high", "xhigh"),
        "response_format": refused(
            {"type": "json_object"}, {"type": "json_schema", "json_schema": SCHEMA}, {"type": "x"},
            taken=({"type": "text"},),
        ),
        "safety_identifier": neutral("hash"),
        "service_tier": neutral("auto", "default", "flex", "scale", "priority"),
        "store": neutral(True, False),
        "stream_options": STREAM_OPTIONS,
        "tool_choice": refused(
            "required", "any",
            {"type": "function", "function": {"name": "f"}},
            {"type": "custom", "custom": {"name": "f"}},
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
            taken=(
                "auto", "none",
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}},
            ),
        ),
        "tools": neutral([], [TOOL], [{"type": "custom", "custom": {"name": "f"}}]),
        "top_logprobs": honoured(0, refused=(5, 21)),  # 5 only with logprobs
        "verbosity": neutral("low", "medium", "high"),
        "web_search_options": refused({}, {"search_context_size": "low"}),
    },
}  # fmt: skip
PUBLISHED: dict[str, tuple[Any, ...]] = {
    TEXT: typing.get_args(CompletionCreateParams),
    CHAT: typing.get_args(chat_params.CompletionCreateParams),
}
CONTENT = honoured("a", "", [], [{"type": "text", "text": "a"}], refused=(5, [{"type": "text"}]))
NAME = neutral("Ann")
# Each kind of message and part: the published type, a whole one, and what becomes of its fields.
MESSAGES: dict[str, tuple[Any, dict[str, Any], dict[str, Field]]] = {
    "system": (ChatCompletionSystemMessageParam, {"content": "a"}, {"content": CONTENT}),
    "developer": (ChatCompletionDeveloperMessageParam, {"content": "a"}, {"content": CONTENT}),
    "user": (
        ChatCompletionUserMessageParam,
        {"content": "a"},
        {"content": honoured(*CONTENT.taken, refused=CONTENT.refused, required=True)},
    ),
    "assistant": (
        ChatCompletionAssistantMessageParam,
        {"content": "a"},
        {
            "content": honoured(*CONTENT.taken, [{"type": "refusal", "refusal": "No."}]),
            "audio": refused({"id": "a"}),
            "function_call": honoured({"name": "f", "arguments": "{}"}),
            "refusal": honoured("No."),
            "tool_calls": honoured([], [CALL]),
        },
    ),
    "tool": (
        ChatCompletionToolMessageParam,
        {"content": "a", "tool_call_id": "c"},
        {"content": CONTENT, "tool_call_id": honoured("c")},
    ),
    "function": (
        ChatCompletionFunctionMessageParam,
        {"content": "a", "name": "f"},
        {"content": honoured("a", "")},
    ),
}
HINT = neutral({"mode": "explicit"})
PARTS: dict[str, tuple[Any, dict[str, Any], dict[str, Field]]] = {
    "text": (
        ChatCompletionContentPartTextParam,
        {"text": "a"},
        {"text": honoured("a", "", required=True), "prompt_cache_breakpoint": HINT},
    ),
    "refusal": (
        ChatCompletionContentPartRefusalParam,
        {"refusal": "a"},
        {"refusal": honoured("No.", required=True)},
    ),
}
REFUSED_PARTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "image_url": (
        ChatCompletionContentPartImageParam,
        {"image_url": {"url": "http://a/b.png"}, "prompt_cache_breakpoint": None},
    ),
    "input_audio": (
        ChatCompletionContentPartInputAudioParam,
        {"input_audio": {"data": "", "format": "wav"}, "prompt_cache_breakpoint": None},
    ),
    "file": (
        chat_completion_content_part_param.File,
        {"file": {"file_id": "f"}, "prompt_cache_breakpoint": None},
    ),
}


def fields_of(*types: Any) -> set[str]:
    return {name for type_ in types for name in typing.get_type_hints(type_)}


def test_every_published_field_has_its_place() -> None:
    for route, fields in PARAMS.items():
        assert fields_of(*PUBLISHED[route]) == set(fields)
    for kinds in (MESSAGES, PARTS):
        for published, _, known in kinds.values():
            assert fields_of(published) == {*known, "role" if kinds is MESSAGES else "type"} | (
                {"name"} & fields_of(published)
            )
    for kind, (published, whole) in REFUSED_PARTS.items():
        assert fields_of(published) == {*whole, "type"}, kind
    assert fields_of(ChatCompletionStreamOptionsParam) == {"include_usage", "include_obfuscation"}


def test_every_published_kind_of_message_and_part_has_its_place() -> None:
    messages = typing.get_args(ChatCompletionMessageParam)
    assert set(messages) == {published for published, _, _ in MESSAGES.values()}
    parts = typing.get_args(chat_completion_content_part_param.ChatCompletionContentPartParam)
    known = {published for published, _, _ in PARTS.values()}
    known |= {published for published, _ in REFUSED_PARTS.values()}
    assert set(parts) <= known


def taken_fields() -> Iterator[Any]:
    for route, fields in PARAMS.items():
        for name, field in fields.items():
            values = field.taken if field.required else (*field.taken, None)
            for value in values:
                yield pytest.param(route, name, value, id=f"{route}-{name}-{value!r:.60}")


def refused_fields() -> Iterator[Any]:
    for route, fields in PARAMS.items():
        for name, field in fields.items():
            for value in (*field.refused, *([None] if field.required else [])):
                yield pytest.param(route, name, value, id=f"{route}-{name}-{value!r:.60}")


def check_refusal(response: Any, name: str) -> str:
    assert response.status_code in (400, 404)
    error = response.json["error"]
    assert error["param"].startswith(name)
    return str(error["message"])


@pytest.mark.parametrize(("route", "name", "value"), list(taken_fields()))
def test_what_asks_for_text_is_taken(
    generate: Generate, route: str, name: str, value: object
) -> None:
    response = generate.client.post(route, json={"max_tokens": 2} | BODY[route] | {name: value})
    if name == "max_completion_tokens" and value is not None:
        response = generate.client.post(route, json=BODY[route] | {name: value})
    assert response.status_code == 200, response.text
    assert response.get_data()


@pytest.mark.parametrize(("route", "name", "value"), list(refused_fields()))
def test_what_would_change_the_answer_is_refused_by_name(
    generate: Generate, route: str, name: str, value: object
) -> None:
    response = generate.client.post(route, json=BODY[route] | {name: value})
    check_refusal(response, name)
    assert not generate.engine.steps


def cases(kinds: dict[str, tuple[Any, dict[str, Any], dict[str, Field]]]) -> Iterator[Any]:
    for kind, (_, whole, known) in kinds.items():
        for name, field in known.items():
            values = [(value, True) for value in field.taken]
            values += [(value, False) for value in field.refused]
            for value, taken in [*values, (None, not field.required)]:
                asked = whole | {name: value}
                yield pytest.param(kind, asked, name, taken, id=f"{kind}-{name}-{value!r:.50}")


@pytest.mark.parametrize(("role", "asked", "name", "taken"), list(cases(MESSAGES)))
@pytest.mark.parametrize("named", [False, True])
def test_every_field_of_a_message(
    generate: Generate, role: str, asked: dict[str, Any], name: str, taken: bool, named: bool
) -> None:
    message = {"role": role} | ({"name": "Ann"} if named else {}) | asked
    response = generate.client.post(CHAT, json={"messages": [USER, message, USER]})
    if taken:
        assert response.status_code == 200, response.text
    else:
        check_refusal(response, f"messages[1].{name}")


@pytest.mark.parametrize(("kind", "asked", "name", "taken"), list(cases(PARTS)))
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_every_field_of_a_part(
    generate: Generate, kind: str, asked: dict[str, Any], name: str, taken: bool, role: str
) -> None:
    message = {"role": role, "content": [{"type": kind} | asked]}
    response = generate.client.post(CHAT, json={"messages": [message]})
    if taken:
        assert response.status_code == 200, response.text
    else:
        check_refusal(response, f"messages[0].content[0].{name}")


@pytest.mark.parametrize("kind", [*REFUSED_PARTS, "video_url", "x" * 500])
def test_parts_that_are_no_text_are_refused_by_their_kind(generate: Generate, kind: str) -> None:
    part = {"type": kind} | REFUSED_PARTS.get(kind, (None, {}))[1]
    content = [{"type": "text", "text": "What is this?"}, part]
    response = generate.client.post(CHAT, json={"messages": [{"role": "user", "content": content}]})
    message = check_refusal(response, "messages[0].content[1]")
    assert kind[:50] in message
    assert len(message) < 200


TOOLS = "is not supported; no tools are called here, and auto or none is answered with text"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("response_format", {"type": "json_object"},
         "'response_format' of type 'json_object' is not supported with this model; it writes"
         " plain text"),
        ("tool_choice", "required", f"tool_choice required {TOOLS}"),
        ("tool_choice", {"type": "function", "function": {"name": "weather"}},
         f"tool_choice weather {TOOLS}"),
        ("function_call", {"name": "weather"}, f"function_call weather {TOOLS}"),
        ("modalities", ["text", "audio"],
         "modalities audio is not supported; BLOOM writes text"),
        ("web_search_options", {},
         "web_search_options {} is not supported; BLOOM only writes text"),
        ("audio", {"voice": "a"},
         'audio {"voice":"a"} is not supported; BLOOM only writes text'),
    ],
)  # fmt: skip
def test_a_refusal_is_a_sentence_with_the_field_and_its_value(
    generate: Generate, field: str, value: object, said: str
) -> None:
    response = generate.client.post(CHAT, json=BODY[CHAT] | {"tools": [TOOL], field: value})
    assert check_refusal(response, field) == said
    assert response.json["error"]["code"] == "unsupported_value"


# Fields of other servers, which their clients send too.
@pytest.mark.parametrize("route", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("top_k", -1, True),
        ("top_k", 0, True),
        ("top_k", 40.0, True),
        ("top_k", -2, False),
        ("min_p", 0.05, True),
        ("min_p", 0, True),
        ("min_p", 1.1, False),
        ("repetition_penalty", 1.1, True),
        ("guided_json", {}, False),
        ("guided_json", None, True),
    ],
)
def test_fields_of_other_servers(
    generate: Generate, route: str, name: str, value: object, taken: bool
) -> None:
    response = generate.client.post(route, json=BODY[route] | {name: value})
    if taken:
        assert response.status_code == 200, response.text
    else:
        check_refusal(response, name)


def test_what_open_webui_sends_is_answered_with_text(generate: Generate) -> None:
    body = {
        "stream": True,
        "model": "fake",
        "messages": [
            {"role": "system", "content": ""},
            USER,
            {"role": "assistant", "content": ""},
            USER,
        ],
        "tools": [TOOL],
        "tool_choice": "auto",
        "stream_options": {"include_usage": True},
    }
    chunks = chunks_of(generate.client.post(CHAT, json=body))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert text == "Hello, 你好!"


def test_an_earlier_tools_result_is_shown_to_the_template(generate: Generate) -> None:
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "20 degrees"},
    ]
    assert generate.client.post(CHAT, json={"messages": messages}).status_code == 200
    model = generate.service.get()
    _, tokens = generate.engine.steps[0][0]
    assert "20 degrees" in model.tokenizer.decode(tokens)


@pytest.mark.parametrize("route", [CHAT, TEXT])
def test_max_tokens_beyond_the_context_is_what_there_is_room_for(
    generate: Generate, route: str
) -> None:
    generate.engine.reply = [50] * 5000
    reply = generate.client.post(route, json=BODY[route] | {"max_tokens": 32_000}).json
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["total_tokens"] == 2048


def test_a_flat_prompt_of_many_ids_is_one_prompt(generate: Generate) -> None:
    for size in (64, 65, 1000, 2047):
        reply = generate.client.post(TEXT, json={"prompt": [50] * size, "max_tokens": 1}).json
        assert (len(reply["choices"]), reply["usage"]["prompt_tokens"]) == (1, size)
    refused_ = generate.client.post(TEXT, json={"prompt": [50] * 200_000})
    assert refused_.json["error"]["code"] == "context_length_exceeded"


def test_negative_seeds_are_seeds_like_others(generate: Generate) -> None:
    seeds = [
        generate.post({"prompt": "a", "seed": seed}).json["seed"]
        for seed in (-1, -1, -2, 2**63 - 1)
    ]
    assert seeds[0] == seeds[1] == seeds[3] != seeds[2]
    assert all(0 <= seed < 2**63 for seed in seeds)


def strictly(type_: Any, data: dict[str, Any]) -> None:
    """Check a reply against the published type, in which nothing of the wrong kind is let pass."""
    type_.model_validate_json(msgspec.json.encode(data), strict=True)


@pytest.mark.parametrize(
    "extra", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"max_tokens": 1}], ids=str
)
def test_chats_are_of_the_published_type(generate: Generate, extra: dict[str, Any]) -> None:
    body = BODY[CHAT] | extra
    reply = generate.client.post(CHAT, json=body).json
    strictly(ChatCompletion, reply)
    assert reply["service_tier"] is reply["system_fingerprint"] is None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of(generate.client.post(CHAT, json=body | options))
    for chunk in chunks:
        strictly(ChatCompletionChunk, chunk)
    strictly(CompletionUsage, chunks[-1]["usage"])
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    "extra", [{}, {"n": 2}, {"logprobs": 2}, {"echo": True}, {"max_tokens": 0}], ids=str
)
def test_completions_are_of_the_published_type(generate: Generate, extra: dict[str, Any]) -> None:
    body = BODY[TEXT] | extra
    reply = generate.client.post(TEXT, json=body).json
    strictly(Completion, reply)
    assert reply["system_fingerprint"] is None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in chunks_of(generate.client.post(TEXT, json=body | options)):
        for choice in chunk["choices"]:
            # The type has no null here, but OpenAI sends it until a choice's last chunk.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        strictly(Completion, chunk)


def test_models_are_of_the_published_type(generate: Generate) -> None:
    strictly(Model, generate.client.get("/v1/models/fake").json)
    listed = generate.client.get("/v1/models").json
    assert listed["object"] == "list"
    for each in listed["data"]:
        strictly(Model, each)
