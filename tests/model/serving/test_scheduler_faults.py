"""Whatever raises at whichever step, each generation ends once, and the next one is served."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from model.serving.events import Done, Event, Failed, Generation
from model.serving.running import Running
from model.serving.sampler import Sampler
from model.serving.scheduler import Observer, Scheduler
from model.text.stops import StopStrings
from model.text.tokenizer import StreamDecoder
from tests.fakes import FakeEngine, OneHot
from tests.model.serving.simple import TOKENIZER, request, wait_until

pytestmark = pytest.mark.slow

# What raises, by the class and the name of what is called there, and at which of its calls.
PLACES: list[tuple[type, str]] = [
    (Observer, "started"),
    (Observer, "first_token"),
    (Observer, "ended"),
    (FakeEngine, "new_sequence"),
    (FakeEngine, "forward"),
    (FakeEngine, "release"),
    (Sampler, "__init__"),
    (Sampler, "next"),
    (StreamDecoder, "__init__"),
    (StreamDecoder, "push"),
    (StopStrings, "__init__"),
    (StopStrings, "push"),
    (StopStrings, "flush"),
    (OneHot, "top"),
    (OneHot, "at"),
    (OneHot, "logsumexp"),
    (Generation, "put"),
    (Running, "__init__"),
    (Running, "work"),
    (Running, "note_prompt_read"),
    (Running, "draw"),
    (Running, "write"),
    (Running, "done"),
    (Running, "_likelihood"),
    (Scheduler, "_advance"),
]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "of a long prompt": {"prompt": "x" * 200},
    "read alone": {"max_new_tokens": 0},
    "with likelihoods": {"logprobs": 2},
    "with the prompt's likelihoods": {"logprobs": 2, "prompt_logprobs": True},
    "with stops": {"stop": ("zzz", "He!")},
    "in the background": {"background": True, "max_new_tokens": 0},
}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(TOKENIZER.ids("Hello"))


@pytest.fixture
def scheduler(engine: FakeEngine) -> Iterator[Scheduler]:
    found = Scheduler(engine, TOKENIZER, prefill_chunk=64)
    found.start()
    yield found
    engine.running.set()
    found.close()


def raising(
    patch: pytest.MonkeyPatch, type_: type, name: str, calls: range, problem: type[Exception]
) -> None:
    """Let some of the calls raise; a thing that releases has released before it does."""
    original, counted = getattr(type_, name), itertools.count()

    def call(*args: Any, **options: Any) -> Any:
        if next(counted) in calls:
            if name == "release":
                original(*args, **options)
            raise problem("injected")
        return original(*args, **options)

    patch.setattr(type_, name, call)


def ends_of(generations: list[Generation], scheduler: Scheduler) -> list[Event]:
    """The last events of generations that share a queue, once nothing more can come."""
    wait_until(lambda: scheduler.idle)
    ends = []
    while not generations[0].shared.empty():
        generation, event = generations[0].shared.get()
        assert generation in generations
        if isinstance(event, Done | Failed):
            ends.append((generation, event))
    assert len(ends) == len(generations), "each ends once"
    assert {generation for generation, _ in ends} == set(generations)
    return [event for _, event in ends]


@pytest.mark.parametrize("problem", [RuntimeError, MemoryError])
@pytest.mark.parametrize("calls", [range(1), range(1, 2), range(2, 3), range(9)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("type_", "name"), PLACES, ids=str)
def test_each_ends_once_and_the_next_is_served(
    scheduler: Scheduler,
    engine: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    type_: type,
    name: str,
    kind: str,
    calls: range,
    problem: type[Exception],
) -> None:
    if name == "put" and len(calls) > 1:
        pytest.skip("a queue that takes nothing cannot tell anybody anything")
    with monkeypatch.context() as patch:
        engine.running.clear()
        asked = request(**KINDS[kind])
        count = 1 if asked.background else 2
        if (type_, name) != (Generation, "put"):
            raising(patch, type_, name, calls, problem)
            generations = scheduler.submit_all([asked] * count)
        else:
            generations = scheduler.submit_all([asked] * count)
            raising(patch, type_, name, calls, problem)
        engine.running.set()
        ends = ends_of(generations, scheduler)
        if type_ is Observer or name == "release":  # no reason for anybody to hear of it
            assert all(isinstance(end, Done) for end in ends)
    assert not engine.open, "a sequence was never released"
    assert scheduler.healthy
    (after,) = ends_of([scheduler.submit(request())], scheduler)
    assert isinstance(after, Done)
    assert after.text == "Hello"


@pytest.mark.parametrize("results", [0, 1, 3])
def test_an_engine_that_gives_too_few_or_too_many_results(
    scheduler: Scheduler, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, results: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FakeEngine, "forward", lambda *_: [OneHot(5, 260)] * results)
        engine.running.clear()
        generations = scheduler.submit_all([request()] * 2)
        engine.running.set()
        ends = ends_of(generations, scheduler)
    if results != 1:  # 1 is right while one prompt is read after the other
        assert all(isinstance(end, Failed) for end in ends)
    assert not engine.open
    assert isinstance(ends_of([scheduler.submit(request())], scheduler)[0], Done)


@pytest.mark.parametrize("hook", ["started", "first_token", "ended"])
@pytest.mark.parametrize("how", ["cancelled", "deadline", "draining", "no memory", "full"])
def test_an_observer_that_always_raises_changes_no_end(
    scheduler: Scheduler, engine: FakeEngine, hook: str, how: str
) -> None:
    class Broken(Observer):
        pass

    def fail(self: Observer, *_: object) -> None:
        raise KeyError("a label")

    setattr(Broken, hook, fail)
    scheduler.observer = Broken()
    engine.running.clear()
    options: dict[str, Any] = {"deadline": 0.0} if how == "deadline" else {}
    if how == "no memory":
        engine.memory = 1
    generation = scheduler.submit(request(**options))
    if how == "cancelled":
        generation.cancel()
    closing = threading.Thread(target=scheduler.close)
    if how == "draining":
        closing.start()
        wait_until(lambda: scheduler._admission.ending)
    engine.running.set()
    (end,) = ends_of([generation], scheduler)
    expected = {"no memory": "internal", "full": ""}.get(how, how)
    assert (end.kind if isinstance(end, Failed) else "") == expected
    engine.memory = None
    if how != "draining":
        assert isinstance(ends_of([scheduler.submit(request())], scheduler)[0], Done)
    else:
        closing.join(20)
    assert not engine.open


def test_a_queue_that_takes_nothing_when_submitting_leaves_nothing_behind(
    scheduler: Scheduler, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in range(2):
        with monkeypatch.context() as patch:
            raising(patch, Generation, "put", range(call, call + 1), MemoryError)
            with pytest.raises(MemoryError):
                scheduler.submit_all([request()] * 2)
        assert scheduler.idle
    assert not engine.steps


def test_an_engine_that_comes_back_after_its_clients_were_told_tells_them_nothing_more(
    scheduler: Scheduler, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.running.clear()
    generation = scheduler.submit(request())
    join: Callable[..., None] = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: join(self, 0.01))
    scheduler.close()
    engine.running.set()
    assert engine.closed.wait(20)
    (end,) = ends_of([generation], scheduler)
    assert end == Failed("draining", "the server is shutting down")
