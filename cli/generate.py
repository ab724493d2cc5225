"""`pibloom generate`: text in the terminal, from this process or from a function's URL."""

import ipaddress
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import click

from cli.main import Failure, Refused
from cli.model import model_option
from cli.text import Number, Readable, print_json, read_text, visible, written
from common.settings import SettingsError
from functions import drawing, flags
from functions.settings import Settings
from model.baked.source import model_name
from model.errors import ModelError
from model.serving.request import GenerationRequest

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
LONGEST_REFUSAL = 64 * 1024  # bytes that are read of a server's error
Events = Iterator[tuple[str, dict[str, Any]]]


def _range(annotated: Any) -> click.IntRange | click.FloatRange:
    """Return the range of a request's field as a flag has it."""
    kind, limits = get_args(annotated)
    if kind is int:
        return click.IntRange(limits.ge, limits.le)
    low = limits.ge if limits.gt is None else limits.gt
    return Number(low, limits.le, min_open=limits.gt is not None)


def _stops(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    longest = get_args(drawing.Stop)[1].max_length
    for text in value:
        flags.given(context, parameter, text)
        if len(text) > longest:
            raise click.BadParameter(
                f"a text of {len(text)} characters is too long; {longest} are the most.",
                context,
                parameter,
            )
    if len(value) > drawing.MOST_STOPS:
        raise click.BadParameter(
            f"{len(value)} are too many; {drawing.MOST_STOPS} are the most.", context, parameter
        )
    return value


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is no address of a function, before anything is sent there."""
    if flags.given(context, parameter, value) is None:
        return None
    assert value is not None
    if "@" in value:  # not shown: it may be a password
        raise click.BadParameter(
            "the address must hold no name or password; PIBLOOM_API_KEY and --api-key-file are"
            " for a key.",
            context,
            parameter,
        )
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        good = whole and value.isprintable() and " " not in value
        (parts.hostname or "").encode("idna")
    except ValueError:
        good = False
    if not good or "?" in value or "#" in value:
        raise click.BadParameter(
            f"{value.partition('?')[0]!r} is no address like http://127.0.0.1:8081.",
            context,
            parameter,
        )
    return value


@click.command()
@click.argument("prompt", required=False)
@model_option
@click.option("--chat", is_flag=True, help="Answer PROMPT as a chat message, not continue it.")
@click.option(
    "--max-new-tokens", type=_range(drawing.NewTokens), default=256, show_default=True, help="Most."
)
@click.option("--temperature", type=_range(drawing.Temperature), help="0 is greedy.")
@click.option("--top-k", type=_range(drawing.TopK), help="0 cuts nothing off, nor does -1.")
@click.option("--top-p", type=_range(drawing.TopP), help="1 considers all.")
@click.option("--min-p", type=_range(drawing.MinP), help="Of the likeliest's share; 0 is off.")
@click.option("--repetition-penalty", type=_range(drawing.RepetitionPenalty), help="1 is none.")
@click.option(
    "--stop", multiple=True, callback=_stops, help="Text that ends the reply; may be given often."
)
@click.option("--seed", type=_range(drawing.Seed), help="Repeats a reply.")
@click.option(
    "--url", callback=_url, help="Ask a running function instead of loading the model here."
)
@click.option(
    "--api-key-file",
    type=Readable(),
    help="The function's key is in this file; or PIBLOOM_API_KEY.",
)
@flags.refused("--api-key", "PIBLOOM_API_KEY", "--api-key-file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def generate(
    prompt: str | None,
    model: Path,
    url: str | None,
    api_key_file: Path | None,
    *,
    chat: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Continue PROMPT, or standard input, as it is written.

    What is not given of temperature, top-k, top-p, min-p and repetition penalty is as the
    checkpoint says, or else 0.8, 40, 0.95, 0 and 1.1.

    \b
    Examples:
      pibloom generate "Once upon a time"
      pibloom generate --chat "What is piBLOOM?" --temperature 0
      git log -1 --format=%B | pibloom generate --max-new-tokens 40
      pibloom generate --url http://127.0.0.1:8081 --chat Hello
    """
    by_hand = click.get_current_context().get_parameter_source("model")
    if url and by_hand is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--url asks a function that has its own model; --model is for here")
    if api_key_file and not url:
        raise click.UsageError("--api-key-file is for a function, which --url names")
    key = _key(api_key_file) if url else ""
    text = read_text(prompt)
    if not text:
        raise click.UsageError("the prompt is empty")
    options["stop"] = list(options["stop"])
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    for name, data in _from_url(url, key, body) if url else _from_folder(model, body):
        if name == "token" and not as_json:
            click.echo(written(data["text"]), nl=False)
            sys.stdout.flush()
        elif name == "done" and as_json:
            print_json(data)
        elif name == "done":
            click.echo()


def _key(file: Path | None) -> str:
    """Return the key that the function gets, if any; no error shows it."""
    where, key = "PIBLOOM_API_KEY", os.environ.get("PIBLOOM_API_KEY", "")
    if file is not None:
        where = f"--api-key-file {file}"
        try:
            key = file.read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise click.UsageError(f"{where} cannot be read: {reason}") from None
        if not key:
            raise click.UsageError(f"{where} holds no key")
        key = key.splitlines()[0].strip()
    if not (key.isascii() and key.isprintable()):
        raise click.UsageError(f"{where} must be of ASCII characters that can be printed")
    return key.strip()


def _is_here(url: str) -> bool:
    """Whether an address is this machine's own, which no proxy leads to."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with suppress(ValueError):
        address = ipaddress.ip_address(_dotted(host))
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or address.is_unspecified
    return False


def _dotted(host: str) -> str:
    """Return an IPv4 address that is written otherwise, such as 127.1, in its usual form."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def _from_url(url: str, key: str, body: dict[str, Any]) -> Events:
    """Yield the events of a function's stream."""
    import httpx
    from httpx_sse import connect_sse

    timeout = httpx.Timeout(10, read=60)  # a stream's heartbeat comes every few seconds
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    encrypted = url.lower().startswith("https:")  # else no certificates need be found or read
    try:
        client = httpx.Client(
            timeout=timeout, headers=headers, trust_env=not _is_here(url), verify=encrypted
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise Failure(f"the environment's proxy or certificates cannot be used: {error}") from None
    try:
        with client, connect_sse(client, "POST", url, json=body | {"stream": True}) as source:
            if source.response.status_code != 200:
                raise Failure(_refusal(url, source.response))
            for event in source.iter_sse():
                try:
                    data = json.loads(event.data)
                    if event.event == "error":
                        raise Failure(str(data["error"]["message"])[:1000])
                    if event.event == "token":
                        data = {"text": str(data["text"])}
                except (ValueError, KeyError, TypeError):
                    raise Failure(f"{url} answers, but not as piBLOOM does") from None
                yield event.event, data
                if event.event == "done":
                    return
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Failure(f"{url} cannot be asked: {error or type(error).__name__}") from None
    raise Failure(f"{url} broke the stream off before its end")


def _refusal(url: str, response: Any) -> str:
    said = b""
    for part in response.iter_bytes():
        said += part
        if len(said) > LONGEST_REFUSAL:
            break
    try:
        return str(json.loads(said)["error"]["message"])[:1000]
    except (ValueError, KeyError, TypeError):
        return f"{url} answered with status {response.status_code}"


def _from_folder(folder: Path, body: dict[str, Any]) -> Events:
    """Load the model here, and yield the same events as a function would."""
    from model import load
    from model.serving import admission, events
    from model.text.chat import LeadingSpace

    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        with _shown(f"loading {model_name(folder)}"):
            model = load.load(folder, **settings.loading)
    except ModelError as error:
        raise Refused(str(error)) from None
    chat = "messages" in body
    try:
        text = model.chat.render(body["messages"]) if chat else body["prompt"]
        request = GenerationRequest(
            tuple(model.tokenizer.ids(text, add_special_tokens=not chat)),
            body["max_new_tokens"],
            drawing.drawn(model.sampling, {name: body.get(name) for name in SAMPLING}),
            tuple(body["stop"]) + (model.chat.stop if chat else ()),
        )
        job = model.scheduler.submit(request)
    except (admission.PromptTooLong, ValueError) as error:
        raise Failure(str(error)) from None
    leading_space, written = LeadingSpace(), ""
    try:
        for event in job.events():
            match event:
                case events.Token(_, piece):
                    if piece := leading_space.strip(piece) if chat else piece:
                        written += piece
                        yield "token", {"text": piece}
                case events.Done():
                    yield "done", _summary(event, written, model.info.name)
                case events.Failed():
                    raise Failure(event.message)
    finally:
        job.cancel()
        model.close()


def _shown(title: str) -> AbstractContextManager[object]:
    """Show on standard error, if it is a terminal, what is being done."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console
    from rich.text import Text

    return Console(stderr=True).status(Text(visible(title)))


def _summary(done: Any, text: str, name: str) -> dict[str, Any]:
    return {
        "text": text,
        "finish_reason": done.finish_reason,
        "model": name,
        "seed": done.seed,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
        },
    }
