"""Text that is written in this process, by a model that is loaded here."""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from cli.main import Failure, Refused
from cli.text import visible
from common.settings import SettingsError
from functions import ranges
from functions.settings import Settings
from model.baked.source import model_name
from model.errors import ModelError
from model.serving.request import GenerationRequest


def stream_from_model(path: Path, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Load a model, and yield the same events as a function would for a request's body.

    `Refused` when the model cannot be used, `Failure` when it cannot answer this request.
    """
    from model import load
    from model.serving import admission, events
    from model.text.chat import LeadingSpace

    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    try:
        with _status(f"loading {model_name(path)}"):
            model = load.load(path, **settings.loading)
    except ModelError as error:
        raise Refused(str(error)) from None
    chat = "messages" in body
    try:
        text = model.chat.render(body["messages"]) if chat else body["prompt"]
        request = GenerationRequest(
            tuple(model.tokenizer.ids(text, add_special_tokens=not chat)),
            body["max_new_tokens"],
            ranges.overridden(model.sampling, body),
            tuple(body["stop"]) + (model.chat.stop if chat else ()),
        )
        generation = model.scheduler.submit(request)
    except (admission.PromptTooLong, ValueError) as error:
        raise Failure(str(error)) from None
    leading_space, written = LeadingSpace(), ""
    try:
        for event in generation.events():
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
        generation.cancel()
        model.close()


def _status(title: str) -> AbstractContextManager[object]:
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
