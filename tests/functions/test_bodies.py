"""Bodies in hand: how many bytes, who decodes, and when the memory goes back."""

import gc
import threading

import pytest

from functions import memory
from functions.http.body import one_at_a_time
from functions.http.middleware.uploads import LARGE, ByteBudget
from tests.functions.conftest import Generate


def test_bytes_are_taken_waited_for_and_given_back() -> None:
    shared = ByteBudget(100)
    assert shared.take(60, 0)
    assert not shared.take(60, 0.01)
    assert shared.take(40, 0)
    waits = threading.Thread(target=shared.take, args=(90, 20))
    waits.start()
    shared.give_back(60)
    shared.give_back(40)
    waits.join(20)
    assert not waits.is_alive()
    assert not shared.take(11, 0)
    assert shared.take(10, 0)


def test_what_is_more_than_all_is_all() -> None:
    shared = ByteBudget(100)
    assert shared.take(1000, 0)
    assert not shared.take(1, 0)
    shared.give_back(1000)
    assert shared.take(100, 0)


def test_one_decodes_at_a_time_and_no_garbage_is_looked_for() -> None:
    inside, most = 0, 0

    @one_at_a_time
    def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        assert not gc.isenabled()
        inside -= 1
        raise LookupError

    def call() -> None:
        for _ in range(50):
            with pytest.raises(LookupError):
                work()

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert gc.isenabled()


@pytest.mark.parametrize("text", ["a" * LARGE * 2, "a", " "])
@pytest.mark.parametrize("path", ["/", "/chat/", "/v1/completions", "/nowhere", "/healthz"])
def test_every_large_body_is_let_go(generate: Generate, path: str, text: str) -> None:
    field = "content" if path == "/chat/" else "prompt"
    for _ in range(12):  # three times as many as there is room for
        reply = generate.client.post(path, json={field: text, "model": "fake"})
        assert reply.status_code in (200, 400, 404, 405, 422), reply.text
        reply.close()


def test_memory_is_given_back_after_large_requests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []

    class Libc:
        malloc_trim = trimmed.append

    monkeypatch.setattr(memory, "_c", Libc)
    monkeypatch.setattr(memory, "_noted", 0)
    monkeypatch.setattr(memory, "_last", 0.0)
    memory.note(1000)
    memory.give_back(10.0)
    assert not trimmed
    memory.note(memory.NOTED)
    memory.give_back(10.0)
    memory.note(memory.NOTED)
    memory.give_back(10.5)  # too soon
    assert trimmed == [0]
    memory.give_back(12.0)
    assert trimmed == [0, 0]


def test_another_c_library_than_glibc_is_nothing_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_c", object)
    memory.configure()
    memory.note(memory.NOTED)
    memory.give_back(memory._last + 10)
