"""The events of a stream, as the types that the chat works with."""

import pytest

from tests.ui.api.mocked import events, failure, streaming
from tests.ui.fake_functions import done, error, sse, token
from ui.api import events as api


async def test_every_event_of_the_contract_arrives_as_its_type() -> None:
    wire = ": stream\n\n"
    wire += sse({"status": {"state": "loading"}}) + sse(
        {"status": {"state": "queued", "position": 3}}
    )
    wire += sse({"status": {"state": "prefill", "done": 64, "total": 300}}) + ": keep-alive\n\n"
    wire += sse({"status": {"state": "generating"}}) + sse({"later": {"unknown": True}})
    wire += sse(token("Hé", 0)) + sse(done("Hé", 4, 1, seed=7))
    *others, last = await events(streaming(wire.encode()))
    assert others == [
        api.LoadingEvent(),
        api.QueuedEvent(3),
        api.PrefillEvent(64, 300),
        api.GeneratingEvent(),
        api.TokenEvent("Hé", 1),
    ]
    assert last == api.DoneEvent("Hé", "stop", 7, 4, 1, 12.34, 1.02)


async def test_characters_cut_between_two_packets_stay_whole() -> None:
    wire = (sse(token("你好 مرحبا 🌸", 0)) + sse(done("你好 مرحبا 🌸", 4, 1))).encode()
    first, _ = await events(streaming(*(bytes([byte]) for byte in wire)))
    assert first == api.TokenEvent("你好 مرحبا 🌸", 1)


async def test_an_error_event_ends_the_stream_with_its_kind() -> None:
    wire = sse(token("Hel", 0)) + sse({"error": error("deadline", 504, "Too slow.")})
    caught = await failure(streaming(wire.encode()))
    assert (caught.kind, caught.away) == ("deadline", False)


@pytest.mark.parametrize(
    "data", ["not json", "[]", "{}", '{"text": 1}', '{"text": "a", "index": "b"}', "null"]
)
async def test_an_event_in_another_form_is_a_failure_and_not_a_crash(data: str) -> None:
    caught = await failure(streaming(f"event: token\ndata: {data}\n\n".encode()))
    assert caught.kind in ("foreign", "broken")
