"""The scheduler, on an engine that writes a fixed reply."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from model.limits import Limits
from model.sampling import SamplingParams
from model.serving.events import Done, Event, Failed, Generation, Prefill, Queued, Token
from model.serving.request import GenerationRequest
from model.serving.sampler import Sampler
from model.serving.scheduler import ContextFull, Draining, Overloaded, Scheduler
from model.serving.watch import STUCK, Watch
from tests.fakes import FakeEngine, FakeSequence, byte_tokenizer

TOKENIZER = byte_tokenizer()
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)
Start = Callable[..., Scheduler]


def request(prompt: str = "Hi", **options: object) -> GenerationRequest:
    return GenerationRequest(tuple(TOKENIZER.ids(prompt)), sampling=GREEDY, **options)  # type: ignore[arg-type]


def engine(reply: str = "Hello", **options: int) -> FakeEngine:
    return FakeEngine(TOKENIZER.ids(reply), **options)


def finish(generation: Generation) -> list[Event]:
    return [event for event in generation.events(heartbeat=20) if event is not None]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[tuple[Scheduler, FakeEngine]] = []

    def start(fake: FakeEngine, *, prefill_chunk: int = 64, **limits: int) -> Scheduler:
        scheduler = Scheduler(fake, TOKENIZER, Limits(**limits), prefill_chunk=prefill_chunk)
        scheduler.start()
        started.append((scheduler, fake))
        return scheduler

    yield start
    for scheduler, fake in started:
        fake.running.set()
        scheduler.close()
        assert not fake.open, "a sequence was never released"


def test_events_come_in_order_and_end_once(start: Start) -> None:
    events = finish(start(engine()).submit(request()))
    assert events[0] == Queued(1)
    assert events[1] == Prefill(2, 2)
    assert [event.text for event in events[2:-1] if isinstance(event, Token)] == [*"Hello", ""]
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("Hello", "stop")
    assert (last.prompt_tokens, last.completion_tokens) == (2, 6)


def test_a_stop_that_names_a_hidden_token_ends_a_reply_there() -> None:
    tokenizer = byte_tokenizer("<|end|>", "<|other|>")
    reply = tokenizer.ids("Hi<|other|>!<|end|> and on")
    scheduler = Scheduler(FakeEngine(reply, vocabulary=tokenizer.size), tokenizer)
    scheduler.start()
    try:
        last = finish(scheduler.submit(request(stop=("<|end|>",), max_new_tokens=7)))[-1]
    finally:
        scheduler.close()
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason, last.completion_tokens) == ("Hi!", "stop", 5)


def test_length_ends_a_reply(start: Start) -> None:
    last = finish(start(engine()).submit(request(max_new_tokens=3)))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason, last.completion_tokens) == ("Hel", "length", 3)


def test_the_context_ends_a_reply(start: Start) -> None:
    last = finish(start(engine(max_context=6)).submit(request("1234")))[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("He", "length")


def test_a_stop_string_is_not_shown(start: Start) -> None:
    events = finish(start(engine("one\nUser: two")).submit(request(stop=("\nUser:",))))
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.text, last.finish_reason) == ("one", "stop")
    assert "".join(event.text for event in events if isinstance(event, Token)) == "one"


def test_text_held_back_for_a_stop_string_is_shown_at_the_end(start: Start) -> None:
    last = finish(start(engine("one\nUs")).submit(request(stop=("\nUser:",))))[-1]
    assert isinstance(last, Done)
    assert last.text == "one\nUs"


def test_characters_are_never_cut(start: Start) -> None:
    text = "añ你🌺ب"
    events = finish(start(engine(text)).submit(request()))
    shown = [event.text for event in events if isinstance(event, Token) and event.text]
    assert shown == list(text)
    cut = finish(start(engine("a你")).submit(request(max_new_tokens=2)))[-1]
    assert isinstance(cut, Done)
    assert cut.text == "a"


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
    told = [[e.position for e in finish(g) if isinstance(e, Queued)] for g in generations]
    assert told[3][-1] == 1
    for positions in told:
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
    with pytest.raises(Overloaded) as refusal:
        scheduler.submit(request())
    assert refusal.value.retry_after >= 1


def test_a_burst_at_an_idle_engine_fills_the_batch_and_the_queue(start: Start) -> None:
    fake = engine()
    fake.running.clear()
    scheduler = start(fake, max_batch=3, max_queue=2)
    generations = [scheduler.submit(request()) for _ in range(5)]
    with pytest.raises(Overloaded):
        scheduler.submit(request())
    fake.running.set()
    assert all(isinstance(finish(generation)[-1], Done) for generation in generations)


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
    with pytest.raises(Draining):
        scheduler.submit(request())


def test_a_prompt_that_fills_the_context_is_refused(start: Start) -> None:
    scheduler = start(engine(max_context=8))
    assert isinstance(finish(scheduler.submit(request("1234567")))[-1], Done)
    with pytest.raises(ContextFull) as refusal:
        scheduler.submit(request("12345678"))
    assert (refusal.value.prompt_tokens, refusal.value.max_context) == (8, 8)


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
    except Draining:
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came true")


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


def test_the_context_is_no_longer_than_the_memory(start: Start) -> None:
    fake = engine()
    fake.memory = 100
    scheduler = start(fake)
    assert scheduler.max_context == 100
    with pytest.raises(ContextFull):
        scheduler.submit(request("a" * 100))
    assert isinstance(finish(scheduler.submit(request("a" * 99)))[-1], Done)


def test_what_the_engine_remembers_is_not_read_again(start: Start) -> None:
    fake = engine()
    fake.remembers = 5
    events = finish(start(fake).submit(request("12345678")))
    assert [event for event in events if isinstance(event, Prefill)] == [Prefill(8, 8)]
    assert [len(tokens) for _, tokens in fake.steps[0]] == [3]
    last = events[-1]
    assert isinstance(last, Done)
    assert (last.prompt_tokens, last.cached_tokens) == (8, 5)


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


def test_many_replies_to_one_leave_places_to_others(start: Start) -> None:
    """Whoever comes later than two requests for many replies is not served after all of them."""
    fake = engine("x" * 200)
    scheduler = start(fake, max_batch=4, max_queue=40)
    fake.running.clear()
    crowds = [scheduler.submit_all([request() for _ in range(16)]) for _ in range(2)]
    single = scheduler.submit(request("a", max_new_tokens=3))
    fake.running.set()
    assert isinstance(finish(single)[-1], Done)
    waiting = scheduler.figures()["waiting"]
    for crowd in crowds:
        for generation in crowd:
            generation.cancel()
    assert waiting >= 24


def test_what_is_read_along_makes_way_for_a_request(start: Start) -> None:
    fake = engine()
    scheduler = start(fake, prefill_chunk=8)
    fake.running.clear()
    along = scheduler.submit(request("a" * 400, background=True))
    wait_until(lambda: scheduler.figures()["running"] == 1)
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
        with pytest.raises(Overloaded):
            scheduler.reserve()
        with pytest.raises(Overloaded):
            scheduler.submit(request())
        (generation,) = places.fill([request()])
    other = scheduler.submit(request())  # in the place that was not filled
    with pytest.raises(Overloaded):
        scheduler.reserve()
    fake.running.set()
    assert isinstance(finish(generation)[-1], Done)
    assert isinstance(finish(other)[-1], Done)
    assert scheduler.idle


@pytest.mark.parametrize("problem", [ValueError, ContextFull, MemoryError, KeyboardInterrupt])
def test_places_come_back_whatever_happens(start: Start, problem: type[BaseException]) -> None:
    scheduler = start(engine(max_context=8), max_batch=1, max_queue=1)

    def make() -> GenerationRequest:
        if problem is ContextFull:
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
        except Overloaded:
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
        with pytest.raises(Overloaded):
            second.fill([request("a" * 3)])
    fake.running.set()
    assert isinstance(finish(running)[-1], Done)
    assert isinstance(finish(waiting)[-1], Done)


def test_draining_refuses_what_was_being_made(start: Start) -> None:
    scheduler = start(engine())
    with scheduler.reserve() as places:
        scheduler.close()
        with pytest.raises(Draining):
            places.fill([request()])
