"""The services of `pibloom up`: all start, all end, always."""

import os
import signal
import time
from pathlib import Path

import pytest

from cli.supervisor import restart_delay
from tests.cli.stand_ins import Up, begin, is_alive
from tests.functions.servers import wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_process(ups: list[Up], tmp_path: Path, number: signal.Signals) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    assert len(up.alive) == 6
    up.process.send_signal(number)
    assert up.process.wait(15) == 0
    assert up.alive == []


def test_a_service_that_will_not_end_is_killed(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, STUBBORN="generate")
    up.wait_for_chat()
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []


def test_a_second_signal_kills_at_once(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, STUBBORN="ui", PATIENCE="100")
    up.wait_for_chat()
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: len(up.alive) <= 2)
    started = time.monotonic()
    up.process.send_signal(signal.SIGINT)
    up.process.wait(15)
    assert up.alive == []
    assert time.monotonic() - started < 15


def test_services_end_even_when_the_parent_is_killed(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    services = up.pids[::2]
    up.process.kill()
    wait_until(lambda: not any(map(is_alive, services)))


def test_a_service_that_dies_ends_the_others_with_its_last_words(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path, DIES="generate")
    _, said = up.process.communicate(timeout=20)
    assert up.process.returncode == 1
    assert said.splitlines()[-1] == "pibloom: the disk melted"
    assert up.alive == []


def test_a_service_that_dies_again_and_again_is_started_again_and_the_others_stay(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path)
    up.wait_for_chat()
    _, child = up.latest("tokenize")
    others = [*up.latest("generate"), *up.latest("ui")]
    for deaths in range(1, 5):
        os.kill(up.latest("tokenize")[0], signal.SIGKILL)
        wait_until(lambda: len(up.pids) == 6 + 2 * deaths)  # noqa: B023
    assert not is_alive(child), "what was left of it was not ended"
    assert all(map(is_alive, others))
    assert len(up.alive) == 6
    up.process.send_signal(signal.SIGINT)
    _, said = up.process.communicate(timeout=15)
    assert up.process.returncode == 0
    assert up.alive == []
    assert said.count("tokenize was ended by SIGKILL; starting it again in 0.05 s") == 4


def test_one_that_dies_while_another_is_still_loading_is_started_again(
    ups: list[Up], tmp_path: Path
) -> None:
    up = begin(ups, tmp_path, LOADING="generate")
    assert up.process.stderr is not None
    while "tokenize is ready" not in up.process.stderr.readline():
        pass
    wait_until(lambda: len(up.pids) == 6)
    os.kill(up.latest("tokenize")[0], signal.SIGKILL)
    while "tokenize is ready again" not in up.process.stderr.readline():
        pass
    assert up.process.poll() is None


def test_restart_delays_double_up_to_a_bound() -> None:
    assert [restart_delay(exits) for exits in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert restart_delay(100_000) == 60


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("LOADING", "the answer was status 503, it still <U+001B>[2J loads"),
        ("DEAF", "its last words are: nobody hears this"),
        ("SILENT", "nothing was answered within 2 s"),
    ],
)
def test_a_start_that_does_not_end_says_what_it_waits_for(
    ups: list[Up], tmp_path: Path, fault: str, said: str
) -> None:
    up = begin(ups, tmp_path, "--start-timeout", "1.5", **{fault: "generate"})
    _, error = up.process.communicate(timeout=30)
    assert up.process.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("pibloom: generate is not ready after 1.5 s: generate was asked at http")
    assert said in last
    assert up.alive == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full", "| true"])
def test_what_cannot_be_said_ends_nothing(ups: list[Up], tmp_path: Path, closed: str) -> None:
    up = Up(tmp_path, [], through=closed)
    ups.append(up)
    wait_until(lambda: len(up.pids) == 6)
    first = up.pids[0]
    wait_until(lambda: up.was_asked(first))
    os.kill(first, signal.SIGKILL)  # it is still looked after
    wait_until(lambda: len(up.pids) == 8)
