"""Schedulers that are closed after the test, and whose sequences were all released."""

from collections.abc import Iterator

import pytest

from model.limits import Limits
from model.serving.scheduler import Scheduler
from tests.fakes import FakeEngine
from tests.model.serving.simple import TOKENIZER, Start


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
