"""Who waits, who gets a place, and who is refused."""

import threading
import time
from typing import Any

import pytest

from model.serving.admission import Admission, PromptTooLong, QueueFull, ShuttingDown
from model.serving.events import Done, Failed, Queued, events_of
from model.serving.request import GenerationRequest
from tests.model.serving.simple import TOKENIZER, Start, engine, finish, request, wait_until


def test_the_batch_never_exceeds_its_limit(start: Start) -> None:
    fake = engine()
    scheduler = start(fake, max_batch=3)
    for generation in [scheduler.submit(request()) for _ in range(12)]:
        assert isinstance(finish(generation)[-1], Done)
    assert fake.most_open == 3


def test_waiting_requests_are_told_each_new_position(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=1)
    generations = [scheduler.submit(request()) for _ in range(4)]
    fake.running.set()
    reported = [[e.position for e in finish(g) if isinstance(e, Queued)] for g in generations]
    assert reported[3][-1] == 1
    for positions in reported:
        assert positions == sorted(positions, reverse=True)


def test_a_full_queue_refuses_with_an_estimate(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=1, max_queue=2)
    first = scheduler.submit(request())
    assert next(first.events()) == Queued(1)
    wait_until(lambda: bool(fake.open))
    for _ in range(2):
        scheduler.submit(request())
    with pytest.raises(QueueFull) as refusal:
        scheduler.submit(request())
    assert refusal.value.retry_after >= 1


def test_a_burst_at_an_idle_engine_fills_the_batch_and_the_queue(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=3, max_queue=2)
    generations = [scheduler.submit(request()) for _ in range(5)]
    with pytest.raises(QueueFull):
        scheduler.submit(request())
    fake.running.set()
    assert all(isinstance(finish(generation)[-1], Done) for generation in generations)


def test_cancelling_in_the_queue_frees_its_place(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=1)
    first, second, third = (scheduler.submit(request()) for _ in range(3))
    second.cancel()
    fake.running.set()
    assert isinstance(finish(first)[-1], Done)
    assert isinstance(finish(second)[-1], Failed)
    assert isinstance(finish(third)[-1], Done)
    assert len({id(sequence) for step in fake.steps for sequence, _ in step}) == 2


def test_a_prompt_that_fills_the_context_is_refused(start: Start) -> None:
    scheduler = start(engine(max_context=8))
    assert isinstance(finish(scheduler.submit(request("1234567")))[-1], Done)
    with pytest.raises(PromptTooLong) as refusal:
        scheduler.submit(request("12345678"))
    assert (refusal.value.prompt_tokens, refusal.value.max_context) == (8, 8)


def test_a_request_waits_for_memory_and_nobody_overtakes_it(start: Start) -> None:
    fake = engine("Hello, World")
    fake.memory = 40
    fake.running.clear()
    scheduler = start(fake)
    first = scheduler.submit(request("a" * 20, max_new_tokens=10))
    large = scheduler.submit(request("b" * 20, max_new_tokens=10))
    small = scheduler.submit(request("c", max_new_tokens=3))
    fake.running.set()
    assert isinstance(finish(first)[-1], Done)
    assert isinstance(finish(large)[-1], Done)
    assert isinstance(finish(small)[-1], Done)
    order = [sequence.prompt[0] for step in fake.steps for sequence, _ in step]
    assert order.index(TOKENIZER.ids("b")[0]) < order.index(TOKENIZER.ids("c")[0])


def test_many_replies_to_one_leave_places_to_others(start: Start) -> None:
    """Whoever comes later than two requests for many replies is not served after all of them."""
    fake = engine("x" * 200)
    scheduler = start(fake, max_batch=4, max_queue=40)
    fake.running.clear()
    crowds = [scheduler.submit_all([request() for _ in range(16)]) for _ in range(2)]
    single = scheduler.submit(request("a", max_new_tokens=3))
    fake.running.set()
    assert isinstance(finish(single)[-1], Done)
    waiting = scheduler.stats()["waiting"]
    for crowd in crowds:
        for generation in crowd:
            generation.cancel()
    assert waiting >= 24


def test_what_is_read_along_makes_way_for_a_request(start: Start) -> None:
    fake = engine()
    scheduler = start(fake, prefill_chunk=8)
    fake.running.clear()
    along = scheduler.submit(request("a" * 400, background=True))
    wait_until(lambda: scheduler.stats()["running"] == 1)
    asked = scheduler.submit(request("b"))
    fake.running.set()
    assert isinstance(finish(asked)[-1], Done)
    last = finish(along)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "cancelled"


