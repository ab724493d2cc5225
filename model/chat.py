"""Turning a conversation into a prompt: the checkpoint's chat template, or one that suits BLOOM.

Templates are Jinja, as the hub ships them, and run in a sandbox: they are part of a download.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import jinja2
import jinja2.sandbox

from model.errors import ModelError

# A base BLOOM only continues text, so a chat is written as the transcript of one.
TRANSCRIPT = (
    "{% for message in messages %}"
    "{{ 'Assistant: ' if message.role == 'assistant' else 'User: ' }}{{ message.content }}\n"
    "{% endfor %}Assistant:"
)


class ChatTemplate:
    """Writes messages as the prompt that the model was taught to answer."""

    def __init__(self, source: str = TRANSCRIPT) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        try:
            self._template = environment.from_string(source)
            self.render([{"role": "user", "content": "Hello"}])
        except jinja2.TemplateError as error:
            raise ModelError(f"the chat template cannot be used: {error}") from None

    @classmethod
    def open(cls, folder: Path) -> "ChatTemplate":
        """Read the folder's template, newer form or older; without one, use `TRANSCRIPT`."""
        path = folder / "chat_template.jinja"
        if path.is_file():
            return cls(path.read_text(encoding="utf-8"))
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            try:
                source = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
            except (ValueError, AttributeError) as error:
                raise ModelError(f"{settings} cannot be read as JSON: {error}") from None
            if isinstance(source, str):
                return cls(source)
        return cls()

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write the prompt whose continuation is the assistant's next message."""
        return self._template.render(
            messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        )

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """Return the strings that end a reply: where the template would let the user speak."""
        before, _, _ = self.render([{"role": "user", "content": "\0"}]).partition("\0")
        speaker = before.strip()
        return ("\n" + speaker,) if speaker else ()
