"""A slow step is distinguished from one that is stuck."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from model.serving.watch import SPINNING, STUCK, Signs, Watch, thread_signs


class World:
    """What a watch sees, as a test sets it."""

    def __init__(self) -> None:
        self.now, self.progress, self.faults, self.read, self.cpu = 500.0, 7, 0, 0, 0
        self.watch = Watch(lambda: self.progress, signs=self.signs, clock=lambda: self.now)

    def signs(self, thread: int) -> Signs:
        assert thread == threading.get_native_id()
        return (self.faults, self.read), self.cpu

    def stuck_after(self, seconds: float, each: float = 10, move: str = "") -> bool:
        """Whether it is found stuck at any of the probes, which come each few seconds."""
        found = False
        until = self.now + seconds
        while self.now < until:
            self.now += each
            if move:
                setattr(self, move, getattr(self, move) + 1)
            found |= self.watch.stuck
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_nothing_is_stuck_while_nothing_runs(world: World) -> None:
    assert not world.stuck_after(10_000)
    world.watch.begin()
    world.watch.end()
    assert not world.stuck_after(10_000)


@pytest.mark.parametrize("each", [1.0, 10.0, 45.0])
def test_a_step_in_which_nothing_moves_is_found_within_two_probes_of_the_bound(
    world: World, each: float
) -> None:
    world.watch.begin()
    assert not world.stuck_after(STUCK - each, each)
    assert world.stuck_after(2 * each, each)


@pytest.mark.parametrize("move", ["progress", "faults", "read"])
def test_a_step_that_gets_on_is_never_stuck(world: World, move: str) -> None:
    world.watch.begin()
    assert not world.stuck_after(10 * SPINNING, move=move)
    assert world.stuck_after(2 * STUCK)


def test_a_step_that_only_computes_is_stuck_much_later(world: World) -> None:
    world.watch.begin()
    assert not world.stuck_after(SPINNING - 20, move="cpu")
    assert world.stuck_after(40, move="cpu")


def test_a_step_is_measured_from_its_own_beginning(world: World) -> None:
    world.watch.begin()
    assert not world.watch.stuck
    world.watch.end()
    world.now += 100 * STUCK  # idle, without a probe, and with the same signs after it
    world.watch.begin()
    assert not world.watch.stuck
    assert not world.stuck_after(STUCK - 10)
    assert world.stuck_after(20)


def test_what_was_stuck_and_goes_on_is_well_again(world: World) -> None:
    world.watch.begin()
    assert world.stuck_after(2 * STUCK)
    world.progress += 1
    assert not world.watch.stuck
    assert world.stuck_after(2 * STUCK)
    world.watch.end()
    assert not world.watch.stuck


def signs_of(work: Callable[[], object], go_on: threading.Event) -> tuple[Signs, Signs]:
    """The signs of a thread that sleeps, before and after it has done something."""
    ready, done, thread = threading.Event(), threading.Event(), []

    def run() -> None:
        thread.append(threading.get_native_id())
        ready.set()
        assert go_on.wait(20)
        work()
        done.set()
        assert over.wait(20)

    over = threading.Event()
    runs = threading.Thread(target=run)
    runs.start()
    assert ready.wait(20)
    before = thread_signs(thread[0])
    go_on.set()
    assert done.wait(20)
    after = thread_signs(thread[0])
    over.set()
    runs.join(20)
    return before, after


def test_a_threads_processor_time_moves_when_it_computes() -> None:
    before, after = signs_of(lambda: sum(range(3_000_000)), threading.Event())
    assert after[1] > before[1]


def test_a_threads_reading_from_disk_moves_its_signs(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before, after = signs_of(path.read_bytes, threading.Event())
    if before[0] == after[0]:
        pytest.skip("this file system keeps what was written in memory")


def test_a_thread_that_sleeps_or_has_gone_moves_nothing() -> None:
    ready, over, thread = threading.Event(), threading.Event(), []

    def run() -> None:
        thread.append(threading.get_native_id())
        ready.set()
        assert over.wait(20)

    sleeper = threading.Thread(target=run)
    sleeper.start()
    assert ready.wait(20)
    before = thread_signs(thread[0])
    for _ in range(100):
        thread_signs(thread[0])
    same = thread_signs(thread[0])
    over.set()
    sleeper.join(20)
    assert same[0] == before[0]
    assert thread_signs(2**22 + 1) == ((0, 0), 0)
