"""/v1/responses, checked by the types of OpenAI's own package, and asked by its client."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent, response_create_params
from pydantic import TypeAdapter

from tests.fakes import byte_tokenizer
from tests.functions.conftest import Generate

REPLY = "Hello, 你好!"
TOKENS = len(byte_tokenizer().ids(" " + REPLY)) + 1  # a blank that is not shown, and the end
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ROUTE = "/v1/responses"


def ask(generate: Generate, **fields: object) -> Any:
    return generate.client.post(ROUTE, json={"input": "Hi"} | fields)


def read(reply: Any) -> Any:
    """A reply, as OpenAI's package reads it."""
    return Response.model_validate(reply)


def text_of(reply: Any) -> str:
    found = read(reply)
    assert len(found.output) == 1
    text: str = found.output_text
    return text


def events_of(answer: Any) -> list[Any]:
    """Every event of a stream, as OpenAI's package reads it; its name is that of its type."""
    found = []
    for block in answer.get_data(as_text=True).split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(EVENT.validate_python(event))
    assert [event.sequence_number for event in found] == list(range(len(found)))
    return found


TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
# Every field that OpenAI's package can send: what changes nothing, what is done (tested below), and
# what is refused by its name.
NEUTRAL: list[tuple[str, Any]] = [
    ("access_programs", {"cyber": "standard"}),
    ("background", False),
    ("background_options", {"completion_window": "soonest"}),
    ("context_management", []),
    ("image", {"context_compression": "auto"}),
    ("include", []),
    ("include", ["reasoning.encrypted_content", "web_search_call.action.sources"]),
    ("max_tool_calls", 3),
    ("metadata", {"a": "b"}),
    ("parallel_tool_calls", False),
    ("prompt_cache_key", "k"),
    ("prompt_cache_options", {"mode": "implicit", "ttl": "30m"}),
    ("prompt_cache_retention", "24h"),
    ("reasoning", {"effort": "low", "summary": "auto"}),
    ("safety_identifier", "s"),
    ("service_tier", "flex"),
    ("store", True),
    ("store", False),
    ("stream_options", {"include_obfuscation": False}),
    ("text", {}),
    ("text", {"format": {"type": "text"}, "verbosity": "low"}),
    ("tools", []),
    ("tools", [TOOL, {"type": "web_search"}]),
    ("tool_choice", "auto"),
    ("tool_choice", "none"),
    ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}),
    ("top_logprobs", 0),
    ("truncation", "disabled"),
    ("truncation", "auto"),
    ("user", "u"),
]
DONE: dict[str, Any] = {
    "input": "Hi",
    "instructions": "Be brief",
    "max_output_tokens": 5,
    "model": "fake",
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.5,
}
REFUSED: list[tuple[str, Any, str]] = [
    ("background", True, "background"),
    ("context_management", [{"type": "compaction"}], "context_management"),
    ("conversation", "conv_1", "conversation"),
    ("conversation", {"id": "conv_1"}, "conversation"),
    ("include", ["nothing.known"], "include[0]"),
    ("max_output_tokens", 0, "max_output_tokens"),
    ("model", "gpt-4", "model"),
    ("moderation", {"model": "omni-moderation-latest"}, "moderation"),
    ("previous_response_id", "resp_1", "previous_response_id"),
    ("prompt", {"id": "pmpt_1"}, "prompt"),
    ("prompt_cache_options", {"prewarm": True}, "prompt_cache_options.prewarm"),
    ("temperature", 9, "temperature"),
    ("text", {"format": {"type": "json_object"}}, "text.format"),
    ("text", {"format": {"type": "json_schema", "name": "x", "schema": {}}}, "text.format"),
    ("text", {"format": "text"}, "text.format"),
    ("tool_choice", "required", "tool_choice"),
    ("tool_choice", {"type": "function", "name": "f"}, "tool_choice"),
    ("tool_choice", {"type": "web_search"}, "tool_choice"),
    (
        "tool_choice",
        {"type": "allowed_tools", "mode": "required", "tools": []},
        "tool_choice",
    ),
    ("top_logprobs", 3, "top_logprobs"),
    ("what_comes_next_year", 1, "what_comes_next_year"),
]
FIELDS = set(response_create_params.ResponseCreateParamsStreaming.__annotations__)


