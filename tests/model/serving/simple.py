"""The scheduler on an engine that writes a fixed reply, and what tests ask of it."""

import threading
from collections.abc import Callable
from typing import Any

from model.sampling import SamplingParams
from model.serving.events import Event, Generation
from model.serving.request import GenerationRequest
from model.serving.scheduler import Scheduler
from tests.fakes import FakeEngine, byte_tokenizer

TOKENIZER = byte_tokenizer()
GREEDY = SamplingParams(temperature=0, repetition_penalty=1)
Start = Callable[..., Scheduler]


def request(prompt: str = "Hi", **options: Any) -> GenerationRequest:
    return GenerationRequest(tuple(TOKENIZER.ids(prompt)), sampling=GREEDY, **options)


def engine(reply: str = "Hello", **options: int) -> FakeEngine:
    return FakeEngine(TOKENIZER.ids(reply), **options)


def finish(generation: Generation) -> list[Event]:
    return [event for event in generation.events(heartbeat=20) if event is not None]


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came true")
