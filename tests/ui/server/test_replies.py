"""What is answered before NiceGUI sees a request."""

from ui.asgi import AsgiApp, Message
from ui.server.replies import healthy, no_place, unusable


async def answer_of(app: AsgiApp) -> tuple[int, dict[str, str], str]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing is read of a request")

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "http"}, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(headers["content-length"]) == len(body["body"])
    return start["status"], headers, body["body"].decode()


async def test_a_probe_is_answered() -> None:
    status, headers, body = await answer_of(healthy)
    assert (status, headers["content-type"], body) == (200, "application/json", '{"status":"ok"}')


async def test_a_request_without_a_place_may_come_again() -> None:
    status, headers, body = await answer_of(no_place)
    assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
    assert "Try again" in body


async def test_a_request_of_no_valid_address_is_the_last_of_its_connection() -> None:
    status, headers, _ = await answer_of(unusable)
    assert (status, headers["connection"]) == (400, "close")