def test_every_field_of_openais_is_in_a_table() -> None:
    known = {name for name, _ in NEUTRAL} | set(DONE) | {name for name, _, _ in REFUSED}
    assert known - {"what_comes_next_year"} == FIELDS


@pytest.mark.parametrize(("field", "value"), NEUTRAL)
def test_what_changes_nothing_is_taken(generate: Generate, field: str, value: object) -> None:
    answer = ask(generate, **{field: value})
    assert answer.status_code == 200, answer.json
    assert text_of(answer.json) == REPLY


@pytest.mark.parametrize("field", sorted(FIELDS - {"input"}))
def test_null_is_not_given(generate: Generate, field: str) -> None:
    answer = ask(generate, **{field: None})
    assert answer.status_code == 200, answer.json
    assert text_of(answer.json) == REPLY


@pytest.mark.parametrize("field", sorted(DONE))
def test_what_is_done_is_taken(generate: Generate, field: str) -> None:
    assert ask(generate, **{field: DONE[field]}).status_code == 200


@pytest.mark.parametrize(("field", "value", "param"), REFUSED)
def test_what_cannot_be_done_is_refused_by_name(
    generate: Generate, field: str, value: object, param: str
) -> None:
    refused = ask(generate, **{field: value})
    assert refused.status_code == (404 if field == "model" else 400)
    error = refused.json["error"]
    assert error["param"] == param
    assert param.partition("[")[0] in error["message"]
    assert isinstance(error["code"], str)


def item(content: object, role: str = "user", **fields: object) -> dict[str, Any]:
    return {"role": role, "content": content} | fields


def part(text: str, type_: str = "input_text", **fields: object) -> dict[str, Any]:
    return {"type": type_, "text": text} | fields


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ("Hi", "User: Hi\nAssistant:"),
        ([item("Hi")], "User: Hi\nAssistant:"),
        ([item("Hi", type="message")], "User: Hi\nAssistant:"),
        ([item([part("H"), part("i")])], "User: Hi\nAssistant:"),
        (
            [item([part("Hi", prompt_cache_breakpoint={"mode": "explicit"})])],
            "User: Hi\nAssistant:",
        ),
        (
            [item("a"), item([{"type": "refusal", "refusal": "No."}], "assistant"), item("c")],
            "User: a\nAssistant: No.\nUser: c\nAssistant:",
        ),
        ([item("S", "system"), item("Hi")], "User: S\nUser: Hi\nAssistant:"),
        ([item("S", "developer"), item("Hi")], "User: S\nUser: Hi\nAssistant:"),
        (
            [item("a"), item("b", "assistant"), item("c")],
            "User: a\nAssistant: b\nUser: c\nAssistant:",
        ),
        (
            [item("a"), item("", "assistant"), item("c")],
            "User: a\nAssistant: \nUser: c\nAssistant:",
        ),
        (
            [item("a"), item([], "assistant"), item("c")],
            "User: a\nAssistant: \nUser: c\nAssistant:",
        ),
        (
            [
                item("a"),
                item(
                    [part("b", "output_text", annotations=[], logprobs=[])],
                    "assistant",
                    id="msg_1",
                    type="message",
                    status="completed",
                    phase="final_answer",
                ),
                item("c"),
            ],
            "User: a\nAssistant: b\nUser: c\nAssistant:",
        ),
    ],
)
def test_an_input_is_read_in_all_its_forms(generate: Generate, given: Any, prompt: str) -> None:
    assert ask(generate, input=given).status_code == 200
    prompted = generate.engine.steps[-1][0][0].prompt
    assert byte_tokenizer().decode(prompted) == prompt


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (None, "input"),
        ("", "input"),
        ([], "input"),
        (5, "input"),
        ([5], "input[0]"),
        ([item(5)], "input[0].content"),
        ([item("a", "tool")], "input[0].role"),
        ([item("a", "critic")], "input[0].role"),
        ([item("a", odd=1)], "input[0].odd"),
        ([{"role": "user"}], "input[0].content"),
        ([item([part("a", "input_image")])], "input[0].content[0].type"),
        (
            [item([{"type": "input_image", "image_url": "data:", "detail": "auto"}])],
            "input[0].content[0].type",
        ),
        ([item([{"type": "input_file", "file_id": "f"}])], "input[0].content[0].type"),
        ([item([{"type": "input_audio", "input_audio": {}}])], "input[0].content[0].type"),
        (
            [item("a"), {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}],
            "input[1].type",
        ),
        (
            [{"type": "function_call_output", "call_id": "c", "output": "5"}],
            "input[0].type",
        ),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}], "input[0].type"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0].type"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused_by_name(
    generate: Generate, given: Any, param: str
) -> None:
    refused = ask(generate, input=given)
    assert refused.status_code == 400
    assert refused.json["error"]["param"] == param
    assert param in refused.json["error"]["message"]


