"""The scheduler, on an engine that writes a fixed reply."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from model.serving.admission import PromptTooLong, ShuttingDown
from model.serving.events import Done, Failed, Prefill
from model.serving.sampler import Sampler
from model.serving.scheduler import Scheduler
from model.serving.watch import STUCK, Watch
from tests.fakes import FakeSequence
from tests.model.serving.simple import TOKENIZER, Start, engine, finish, request, wait_until


def test_sequences_share_steps_and_never_text(start: Start) -> None:
    fake = engine()
    fake.echo = True
    fake.running.clear()
    scheduler = start(fake, max_batch=4)
    generations = [scheduler.submit(request(f"prompt {n}")) for n in range(4)]
    fake.running.set()
    ends = [finish(generation)[-1] for generation in generations]
    assert [end.text for end in ends if isinstance(end, Done)] == [f"prompt {n}" for n in range(4)]
    assert max(len(step) for step in fake.steps) == 4


def test_a_long_prompt_is_read_in_chunks_while_others_write(start: Start) -> None:
    fake = engine("Hello, world, hello")
    fake.running.clear()
    scheduler = start(fake, prefill_chunk=4)
    writer, reader = scheduler.submit(request("a")), scheduler.submit(request("x" * 30))
    fake.running.set()
    progress = [event for event in finish(reader) if isinstance(event, Prefill)]
    assert [event.done for event in progress] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert isinstance(finish(writer)[-1], Done)
    assert all(len(tokens) <= 4 for step in fake.steps for _, tokens in step)
    mixed = [step for step in fake.steps if sorted(len(tokens) for _, tokens in step) == [1, 4]]
    assert len(mixed) >= 6, "the writer did not go on while the long prompt was read"


def test_cancelling_ends_within_a_step(start: Start) -> None:
    fake = engine("x" * 1000)
    at_third_step, cancelled = threading.Event(), threading.Event()

    def before_step() -> None:
        if len(fake.steps) == 2:
            at_third_step.set()
            assert cancelled.wait(30)

    fake.before_step = before_step
    generation = start(fake).submit(request(max_new_tokens=1000))
    assert at_third_step.wait(30)
    generation.cancel()
    cancelled.set()
    assert finish(generation)[-1] == Failed("cancelled", "the client left")
    assert len(fake.steps) == 3
    assert not fake.open


@pytest.mark.parametrize("busy", [False, True], ids=["running", "queued"])
def test_a_deadline_ends_a_generation(start: Start, busy: bool) -> None:
    fake = engine("x" * 100)
    fake.running.clear()
    scheduler = start(fake, max_batch=1)
    if busy:
        scheduler.submit(request())
    late = scheduler.submit(request(deadline=time.monotonic() - 1))
    fake.running.set()
    last = finish(late)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "deadline"


def test_a_failing_step_fails_its_sequences_and_no_others(start: Start) -> None:
    fake = engine()
    scheduler = start(fake)

    def fail() -> None:
        fake.before_step = lambda: None
        raise RuntimeError("out of memory")

    fake.before_step = fail
    last = finish(scheduler.submit(request()))[-1]
    assert last == Failed("internal", "the engine failed")
    assert isinstance(finish(scheduler.submit(request()))[-1], Done)


def test_an_engine_that_cannot_release_does_not_end_the_thread(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine()
    scheduler = start(fake)
    release = fake.release

    def fail(sequence: FakeSequence) -> None:
        release(sequence)
        raise RuntimeError("it is stuck")

    monkeypatch.setattr(fake, "release", fail)
    assert isinstance(finish(scheduler.submit(request()))[-1], Done)
    assert isinstance(finish(scheduler.submit(request()))[-1], Done)
    assert scheduler.healthy


def test_it_is_idle_once_memory_is_given_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = engine()
    scheduler = start(fake)
    release, idle = fake.release, []

    def watched(sequence: FakeSequence) -> None:
        idle.append(scheduler.idle)
        release(sequence)

    monkeypatch.setattr(fake, "release", watched)
    finish(scheduler.submit(request()))
    wait_until(lambda: scheduler.idle)
    assert idle == [False]


def test_a_thread_that_ends_fails_everybody_and_is_not_healthy(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = start(engine())

    def fail() -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(scheduler, "_admit", fail)
    assert finish(scheduler.submit(request()))[-1] == Failed("internal", "the engine failed")
    wait_until(lambda: not scheduler.healthy)
    with pytest.raises(ShuttingDown):
        scheduler.submit(request())


def test_draining_finishes_what_runs_and_takes_nothing_new(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake)
    generation = scheduler.submit(request())
    closing = threading.Thread(target=scheduler.close, args=(20,))
    closing.start()
    wait_until(lambda: refuses(scheduler))
    fake.running.set()
    assert isinstance(finish(generation)[-1], Done)
    closing.join(10)
    assert not closing.is_alive()


def test_draining_ends_what_outlasts_its_grace(start: Start) -> None:
    fake = engine("x" * 100)
    scheduler = start(fake, max_batch=1)
    gate = threading.Event()

    def pause() -> None:
        gate.wait(0.05)

    fake.before_step = pause
    running, waiting = (scheduler.submit(request(max_new_tokens=100)) for _ in range(2))
    scheduler.close(grace=0.1)
    for generation in (running, waiting):
        last = finish(generation)[-1]
        assert isinstance(last, Failed)
        assert last.kind == "draining"


def refuses(scheduler: Scheduler) -> bool:
    try:
        scheduler.submit(request()).cancel()
    except ShuttingDown:
        return True
    return False


def test_the_context_is_no_longer_than_the_memory(start: Start) -> None:
    fake = engine()
    fake.memory = 100
    scheduler = start(fake)
    assert scheduler.max_context == 100
    with pytest.raises(PromptTooLong):
        scheduler.submit(request("a" * 100))
    assert isinstance(finish(scheduler.submit(request("a" * 99)))[-1], Done)


def test_the_engine_is_closed_with_its_scheduler(start: Start) -> None:
    fake = engine()
    start(fake).close()
    assert fake.closed.wait(10)


def test_what_was_submitted_before_the_start_is_ended_by_a_close() -> None:
    fake = engine()
    scheduler = Scheduler(fake, TOKENIZER)
    waiting = scheduler.submit(request())
    scheduler.close()
    last = finish(waiting)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "draining"
    assert fake.closed.is_set()


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("where", ["in the step", "while a token is drawn", "in the observer"])
def test_an_engine_that_hangs_is_not_healthy_until_it_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    hanging, go_on, clock, fake = threading.Event(), threading.Event(), Clock(), engine()

    def hang(*_: object) -> int:
        hanging.set()
        assert go_on.wait(20)
        return 2

    scheduler = start(fake)
    scheduler._watch = Watch(lambda: fake.progress, signs=lambda _: (None, 0), clock=clock)
    if where == "in the step":
        monkeypatch.setattr(fake, "before_step", hang)
    elif where == "while a token is drawn":
        monkeypatch.setattr(Sampler, "next", hang)
    else:
        monkeypatch.setattr(scheduler.observer, "first_token", hang)
    generation = scheduler.submit(request())
    assert hanging.wait(20)
    assert scheduler.healthy
    clock.now += STUCK - 1
    assert scheduler.healthy
    fake.parts += 1  # it was slow, not stuck
    assert scheduler.healthy
    clock.now += STUCK - 1
    assert scheduler.healthy
    clock.now += 1
    assert not scheduler.healthy
    go_on.set()
    finish(generation)
    assert scheduler.healthy


def test_the_real_signs_of_a_thread_that_hangs_do_not_move(start: Start) -> None:
    hanging, go_on, clock, fake = threading.Event(), threading.Event(), Clock(), engine()

    def hang() -> None:
        hanging.set()
        assert go_on.wait(20)

    fake.before_step = hang
    scheduler = start(fake)
    scheduler._watch = Watch(lambda: fake.progress, clock=clock)
    generation = scheduler.submit(request())
    assert hanging.wait(20)

    def found() -> bool:
        clock.now += STUCK
        return not scheduler.healthy

    wait_until(found)  # once the thread has fallen asleep
    go_on.set()
    finish(generation)
    assert scheduler.healthy


# Which thread owns which field of the scheduler, as its class says.
SCHEDULERS_THREAD = {"_batch"}
COUNTERS = {"_steps", "_step_sequences"}
SHARED = {"_admission", "_watch"}
CONSTANT = {
    "max_context",
    "limits",
    "observer",
    "_engine",
    "_tokenizer",
    "_chunk",
    "_never_drawn",
    "_thread",
}


def test_the_batch_and_the_engine_belong_to_one_thread(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers: list[str] = []
    read = Scheduler.__getattribute__

    def checked(self: Scheduler, name: str) -> Any:
        if name in SCHEDULERS_THREAD and read(self, "_thread") is not threading.current_thread():
            strangers.append(name)
        return read(self, name)

    monkeypatch.setattr(Scheduler, "__getattribute__", checked)
    fake = engine("Hello, World")
    scheduler = start(fake, max_batch=2)
    assert vars(scheduler).keys() == SCHEDULERS_THREAD | COUNTERS | SHARED | CONSTANT

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(fake, name)

        def call(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is not scheduler._thread:
                strangers.append(name)
            return original(*args, **options)

        return call

    for name in ("new_sequence", "forward", "release", "close"):
        monkeypatch.setattr(fake, name, watched(name))
    assert isinstance(finish(scheduler.submit(request()))[-1], Done)
    cancelled = scheduler.submit(request())
    cancelled.cancel()
    finish(cancelled)
    scheduler.stats()
    running, waiting = (scheduler.submit(request(max_new_tokens=500)) for _ in range(2))
    scheduler.close()
    finish(running)
    finish(waiting)
    assert not strangers
