"""A pool of threads that goes on with those that it has."""

import threading

import pytest

from functions.server.threads import ThreadPool


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_no_further_thread_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ThreadPool(4, "test")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [future.result(20) for future in [pool.submit(int, n) for n in range(9)]] == [*range(9)]
    monkeypatch.undo()
    pool.shutdown()


def test_without_a_first_thread_there_is_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        ThreadPool(4, "test")
