"""Keeps the services of `pibloom up` running, and ends them together."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from cli.main import Failure
from cli.service_process import ServiceProcess
from cli.text import say

POLL = 0.1  # seconds between two looks at the services
PATIENCE = 8.0  # seconds that services get to end before they are killed
# Seconds from an exit to the next start: doubled after each exit up to the longest delay. After a
# service has run for longer than that, its next exit counts as the first again.
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0


class StopSignals:
    """Counts the signals that ask this process to end; made on the main thread."""

    def __init__(self) -> None:
        self.count = 0
        self._asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, for `seconds` at most; returns whether one has come."""
        return self._asked.wait(seconds)


def serve(
    services: Sequence[ServiceProcess],
    stops: StopSignals,
    *,
    verbose: bool,
    seconds: float,
    announce: Callable[[], None],
) -> None:
    """Start all services, and keep them running until a signal comes.

    `announce` is called when all are ready. `Failure` when that takes longer than `seconds`, or one
    cannot start.
    """
    until, announced = time.monotonic() + seconds, False
    for service in services:
        say(f"starting {service.name} on port {service.port}")
        service.start(verbose=verbose)
    while not stops.wait(POLL):
        for service in services:
            _look_after(service, verbose=verbose)
        if announced:
            continue
        late = [service for service in services if not service.was_ready]
        if not late:
            announce()
            announced = True
        elif time.monotonic() > until:
            raise Failure(_why_late(late, seconds))


def _look_after(service: ServiceProcess, *, verbose: bool) -> None:
    """Note when a service is ready, and start it again when it has exited, as a cluster would.

    One that exits before it was ever ready cannot start at all; `Failure` then ends all services.
    """
    assert service.process is not None
    now = time.monotonic()
    if service.next_start is not None:
        if now >= service.next_start:
            try:
                service.start(verbose=verbose)
            except (OSError, RuntimeError) as error:  # no memory, no process, no thread to be had
                _start_later(service, f"{service.name} cannot be started ({error})")
    elif service.process.poll() is not None:
        if not service.was_ready:
            raise Failure(service.exit_reason())
        if now - service.started > LONGEST_DELAY:
            service.exits = 0
        _start_later(service, service.exit_reason())
    elif not service.ready and service.probe():
        again = " again" if service.was_ready else ""
        service.was_ready = True
        say(f"{service.name} is ready{again} after {time.monotonic() - service.started:.1f} s")


def _start_later(service: ServiceProcess, why: str) -> None:
    service.exits += 1
    delay = restart_delay(service.exits)
    say(f"{why}; starting it again in {delay:g} s")
    service.send(signal.SIGKILL)  # what is left of it may hold the port
    service.next_start = time.monotonic() + delay


def restart_delay(exits: int) -> float:
    """Return how many seconds to wait after so many exits in a row."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(exits - 1, 30)))


def _why_late(late: Sequence[ServiceProcess], seconds: float) -> str:
    def reason(service: ServiceProcess) -> str:
        lines = service.stderr_lines
        last = f", and its last words are: {lines[-1]}" if lines else ""
        url = f"{service.url}{service.probe_path}"
        return f"{service.name} was asked at {url}, {service.answer}{last}"

    names = " and ".join(service.name for service in late)
    verb = "is" if len(late) == 1 else "are"
    return (
        f"{names} {verb} not ready after {seconds:g} s: {'; '.join(map(reason, late))}"
        " (--start-timeout gives more time, --verbose shows the whole log)"
    )


def end(services: Sequence[ServiceProcess], stops: StopSignals) -> None:
    """End every service.

    Each is asked to end; after `PATIENCE` seconds, or at a second signal, it is killed.
    """
    running = [service for service in services if service.process is not None]
    for service in running:
        service.send(signal.SIGTERM)
    already, deadline = stops.count, time.monotonic() + PATIENCE
    while any(service.process.poll() is None for service in running if service.process):
        if time.monotonic() > deadline or stops.count > max(1, already):
            break
        time.sleep(POLL)
    for service in running:
        service.send(signal.SIGKILL)  # whatever is left of its group
        if service.process is not None:
            service.process.wait()