def test_a_refusal_names_the_kind(generate: Generate) -> None:
    image = item([{"type": "input_image", "image_url": "data:"}])
    assert "input_image" in ask(generate, input=[image]).json["error"]["message"]
    call = {"type": "function_call_output", "call_id": "c", "output": "5"}
    assert "function_call_output" in ask(generate, input=[call]).json["error"]["message"]
    asked = {"format": {"type": "json_schema", "name": "x", "schema": {}}}
    assert "json_schema" in ask(generate, text=asked).json["error"]["message"]


def test_instructions_come_first(generate: Generate) -> None:
    ask(generate, instructions="Be brief", input=[item("a")])
    prompted = generate.engine.steps[-1][0][0].prompt
    assert byte_tokenizer().decode(prompted) == "User: Be brief\nUser: a\nAssistant:"


def test_a_reply_is_what_openais_package_reads(generate: Generate) -> None:
    reply = read(ask(generate, metadata={"a": "b"}, tools=[TOOL]).json)
    assert (reply.status, reply.error, reply.incomplete_details) == ("completed", None, None)
    assert reply.output_text == REPLY
    assert (reply.output[0].type, reply.output[0].status) == ("message", "completed")
    assert reply.usage is not None
    assert reply.usage.output_tokens == TOKENS
    assert reply.usage.total_tokens == reply.usage.input_tokens + TOKENS
    assert (reply.metadata, reply.tools[0].type) == ({"a": "b"}, "function")
    assert reply.completed_at is not None
    assert reply.id.startswith("resp_")
    assert reply.output[0].id.startswith("msg_")


def test_a_reply_that_is_cut_says_so(generate: Generate) -> None:
    reply = read(ask(generate, max_output_tokens=4).json)
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"
    assert reply.output[0].type == "message"
    assert (reply.output_text, reply.output[0].status) == ("Hel", "incomplete")


@pytest.mark.parametrize(("limit", "end"), [(100, "completed"), (4, "incomplete")])
def test_a_stream_has_openais_events_in_their_order(
    generate: Generate, limit: int, end: str
) -> None:
    events = events_of(ask(generate, stream=True, max_output_tokens=limit))
    kinds = [event.type.removeprefix("response.") for event in events]
    first = ["created", "in_progress", "output_item.added", "content_part.added"]
    last = ["output_text.done", "content_part.done", "output_item.done", end]
    assert kinds[:4] == first
    assert kinds[-4:] == last
    assert set(kinds[4:-4]) == {"output_text.delta"}
    text = "".join(event.delta for event in events[4:-4])
    whole = events[-1].response
    assert text == events[-4].text == events[-3].part.text == whole.output_text
    assert events[-2].item == whole.output[0]
    assert whole.status == events[-2].item.status == end
    assert [event.response.status for event in events[:2]] == ["in_progress"] * 2
    assert not events[0].response.output
    assert not events[2].item.content
    ids = {event.item_id for event in [events[3], *events[4:-2]]}
    assert ids == {events[2].item.id} == {whole.output[0].id}
    assert {event.response.id for event in (*events[:2], events[-1])} == {whole.id}
    assert whole.usage.output_tokens == (TOKENS if end == "completed" else limit)


