"""`pibloom up`: the chat and both functions on this machine, started and ended together."""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

import click

from cli.bake import progress_bar
from cli.main import Failure, Refused
from cli.model import path_of
from cli.text import Number, say, visible
from functions import environment, flags
from functions.settings import NAMES, PREFIX, UI_NAMES
from model.errors import ModelError

SERVICES = ("tokenize", "generate", "ui")  # in the order in which they become ready
POLL = 0.1  # seconds between two looks at the services
PATIENCE = 8.0  # seconds that services get to end before they are killed
START_SECONDS = 300.0  # for all to become ready; loading reads the whole model
# Seconds from a death to the next start: twice as long each time, up to a bound, until it has lived
# for as long as that.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
_PR_SET_PDEATHSIG = 1
# Looked up here, since a process between fork and exec may not load anything.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass
class Service:
    """A child process and where it listens."""

    name: str
    command: Sequence[str]
    host: str
    port: int
    flag: str
    probe: str
    environment: dict[str, str]  # all that the process is given
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    ready: bool = False
    was_ready: bool = False
    deaths: int = 0  # in a row
    next_start: float | None = None  # while it waits to be started again
    answer: str = "nothing answered"  # what its probe said last
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    relays: Sequence[threading.Thread] = ()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{_in_url(self._reached)}:{self.port}"

    @property
    def _reached(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    def start(self, *, verbose: bool) -> None:
        """Start the process, in a group of its own, so that Ctrl-C reaches us and not it."""
        self.started, self.ready, self.next_start = time.monotonic(), False, None
        self.complaints.clear()
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self.relays = [
            threading.Thread(
                target=self._relay, args=(pipe, keep, verbose), name=self.name, daemon=True
            )
            for pipe, keep in ((self.process.stdout, False), (self.process.stderr, True))
        ]
        for relay in self.relays:
            relay.start()

    def _relay(self, pipe: object, keep: bool, verbose: bool) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            shown = visible(line.rstrip())
            if keep:
                self.complaints.append(shown)
            if verbose or not keep:
                say(f"{self.name:>8}  {shown}")

    def ask(self) -> bool:
        """Ask its probe once, never through a proxy; tell whether it is ready."""
        connection = http.client.HTTPConnection(self._reached, self.port, timeout=2)
        try:
            connection.request("GET", self.probe)
            reply = connection.getresponse()
            self.ready = reply.status == 200
            self.answer = f"the answer was status {reply.status}{_said(reply.read(65536))}"
        except TimeoutError:
            self.answer = "nothing was answered within 2 s"
        except OSError as error:
            self.answer = f"nothing answered ({error.strerror or type(error).__name__})"
        except http.client.HTTPException:
            self.answer = "the answer was no HTTP"
        finally:
            connection.close()
        return self.ready

    def send(self, number: int) -> None:
        """Signal the whole group, if any of it is left."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def obituary(self) -> str:
        """Say in one sentence why it ended."""
        assert self.process is not None
        for relay in self.relays:
            relay.join(0.5)  # its last words may still be in the pipe
        said = [line for line in self.complaints if line.startswith("piBLOOM:")]
        if said:
            return said[-1].removeprefix("piBLOOM:").strip()
        last = f": {self.complaints[-1]}" if self.complaints else ""
        code = self.process.returncode
        if code < 0:
            return f"{self.name} was ended by {signal.Signals(-code).name}{last}"
        return f"{self.name} ended by itself with exit code {code}{last}"


@click.command()
@click.argument("services", nargs=-1, type=click.Choice(SERVICES))
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    callback=flags.host,
    help="Address to listen on.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--generate-port", type=click.IntRange(1, 65535), default=8081, show_default=True)
@click.option("--tokenize-port", type=click.IntRange(1, 65535), default=8082, show_default=True)
@click.option("--reload", is_flag=True, help="Start a service anew when its source changes.")
@click.option("--open", "open_", is_flag=True, help="Open the chat in a browser.")
@click.option("--verbose", is_flag=True, help="Show the services' whole logs.")
@click.option(
    "--start-timeout",
    type=Number(1, 86_400),
    default=START_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long all may take to become ready.",
)
@flags.setting_flags
def up(
    services: tuple[str, ...],
    host: str,
    port: int,
    generate_port: int,
    tokenize_port: int,
    *,
    reload: bool,
    open_: bool,
    verbose: bool,
    start_timeout: float,
) -> None:
    """Serve the chat and both functions on this machine, until Ctrl-C.

    SERVICES chooses some of tokenize, generate and ui; without it, all three run. One that dies
    later is started again, and the others stay.

    \b
    Examples:
      pibloom up
      pibloom up --model bigscience/bloomz-560m
      pibloom up --model ~/bloom-560m --port 9000
      pibloom up generate --reload --verbose
    """
    given = {name: text for name, text in (os.environ | flags.chosen()).items() if text}
    given.setdefault("PIBLOOM_GRACE", "2")  # whoever presses Ctrl-C is waiting
    given.setdefault("PIBLOOM_LOG_LEVEL", "INFO" if verbose else "WARNING")
    if name := given.get("PIBLOOM_MODEL"):
        given["PIBLOOM_MODEL"] = str(path_of(name))
    keys = _keys(given)
    if keys:
        given.setdefault("PIBLOOM_API_KEY", keys[0])
    ports = {"tokenize": tokenize_port, "generate": generate_port, "ui": port}
    chosen = [
        _service(name, host, ports[name], environment_of(name, given), reload=reload)
        for name in SERVICES
        if not services or name in services
    ]
    if chosen[-1].name == "ui":
        for function in chosen[:-1]:
            chosen[-1].environment[f"PIBLOOM_{function.name.upper()}_URL"] = function.url
    _check_ports(chosen)
    _prepare_model(given, generates=any(service.name == "generate" for service in chosen))
    stops = _Stops()
    try:
        _serve(
            chosen,
            stops,
            verbose=verbose,
            seconds=start_timeout,
            announce=lambda: _announce(chosen, open_=open_, keyed=bool(keys)),
        )
    finally:
        _end(chosen, stops)
    say("ended")


def environment_of(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return what a service's process is given: the system's variables, its own, no others'.

    The functions get the keys that they take, the chat the one that it brings.
    """
    own = UI_NAMES if service == "ui" else NAMES
    return {
        name: text
        for name, text in given.items()
        if name in own
        or (
            environment.is_kept(name)
            and not name.startswith(PREFIX)
            and name not in ("HOST", "PORT")
        )
    }


def _service(
    name: str, host: str, port: int, environment: dict[str, str], *, reload: bool
) -> Service:
    module = ["ui"] if name == "ui" else ["functions", name]
    command = [sys.executable, "-m", *module, "--host", host, "--port", str(port)]
    return Service(
        name,
        command + (["--reload"] if reload else []),
        host,
        port,
        flag="--port" if name == "ui" else f"--{name}-port",
        probe="/healthz" if name == "ui" else "/readyz",
        environment=environment,
    )


def _keys(given: Mapping[str, str]) -> Sequence[str]:
    from functions.settings import SettingError, Settings, keys_of

    try:
        return keys_of(Settings.read(given))
    except SettingError as error:
        raise click.UsageError(str(error)) from None


def _prepare_model(given: Mapping[str, str], *, generates: bool) -> None:
    """Find out before anything starts whether the model can be used; bake it if it must be."""
    from functions.settings import SettingError, Settings
    from model.baked.cache import baked_copy
    from model.baked.file import BakedModel, is_baked
    from model.baked.source import model_name
    from model.checkpoint.folder import Checkpoint
    from model.text.chat import ChatTemplate

    try:
        settings = Settings.read(given)
        if settings.chat_template:
            ChatTemplate.named(settings.chat_template)
        if is_baked(settings.model):
            baked = BakedModel(settings.model)
            if generates:
                _ = baked.config  # says so when the file holds a tokenizer alone
        elif settings.engine == "native":
            with progress_bar(f"baking {model_name(settings.model)}") as progress:
                baked_copy(settings.model, settings.bits, progress)
        else:
            Checkpoint.open(settings.model)
    except SettingError as error:
        raise click.UsageError(str(error)) from None
    except ModelError as error:
        raise Refused(str(error)) from None


def _check_ports(services: Sequence[Service]) -> None:
    """Refuse a port that is taken, by another program or twice by us, before anything starts."""
    taken: dict[int, Service] = {}
    for service in services:
        if other := taken.get(service.port):
            raise Failure(f"{other.flag} and {service.flag} are both {service.port}")
        taken[service.port] = service
        family = socket.AF_INET6 if ":" in service.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((service.host, service.port))
            except OSError as error:
                raise Failure(
                    f"{service.name} cannot listen on port {service.port} of {service.host}"
                    f" ({error.strerror}); choose another with {service.flag}"
                ) from None


class _Stops:
    """Counts the signals that ask us to end."""

    def __init__(self) -> None:
        self.count = 0
        self._asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; tell whether a signal came."""
        return self._asked.wait(seconds)


def _serve(
    services: Sequence[Service],
    stops: _Stops,
    *,
    verbose: bool,
    seconds: float,
    announce: Callable[[], None],
) -> None:
    """Start all, say when they are ready, and keep them running until a signal comes."""
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


def _look_after(service: Service, *, verbose: bool) -> None:
    """Note when a service is ready; start it again, as a cluster would, when it has died.

    One that dies before it was ever ready ends everything: it cannot start at all.
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
            raise Failure(service.obituary())
        if now - service.started > LONGEST_PAUSE:
            service.deaths = 0
        _start_later(service, service.obituary())
    elif not service.ready and service.ask():
        again = " again" if service.was_ready else ""
        service.was_ready = True
        say(f"{service.name} is ready{again} after {time.monotonic() - service.started:.1f} s")


def _start_later(service: Service, why: str) -> None:
    service.deaths += 1
    wait = pause(service.deaths)
    say(f"{why}; starting it again in {wait:g} s")
    service.send(signal.SIGKILL)  # what is left of it may hold the port
    service.next_start = time.monotonic() + wait


def pause(deaths: int) -> float:
    """Return how many seconds to wait after so many deaths in a row, which may be any number."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(deaths - 1, 30)))


def _why_late(late: Sequence[Service], seconds: float) -> str:
    def reason(service: Service) -> str:
        last = f", and its last words are: {service.complaints[-1]}" if service.complaints else ""
        return f"{service.name} was asked at {service.url}{service.probe}, {service.answer}{last}"

    names = " and ".join(service.name for service in late)
    verb = "is" if len(late) == 1 else "are"
    return (
        f"{names} {verb} not ready after {seconds:g} s: {'; '.join(map(reason, late))}"
        " (--start-timeout gives more time, --verbose shows the whole log)"
    )


def _said(body: bytes) -> str:
    """Return the message of an error in the functions' own shape."""
    try:
        return f", {visible(str(json.loads(body)['error']['message']))}"
    except (ValueError, KeyError, TypeError):
        return ""


def _announce(services: Sequence[Service], *, open_: bool, keyed: bool) -> None:
    key = " -H 'authorization: Bearer KEY'" if keyed else ""
    for service in services:
        if service.name == "generate":
            say(
                f"\nAsk it:   curl {service.url}/chat/ -H 'content-type: application/json'{key}"
                """ -d '{"content": "Hello"}'""",
                err=False,
            )
        if service.name == "ui":
            say(f"\nChat:     {service.url}", err=False)
            if open_:
                click.launch(service.url)
    say("Ctrl-C ends it.", err=False)


def _end(services: Sequence[Service], stops: _Stops) -> None:
    """End every service: asked at first, killed when time is up or a second signal comes."""
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


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone, even if that was killed."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
