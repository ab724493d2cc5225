"""Memory that goes back to the system after large requests."""

import pytest

from functions import memory


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
