"""OpenAI's routes, asked by hand and by OpenAI's own client."""

from typing import Any

import openai
import pytest

from model.serving.request import GenerationRequest
from tests.fakes import byte_tokenizer
from tests.functions.answers import chunks_of
from tests.functions.conftest import Generate

REPLY = " Hello, 你好!"
TOKENS = len(byte_tokenizer().ids(REPLY)) + 1  # and the end
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def test_openais_client_gets_a_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=100
    )
    assert reply.choices[0].message.content == REPLY.lstrip()
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == TOKENS
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + TOKENS
    assert reply.id.startswith("chatcmpl-")


def test_openais_client_streams_a_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == REPLY.lstrip()
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS
    assert len({chunk.id for chunk in chunks}) == 1


def test_openais_client_gets_completions(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="fake", prompt=["a", "bc"], n=2, max_tokens=5, seed=3)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert {choice.finish_reason for choice in reply.choices} == {"length"}
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 20)


def test_openais_client_lists_the_model(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "pibloom"
    with pytest.raises(openai.NotFoundError, match="fake"):
        client.models.retrieve("gpt-4")


def test_openais_client_understands_a_refusal(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="fake", prompt="a", temperature=9)
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client.completions.create(model="gpt-4", prompt="a")


def test_a_failure_in_a_stream_is_its_last_event(generate: Generate, client: openai.OpenAI) -> None:
    def fail() -> None:
        if len(generate.engine.steps) > 3:
            raise RuntimeError("broken")

    generate.engine.before_step = fail
    with pytest.raises(openai.APIError, match="failed to generate"):
        list(client.completions.create(model="fake", prompt="a", max_tokens=50, stream=True))


def test_echo_repeats_the_prompt(generate: Generate) -> None:
    body = {"prompt": "Hi", "echo": True, "max_tokens": 100}
    reply = generate.client.post("/v1/completions", json=body).json
    assert reply["choices"][0]["text"] == "Hi" + REPLY
    chunks = chunks_of(generate.client.post("/v1/completions", json=body | {"stream": True}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hi" + REPLY


def test_ids_are_a_prompt_too(generate: Generate) -> None:
    ids = byte_tokenizer().ids("Hi")
    reply = generate.client.post("/v1/completions", json={"prompt": ids, "echo": True}).json
    assert reply["choices"][0]["text"].startswith("Hi")
    refused = generate.client.post("/v1/completions", json={"prompt": [10**6]})
    assert (refused.status_code, refused.json["error"]["param"]) == (400, "prompt")
    mixed = generate.client.post("/v1/completions", json={"prompt": ["a", 5]})
    assert (mixed.status_code, mixed.json["error"]["param"]) == (400, "prompt[1]")


def test_logprobs_tell_every_token(generate: Generate) -> None:
    body = {"prompt": "Hi", "logprobs": 2, "max_tokens": 3}
    logprobs = generate.client.post("/v1/completions", json=body).json["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [" ", "H", "e"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert [len(each) for each in logprobs["top_logprobs"]] == [2, 2, 2]
    assert all(abs(each) < 1e-6 for each in logprobs["token_logprobs"])  # the fake leaves no choice
    body = CHAT | {"logprobs": True, "top_logprobs": 1, "max_tokens": 2}
    logprobs = generate.client.post("/v1/chat/completions", json=body).json["choices"][0][
        "logprobs"
    ]
    assert [each["bytes"] for each in logprobs["content"]] == [[32], [72]]


def test_logprobs_tell_an_echoed_prompt_too(generate: Generate) -> None:
    """What evaluation harnesses ask for: how likely a given text is."""
    body = {"prompt": "Hié", "logprobs": 1, "echo": True, "max_tokens": 1}
    generate.engine.echo = True  # whatever was read last comes next, so "i" after "H" is unlikely
    reply = generate.client.post("/v1/completions", json=body).json
    logprobs = reply["choices"][0]["logprobs"]
    assert logprobs["tokens"][:4] == ["H", "i", "\\xc3", "\\xa9"]
    assert logprobs["text_offset"][:4] == [0, 1, 2, 2]
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert all(each is not None for each in logprobs["token_logprobs"][1:])
    assert len(logprobs["token_logprobs"]) == reply["usage"]["total_tokens"]
    assert reply["choices"][0]["text"].startswith("Hié")
    chunks = chunks_of(generate.client.post("/v1/completions", json=body | {"stream": True}))
    pieces = [chunk["choices"][0] for chunk in chunks]
    assert "".join(piece["text"] for piece in pieces) == reply["choices"][0]["text"]
    for name, values in logprobs.items():
        sent = [value for piece in pieces if piece["logprobs"] for value in piece["logprobs"][name]]
        assert sent == values


@pytest.mark.parametrize("prompt", ["Hi", "H"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_can_be_read_alone(generate: Generate, prompt: str, stream: bool) -> None:
    body = {"prompt": prompt, "logprobs": 1, "echo": True, "max_tokens": 0, "stream": stream}
    response = generate.client.post("/v1/completions", json=body)
    replies = chunks_of(response) if stream else [response.json]
    found = [reply["choices"][0] for reply in replies]
    assert "".join(choice["text"] for choice in found) == prompt
    logprobs = [
        token for choice in found if (all_ := choice["logprobs"]) for token in all_["tokens"]
    ]
    assert logprobs == list(prompt)
    assert found[-1]["finish_reason"] == "length"
    body = {"prompt": prompt, "max_tokens": 0}
    reply = generate.client.post("/v1/completions", json=body).json
    assert reply["choices"][0]["text"] == ""
    assert reply["usage"]["completion_tokens"] == 0


def test_a_stop_string_that_holds_text_back_moves_no_offset(generate: Generate) -> None:
    body = {"prompt": "Hi", "logprobs": 0, "max_tokens": 4, "stop": "Hey"}  # the reply: " Hello"
    logprobs = generate.client.post("/v1/completions", json=body).json["choices"][0]["logprobs"]
    assert logprobs["text_offset"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("top_logprobs", 3),
        ("n", 17),
        ("stream_options", {"include_usage": True}),
        ("logit_bias", {"99999": 1}),
        ("logit_bias", {"five": 1}),
        ("audio", {}),
        ("model", "gpt-4"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    generate: Generate, field: str, value: object
) -> None:
    response = generate.client.post("/v1/chat/completions", json=CHAT | {field: value})
    assert response.status_code in (404, 400)
    assert field in response.json["error"]["param"]


def test_values_that_ask_for_nothing_are_taken(generate: Generate) -> None:
    neutral = {
        "n": 1, "tools": None, "response_format": {"type": "text"}, "logit_bias": {},
        "user": "me", "stop": None, "presence_penalty": 0, "top_p": 1, "stream": False,
    }  # fmt: skip
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    response = generate.client.post("/v1/chat/completions", json=neutral | {"messages": parts})
    assert response.status_code == 200


def test_many_choices_leave_places_to_others(generate: Generate) -> None:
    """Of the two places here, companions take one while somebody else waits."""
    engine, model = generate.engine, generate.service.get()
    engine.running.clear()
    first = model.scheduler.submit(GenerationRequest((5, 6), 4))
    many = model.scheduler.submit_all([GenerationRequest((7, 8), 50) for _ in range(2)])
    other = model.scheduler.submit(GenerationRequest((9, 10), 4))
    engine.running.set()
    list(first.events())
    list(other.events())
    for job in many:
        job.cancel()
    admitted: list[list[int]] = []
    for step in engine.steps:
        for sequence, _ in step:
            if not any(sequence.prompt is prompt for prompt in admitted):
                admitted.append(sequence.prompt)
    order = [prompt for prompt in admitted if prompt in ([5, 6], [7, 8], [9, 10])]
    assert order[:3] == [[5, 6], [7, 8], [9, 10]]


def test_a_reply_can_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    """The usual second turn."""
    talk: list[Any] = [{"role": "user", "content": "Hi"}]
    first = client.chat.completions.create(model="fake", messages=talk)
    talk += [first.choices[0].message, {"role": "user", "content": "And?"}]
    assert client.chat.completions.create(model="fake", messages=talk).choices[0].message.content


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_what_is_refused_leaves_nothing_running(generate: Generate, path: str) -> None:
    generate.engine.running.clear()
    body = {"n": 4, "stream_options": {"include_usage": True}}
    body |= {"prompt": "Hi"} if path == "/v1/completions" else CHAT
    assert generate.client.post(path, json=body).status_code == 400
    figures = generate.service.get().scheduler.stats()
    generate.engine.running.set()
    assert figures["running"] == figures["waiting"] == 0


def test_more_replies_than_ever_fit_are_no_reason_to_try_again(generate: Generate) -> None:
    refused = generate.client.post("/v1/completions", json={"prompt": ["x"] * 64})
    assert (refused.status_code, refused.json["error"]["param"]) == (400, "n")


@pytest.mark.parametrize("key", ["9" * 5000, "-1", "٣", "3", "1"])
def test_a_bias_is_for_an_id_that_can_be_drawn(generate: Generate, key: str) -> None:
    refused = generate.client.post("/v1/chat/completions", json=CHAT | {"logit_bias": {key: 1}})
    assert (refused.status_code, refused.json["error"]["param"]) == (400, "logit_bias")


def test_the_smallest_top_p_takes_the_likeliest_token(generate: Generate) -> None:
    reply = generate.client.post("/v1/chat/completions", json=CHAT | {"top_p": 0})
    assert reply.json["choices"][0]["message"]["content"] == REPLY.lstrip()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tools": [{}], "tool_choice": "required"}, "tool_choice required is not supported"),
        ({"response_format": {"type": "json_object"}}, "'json_object' is not supported"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type image_url is not supported; BLOOM reads text",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_value(
    generate: Generate, asked: dict[str, Any], said: str
) -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]} | asked
    refused = generate.client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert said in refused.json["error"]["message"]


def test_fewer_than_asked_for_are_not_the_best(generate: Generate) -> None:
    body = {"model": "fake", "prompt": "a", "best_of": 1}
    assert generate.client.post("/v1/completions", json=body).status_code == 200
    refused = generate.client.post("/v1/completions", json=body | {"n": 2})
    assert refused.json["error"]["message"] == "best_of must not be below n"
