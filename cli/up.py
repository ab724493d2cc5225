"""`pibloom up`: the chat and both functions on this machine, started and ended together."""

import os
import sys
from collections.abc import Mapping, Sequence

import click

from cli.main import Failure, Refused
from cli.model import path_of
from cli.progress import progress_bar
from cli.service_process import ServiceProcess
from cli.supervisor import StopSignals, end, serve
from cli.text import Number, say
from common import environment, ports
from common.settings import FUNCTION_NAMES, PREFIX, UI_NAMES, SettingsError
from functions import flags
from model.errors import ModelError

SERVICES = ("tokenize", "generate", "ui")  # in the order in which they become ready
START_SECONDS = 300.0  # for all to become ready; loading reads the whole model


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
@click.option("--reload", is_flag=True, help="Restart a service when its source changes.")
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
    given.setdefault("PIBLOOM_GRACE", "2")  # a person who presses Ctrl-C is waiting
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
    stops = StopSignals()
    try:
        serve(
            chosen,
            stops,
            verbose=verbose,
            seconds=start_timeout,
            announce=lambda: _announce(chosen, open_=open_, keyed=bool(keys)),
        )
    finally:
        end(chosen, stops)
    say("ended")


def environment_of(service: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service's process: the system's variables and its own settings.

    The functions get the keys that they take, the chat the one that it brings.
    """
    own = UI_NAMES if service == "ui" else FUNCTION_NAMES
    return {
        name: text
        for name, text in given.items()
        if name in own
        or (
            environment.is_kept(name, environment.ENGINE_FAMILIES)
            and not name.startswith(PREFIX)
            and name not in ("HOST", "PORT")
        )
    }


def _service(
    name: str, host: str, port: int, environment: dict[str, str], *, reload: bool
) -> ServiceProcess:
    module = ["ui"] if name == "ui" else ["functions", name]
    command = [sys.executable, "-m", *module, "--host", host, "--port", str(port)]
    return ServiceProcess(
        name,
        command + (["--reload"] if reload else []),
        host,
        port,
        flag="--port" if name == "ui" else f"--{name}-port",
        probe_path="/healthz" if name == "ui" else "/readyz",
        environment=environment,
    )


def _keys(given: Mapping[str, str]) -> Sequence[str]:
    from functions.settings import Settings, keys_of

    try:
        return keys_of(Settings.read(given))
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def _prepare_model(given: Mapping[str, str], *, generates: bool) -> None:
    """Check before anything starts that the model can be used; bake it if necessary."""
    from functions.settings import Settings
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
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except ModelError as error:
        raise Refused(str(error)) from None


def _check_ports(services: Sequence[ServiceProcess]) -> None:
    """Refuse ports that are in use, or given twice, before anything starts."""
    taken: dict[int, ServiceProcess] = {}
    for service in services:
        if other := taken.get(service.port):
            raise Failure(f"{other.flag} and {service.flag} are both {service.port}")
        taken[service.port] = service
        try:
            ports.check_free(service.host, service.port)
        except OSError as error:
            raise Failure(
                f"{service.name} cannot listen on port {service.port} of {service.host}"
                f" ({error.strerror}); choose another with {service.flag}"
            ) from None


def _announce(services: Sequence[ServiceProcess], *, open_: bool, keyed: bool) -> None:
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
