"""`pibloom generate`: text in the terminal, from this process or from a function's URL."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli.main import Failure, Refused
from cli.text import model_option, read_text
from model.errors import ModelError
from model.sampling import MAX_TOP_K

SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty")


@click.command()
@click.argument("prompt", required=False)
@model_option
@click.option("--chat", is_flag=True, help="Answer PROMPT as a chat message, not continue it.")
@click.option("--max-new-tokens", type=click.IntRange(1, 4096), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 5), help="0 is greedy.")
@click.option("--top-k", type=click.IntRange(0, MAX_TOP_K), help=f"0 is the most, {MAX_TOP_K}.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="1 considers all.")
@click.option("--repetition-penalty", type=click.FloatRange(0.5, 5), help="1 is none.")
@click.option("--stop", multiple=True, help="Text that ends the reply; may be given often.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Repeats a reply.")
@click.option("--url", help="Ask a running function instead of loading the model here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def generate(
    prompt: str | None, model: Path, url: str | None, *, chat: bool, as_json: bool, **options: Any
) -> None:
    """Continue PROMPT, or standard input, as it is written.

    What is not given of temperature, top-k, top-p and repetition penalty is as the checkpoint says,
    or else 0.8, 40, 0.95 and 1.1.

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
    text = read_text(prompt)
    if not text:
        raise click.UsageError("the prompt is empty")
    options["stop"] = list(options["stop"])
    body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if chat:
        body["messages"] = [{"role": "user", "content": text}]
    else:
        body["prompt"] = text
    events = _from_url(url, body) if url else _from_folder(model, body)
    for name, data in events:
        if name == "token" and not as_json:
            click.echo(data["text"], nl=False)
            sys.stdout.flush()
        elif name == "done" and as_json:
            click.echo(json.dumps(data, ensure_ascii=False))
        elif name == "done":
            click.echo()


def _from_url(url: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a function's stream."""
    import httpx
    from httpx_sse import connect_sse

    timeout = httpx.Timeout(10, read=60)  # a stream's heartbeat comes every few seconds
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            connect_sse(client, "POST", url, json=body | {"stream": True}) as source,
        ):
            if source.response.status_code != 200:
                source.response.read()
                raise Failure(_refusal(source.response))
            for event in source.iter_sse():
                data = json.loads(event.data)
                if event.event == "error":
                    raise Failure(data["error"]["message"])
                yield event.event, data
                if event.event == "done":
                    return
    except httpx.HTTPError as error:
        raise Failure(f"{url} cannot be asked: {error or type(error).__name__}") from None
    raise Failure(f"{url} broke the stream off before its end")


def _refusal(response: Any) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.url} answered with status {response.status_code}"


def _from_folder(folder: Path, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Load the model here, and yield the same events as a function would."""
    from rich.console import Console

    from model import generation, loader, scheduler

    given = {name: body[name] for name in (*SAMPLING, "seed") if name in body}
    try:
        sampling = replace(loader.sampling_of(folder), **given)
    except ModelError as error:
        raise Refused(str(error)) from None
    except ValueError as error:  # NaN, which passes every range
        raise click.UsageError(str(error)) from None
    try:
        with Console(stderr=True).status(f"loading {loader.model_name(folder)}"):
            model = loader.load(folder)
    except ModelError as error:
        raise Refused(str(error)) from None
    stop = tuple(body["stop"])
    chat = "messages" in body
    try:
        text = model.chat.render(body["messages"]) if chat else body["prompt"]
        request = generation.Request(
            tuple(model.tokenizer.ids(text, add_special_tokens=not chat)),
            body["max_new_tokens"],
            sampling,
            stop + (model.chat.stop if chat else ()),
        )
        job = model.scheduler.submit(request)
    except (scheduler.ContextFull, ValueError) as error:
        raise Failure(str(error)) from None
    blank = chat  # a chat's reply begins after the space that follows "Assistant:"
    try:
        for event in job.events():
            match event:
                case generation.Token(_, shown):
                    shown = shown.lstrip() if blank else shown
                    if shown:
                        blank = False
                        yield "token", {"text": shown}
                case generation.Done():
                    yield "done", _summary(event, model.info.name, chat)
                case generation.Failed():
                    raise Failure(event.message)
    finally:
        job.cancel()
        model.close()


def _summary(done: Any, name: str, chat: bool) -> dict[str, Any]:
    return {
        "text": done.text.lstrip() if chat else done.text,
        "finish_reason": done.finish_reason,
        "model": name,
        "seed": done.seed,
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
        },
    }