def test_log_probabilities_are_told_where_they_are_included(generate: Generate) -> None:
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    logprobs = read(ask(generate, **asked).json).output[0].content[0].logprobs
    assert [each.token for each in logprobs[:3]] == [" ", "H", "e"]
    assert {len(each.top_logprobs) for each in logprobs} == {2}
    events = events_of(ask(generate, stream=True, **asked))
    sent = [
        each for event in events if event.type.endswith("text.delta") for each in event.logprobs
    ]
    assert [each.token for each in sent] == [each.token for each in logprobs]
    assert len(events[-4].logprobs) == len(logprobs)


def test_a_failure_is_the_last_event(generate: Generate) -> None:
    def fail() -> None:
        if len(generate.engine.steps) > 5:
            raise RuntimeError("broken")

    generate.engine.before_step = fail
    events = events_of(ask(generate, stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed"
    assert events[-1].response.error.code == "server_error"
    assert "failed to generate" in events[-1].response.error.message


def test_a_stream_that_cannot_begin_is_no_stream(generate: Generate) -> None:
    refused = ask(generate, stream=True, input="x" * 5000)
    assert refused.status_code == 400
    assert refused.json["error"]["code"] == "context_length_exceeded"
    assert refused.json["error"]["param"] == "input"


def test_a_client_that_leaves_ends_its_generation(generate: Generate) -> None:
    generate.engine.running.clear()
    answer = ask(generate, stream=True)
    answer.close()
    generate.engine.running.set()  # the fixture waits until no sequence is open


def test_nothing_is_kept(generate: Generate) -> None:
    reply = ask(generate, store=True).json
    assert reply["store"] is False
    for ask_for in (generate.client.get, generate.client.delete):
        found = ask_for(f"{ROUTE}/{reply['id']}")
        assert found.status_code == 404
        assert "not kept" in found.json["error"]["message"]


@pytest.mark.parametrize("name", ["input_tokens", "compact", "resp_1"])
def test_what_openai_does_beside_responses_is_not_found(generate: Generate, name: str) -> None:
    found = generate.client.post(f"{ROUTE}/{name}", json={"model": "fake", "input": "Hi"})
    assert found.status_code == 404
    assert f"there is nothing at POST {ROUTE}/{name}" in found.json["error"]["message"]


def test_openais_client_creates_a_response(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="fake", input="Hi", instructions="Be brief")
    assert reply.output_text == REPLY
    turns: Any = [item("Hi"), *reply.output, item("?")]
    again = client.responses.create(model="fake", input=turns)
    assert again.output_text == REPLY


def test_openais_client_streams_a_response(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="fake", input="Hi", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == REPLY
    with client.responses.stream(model="fake", input="Hi") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == REPLY
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_openais_client_understands_a_refusal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="fake", input="Hi", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client.responses.create(model="gpt-4", input="Hi")
    with pytest.raises(openai.NotFoundError, match="not kept"):
        client.responses.retrieve("resp_1")


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "input_text"}, "input[0].content[0].text"),
        ({"type": "output_text", "refusal": "No."}, "input[0].content[0].text"),
        ({"type": "refusal"}, "input[0].content[0].refusal"),
        ({"type": "refusal", "text": "No."}, "input[0].content[0].refusal"),
    ],
    ids=str,
)
def test_a_part_without_its_text_is_named(
    generate: Generate, part: dict[str, str], field: str
) -> None:
    body = {"input": [{"role": "assistant", "content": [part]}]}
    response = generate.client.post("/v1/responses", json=body)
    assert response.status_code == 400
    error = response.get_json()["error"]
    assert (error["param"], error["code"]) == (field, "missing_required_parameter")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", {"prompt": "Hi"}),
    ],
    ids=["responses", "chat", "completions"],
)
def test_an_empty_models_name_is_as_none(
    generate: Generate, path: str, body: dict[str, object]
) -> None:
    assert generate.client.post(path, json=body | {"model": ""}).status_code == 200
    assert generate.client.post(path, json=body | {"model": " "}).status_code == 404
