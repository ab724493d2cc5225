"""What a function holds: loaded once, in the background, and what is said meanwhile."""

import threading

import pytest

from functions.errors import ApiError, Draining, Loading
from functions.service import Service


class Resource:
    def __init__(self) -> None:
        self.closed: list[float] = []

    def close(self, grace: float = 0.0) -> None:
        self.closed.append(grace)


def state_of(service: Service[Resource]) -> str:
    return service.state


def test_a_resource_is_loaded_once_and_closed_with_its_grace() -> None:
    gate, loads = threading.Event(), []

    def load() -> Resource:
        gate.wait(20)
        loads.append(Resource())
        return loads[-1]

    service = Service(load)
    service.start()
    service.start()
    assert state_of(service) == "loading"
    assert service.peek() is None
    assert not service.wait(0)
    with pytest.raises(Loading):
        service.get()
    gate.set()
    assert service.wait(20)
    assert state_of(service) == "ready"
    assert [service.get()] == loads == [service.peek()]
    assert service.start_seconds > 0
    service.close(3)
    assert state_of(service) == "draining"
    assert loads[0].closed == [3]
    with pytest.raises(Draining):
        service.get()


def test_closing_ends_the_wait_for_what_is_still_loading() -> None:
    gate = threading.Event()
    service = Service(lambda: (gate.wait(20) and Resource()) or Resource())
    service.start()
    service.close(0)
    assert service.wait(0)
    gate.set()


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError()])
def test_a_resource_that_cannot_be_loaded_ends_the_process(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("os._exit", ended.append)

    def load() -> Resource:
        raise error

    service = Service(load)
    service._run()
    assert ended == [3]
    assert capsys.readouterr().err.startswith("piBLOOM: the model could not be loaded")
    assert service.state == "failed"
    with pytest.raises(ApiError, match="could not be loaded"):
        service.get()
