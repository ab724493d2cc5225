"""`pibloom up`: the chat and both functions on this machine, started and ended together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

import click

from cli.bake import progress_bar
from cli.main import Failure, Refused
from functions import flags
from model.errors import ModelError

SERVICES = ("tokenize", "generate", "ui")  # in the order in which they become ready
POLL = 0.1  # seconds between two looks at the services
PATIENCE = 8.0  # seconds that services get to end before they are killed
SETTLED = 10.0  # seconds of life after which a service that dies is started again
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
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    started: float = 0.0
    ready_after: float | None = None  # seconds
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def start(self, *, verbose: bool) -> None:
        """Start the process, in a group of its own, so that Ctrl-C reaches us and not it."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        for pipe, keep in ((self.process.stdout, False), (self.process.stderr, True)):
            threading.Thread(
                target=self._relay, args=(pipe, keep, verbose), name=self.name, daemon=True
            ).start()

    def _relay(self, pipe: object, keep: bool, verbose: bool) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            if keep:
                self.complaints.append(line.rstrip())
            if verbose or not keep:
                click.echo(f"{self.name:>8}  {line.rstrip()}", err=True)

    def is_ready(self) -> bool:
        """Ask its probe once."""
        try:
            with urllib.request.urlopen(self.url + self.probe, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

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
        said = [line for line in self.complaints if line.startswith("piBLOOM:")]
        if said:
            return said[-1].removeprefix("piBLOOM:").strip()
        last = f": {self.complaints[-1]}" if self.complaints else ""
        return f"{self.name} ended by itself with exit code {self.process.returncode}{last}"


@click.command()
@click.argument("services", nargs=-1, type=click.Choice(SERVICES))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option("--generate-port", type=click.IntRange(1, 65535), default=8081, show_default=True)
@click.option("--tokenize-port", type=click.IntRange(1, 65535), default=8082, show_default=True)
@click.option("--reload", is_flag=True, help="Start a service anew when its source changes.")
@click.option("--open", "open_", is_flag=True, help="Open the chat in a browser.")
@click.option("--verbose", is_flag=True, help="Show the services' whole logs.")
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
) -> None:
    """Serve the chat and both functions on this machine, until Ctrl-C.

    SERVICES chooses some of tokenize, generate and ui; without it, all three run.

    \b
    Examples:
      pibloom up
      pibloom up --model ~/bloom-560m --port 9000
      pibloom up generate --reload --verbose
    """
    environment = flags.chosen()
    if "PIBLOOM_GRACE" not in os.environ:
        environment.setdefault("PIBLOOM_GRACE", "2")  # whoever presses Ctrl-C is waiting
    if "PIBLOOM_LOG_LEVEL" not in os.environ:
        environment.setdefault("PIBLOOM_LOG_LEVEL", "INFO" if verbose else "WARNING")
    ports = {"tokenize": tokenize_port, "generate": generate_port, "ui": port}
    chosen = [
        _service(name, host, ports[name], environment, reload=reload)
        for name in SERVICES
        if not services or name in services
    ]
    for service in chosen:
        if service.name == "ui":
            if (keys := _keys(os.environ | environment)) and "PIBLOOM_API_KEY" not in os.environ:
                service.environment["PIBLOOM_API_KEY"] = keys[0]
            for function in chosen[:-1]:
                variable = f"PIBLOOM_{function.name.upper()}_URL"
                service.environment.setdefault(variable, function.url)
    _check_ports(chosen)
    _prepare_model(
        os.environ | environment, generates=any(service.name == "generate" for service in chosen)
    )
    stops = _Stops()
    try:
        _start(chosen, stops, verbose=verbose)
        if not stops.count:
            _announce(chosen, open_=open_, keyed=bool(_keys(os.environ | environment)))
        _watch(chosen, stops, verbose=verbose)
    finally:
        _end(chosen, stops)
    click.echo("ended", err=True)


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
        environment=dict(environment),
    )


def _keys(environment: Mapping[str, str]) -> Sequence[str]:
    from functions.settings import SettingError, Settings, keys_of

    try:
        return keys_of(Settings.read(environment))
    except SettingError as error:
        raise click.UsageError(str(error)) from None


def _prepare_model(environment: Mapping[str, str], *, generates: bool) -> None:
    """Find out before anything starts whether the model can be used; bake it if it must be."""
    from functions.settings import SettingError, Settings
    from model.baked import BakedModel
    from model.chat import ChatTemplate
    from model.checkpoint import Checkpoint
    from model.store import baked_copy, is_baked

    try:
        settings = Settings.read(environment)
        if settings.chat_template:
            ChatTemplate.named(settings.chat_template)
        if is_baked(settings.model):
            baked = BakedModel(settings.model)
            if generates:
                _ = baked.config  # says so when the file holds a tokenizer alone
        elif settings.engine == "native":
            with progress_bar(f"baking {settings.model.name}") as progress:
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


def _start(services: Sequence[Service], stops: _Stops, *, verbose: bool) -> None:
    started = time.monotonic()
    for service in services:
        click.echo(f"starting {service.name} on port {service.port}", err=True)
        service.start(verbose=verbose)
    while not stops.wait(POLL):
        for service in services:
            _check_alive(service)
            if service.ready_after is None and service.is_ready():
                service.ready_after = time.monotonic() - started
                click.echo(f"{service.name} is ready after {service.ready_after:.1f} s", err=True)
        if all(service.ready_after is not None for service in services):
            return


def _announce(services: Sequence[Service], *, open_: bool, keyed: bool) -> None:
    key = " -H 'authorization: Bearer KEY'" if keyed else ""
    for service in services:
        if service.name == "generate":
            click.echo(
                f"\nAsk it:   curl {service.url}/chat/ -H 'content-type: application/json'{key}"
                """ -d '{"content": "Hello"}'"""
            )
        if service.name == "ui":
            click.echo(f"\nChat:     {service.url}")
            if open_:
                click.launch(service.url)
    click.echo("Ctrl-C ends it.")


def _watch(services: Sequence[Service], stops: _Stops, *, verbose: bool) -> None:
    """Start a service again that died, as a cluster would; the chat goes on when it is back."""
    while not stops.wait(POLL):
        for service in services:
            if time.monotonic() - service.started < SETTLED:
                _check_alive(service)
            elif service.process is not None and service.process.poll() is not None:
                click.echo(f"{service.obituary()}; starting it again", err=True)
                service.send(signal.SIGKILL)  # what is left of it may hold the port
                service.start(verbose=verbose)


def _check_alive(service: Service) -> None:
    assert service.process is not None
    if service.process.poll() is not None:
        time.sleep(POLL)  # its last words may still be in the pipe
        raise Failure(service.obituary())


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


def _end_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone, even if that was killed."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