def test_a_reserved_place_is_taken_until_it_is_given_back(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=1, max_queue=1)
    with scheduler.reserve() as places, scheduler.reserve():
        assert not scheduler.idle
        with pytest.raises(QueueFull):
            scheduler.reserve()
        with pytest.raises(QueueFull):
            scheduler.submit(request())
        (generation,) = places.fill([request()])
    other = scheduler.submit(request())  # in the place that was not filled
    with pytest.raises(QueueFull):
        scheduler.reserve()
    fake.running.set()
    assert isinstance(finish(generation)[-1], Done)
    assert isinstance(finish(other)[-1], Done)
    assert scheduler.idle


@pytest.mark.parametrize("problem", [ValueError, PromptTooLong, MemoryError, KeyboardInterrupt])
def test_places_come_back_whatever_happens(start: Start, problem: type[BaseException]) -> None:
    scheduler = start(engine(max_context=8), max_batch=1, max_queue=1)

    def make() -> GenerationRequest:
        if problem is PromptTooLong:
            return request("12345678")
        raise problem

    with pytest.raises(problem), scheduler.reserve(2) as places:
        places.fill([make()])
    with scheduler.reserve(2):
        pass


def test_of_many_at_once_no_more_get_a_place_than_there_are(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=2, max_queue=3)
    together, got = threading.Barrier(16), []

    def come() -> None:
        together.wait(20)
        try:
            with scheduler.reserve() as places:
                got.extend(places.fill([request()]))
        except QueueFull:
            pass

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    fake.running.set()
    assert len(got) == 5
    assert all(isinstance(finish(generation)[-1], Done) for generation in got)


def test_tokens_that_wait_are_bounded_for_reserved_places_too(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=1, max_queue=4, max_queue_tokens=10)
    running = scheduler.submit(request("a"))
    wait_until(lambda: bool(fake.open))
    with scheduler.reserve() as first, scheduler.reserve() as second:
        (waiting,) = first.fill([request("a" * 8)])
        with pytest.raises(QueueFull):
            second.fill([request("a" * 3)])
    fake.running.set()
    assert isinstance(finish(running)[-1], Done)
    assert isinstance(finish(waiting)[-1], Done)


def test_draining_refuses_what_was_being_made(start: Start) -> None:
    scheduler = start(engine())
    with scheduler.reserve() as places:
        scheduler.close()
        with pytest.raises(ShuttingDown):
            places.fill([request()])


# Fields of `Admission` that never change; the others are read and written under its lock only.
CONSTANT = {"max_context", "_limits", "_changed"}


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fields of an admission that were read or written without its lock."""
    found: list[str] = []
    read, write = Admission.__getattribute__, Admission.__setattr__

    def check(self: Admission, name: str) -> None:
        fields = read(self, "__dict__")
        if name in fields.keys() - CONSTANT and not read(self, "_changed")._is_owned():
            found.append(name)

    def checked_read(self: Admission, name: str) -> Any:
        check(self, name)
        return read(self, name)

    def checked_write(self: Admission, name: str, value: object) -> None:
        check(self, name)
        write(self, name, value)

    monkeypatch.setattr(Admission, "__getattribute__", checked_read)
    monkeypatch.setattr(Admission, "__setattr__", checked_write)
    return found


def test_every_field_is_guarded_by_the_lock(start: Start, unguarded: list[str]) -> None:
    fake = engine("x" * 20)
    fake.memory = 200
    scheduler = start(fake, max_batch=3, max_queue=40)
    asked: list[object] = []

    def ask(each: int) -> None:
        try:
            generations = scheduler.submit_all(
                [request("a" * 20 * each, deadline=time.monotonic() + 60)] * (1 + each % 2)
            )
        except (QueueFull, PromptTooLong):
            return
        if each == 3:
            generations[0].cancel()
        asked.append((scheduler.healthy, scheduler.idle, scheduler.stats()))
        for found in events_of(generations, heartbeat=20):
            assert found is not None

    threads = [threading.Thread(target=ask, args=(each,)) for each in range(1, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with pytest.raises(QueueFull), scheduler.reserve(), scheduler.reserve(background=True):
        pass
    waiting = [scheduler.submit(request(max_new_tokens=200)) for _ in range(5)]
    scheduler.close()
    for generation in waiting:
        finish(generation)
    assert not unguarded
