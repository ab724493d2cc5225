"""`pibloom generate`: text in the terminal, from this process or from a function's URL."""

import sys
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import click

from cli.local import stream_from_model
from cli.model import model_option
from cli.remote import api_key, stream_from_url
from cli.text import Number, Readable, print_json, read_text, written
from functions import flags, ranges


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
    longest = get_args(ranges.Stop)[1].max_length
    for text in value:
        flags.not_empty(context, parameter, text)
        if len(text) > longest:
            raise click.BadParameter(
                f"a text of {len(text)} characters is too long; {longest} are the most.",
                context,
                parameter,
            )
    if len(value) > ranges.MOST_STOPS:
        raise click.BadParameter(
            f"{len(value)} are too many; {ranges.MOST_STOPS} are the most.", context, parameter
        )
    return value


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what is not the address of a function, before anything is sent there."""
    if flags.not_empty(context, parameter, value) is None:
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
            f"{value.partition('?')[0]!r} is not an address like http://127.0.0.1:8081.",
            context,
            parameter,
        )
    return value


@click.command()
@click.argument("prompt", required=False)
@model_option
@click.option("--chat", is_flag=True, help="Answer PROMPT as a chat message, not continue it.")
@click.option(
    "--max-new-tokens", type=_range(ranges.NewTokens), default=256, show_default=True, help="Most."
)
@click.option("--temperature", type=_range(ranges.Temperature), help="0 is greedy.")
@click.option("--top-k", type=_range(ranges.TopK), help="0 cuts nothing off, nor does -1.")
@click.option("--top-p", type=_range(ranges.TopP), help="1 considers all.")
@click.option("--min-p", type=_range(ranges.MinP), help="Of the likeliest's share; 0 is off.")
@click.option("--repetition-penalty", type=_range(ranges.RepetitionPenalty), help="1 is none.")
@click.option(
    "--stop", multiple=True, callback=_stops, help="Text that ends the reply; may be given often."
)
@click.option("--seed", type=_range(ranges.Seed), help="Repeats a reply.")
@click.option(
    "--url", callback=_url, help="Ask a running function instead of loading the model here."
)
@click.option(
    "--api-key-file",
    type=Readable(),
    help="The function's key is in this file; or PIBLOOM_API_KEY.",
)
@flags.refuse_secret("--api-key", "PIBLOOM_API_KEY", "--api-key-file")
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
    key = api_key(api_key_file) if url else ""
    text = read_text(prompt)
    if not text:
        raise click.UsageError("the prompt is empty")
    options["stop"] = list(options["stop"])
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    for name, data in stream_from_url(url, key, body) if url else stream_from_model(model, body):
        if name == "token" and not as_json:
            click.echo(written(data["text"]), nl=False)
            sys.stdout.flush()
        elif name == "done" and as_json:
            print_json(data)
        elif name == "done":
            click.echo()
