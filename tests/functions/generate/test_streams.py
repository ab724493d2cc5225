"""How streams are sent: heartbeats, failures and cancelling, whatever the lines are."""

from collections.abc import Iterator
from typing import Any

import pytest

from functions import errors
from functions.generate import streams
from model.serving.events import Generation
from model.serving.request import GenerationRequest


@pytest.fixture
def generations() -> list[Generation]:
    return [Generation(GenerationRequest((5, 6), 3)) for _ in range(2)]


def send(generations: list[Generation], lines: Iterator[bytes]) -> Any:
    return streams.send(
        generations,
        lines,
        headers={"Content-Type": "text/plain"},
        heartbeat=lambda: b"beat\n",
        failed=lambda error: f"failed: {error.message}\n".encode(),
    )


def test_an_empty_line_is_a_heartbeat_once_it_is_due(
    generations: list[Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(generations, iter([b"a\n", b"", b"b\n"])).data == b"a\nb\n"
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.0)
    assert send(generations, iter([b"a\n", b"", b"b\n"])).data == b"a\nbeat\nb\n"


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (errors.Loading("not yet"), b"failed: not yet\n"),
        (errors.ClientGone("gone"), b""),  # nobody reads it
        (ValueError("secret"), b"failed: the server failed to answer this request\n"),
    ],
)
def test_a_failure_is_the_last_line_and_all_are_cancelled(
    generations: list[Generation], error: Exception, last: bytes
) -> None:
    def lines() -> Iterator[bytes]:
        yield b"a\n"
        raise error

    assert send(generations, lines()).data == b"a\n" + last
    assert all(each.cancelled for each in generations)


def test_a_stream_that_is_closed_before_its_first_line_is_cancelled(
    generations: list[Generation],
) -> None:
    send(generations, iter([b"a\n"])).close()
    assert all(each.cancelled for each in generations)


def test_what_is_submitted_while_the_stream_runs_is_cancelled_too() -> None:
    generations: list[Generation] = []

    def lines() -> Iterator[bytes]:
        generations.append(Generation(GenerationRequest((5, 6), 3)))
        yield b"a\n"

    assert send(generations, lines()).data == b"a\n"
    assert [each.cancelled for each in generations] == [True]
