"""Turning a conversation into a prompt: the checkpoint's chat template, or one that suits BLOOM.

Templates are Jinja, as the hub ships them, and run in a sandbox: they are part of a download.
What a message says is put into the template as it is; a tokenizer then reads a special token such
as `</s>` in it as one, as it does in any prompt.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import jinja2.sandbox

from model.errors import ModelError
from model.names import folder_name

# A base BLOOM only continues text, so a chat is written as the transcript of one.
TRANSCRIPT = (
    "{% for message in messages %}"
    "{{ 'Assistant: ' if message.role == 'assistant' else 'User: ' }}{{ message.content }}\n"
    "{% endfor %}Assistant:"
)
# A BLOOMZ was taught to follow an instruction, without any markers around it.
INSTRUCTION = (
    "{% for message in messages %}{{ message.content }}{{ '' if loop.last else '\n' }}{% endfor %}"
)
TEMPLATES = {"transcript": TRANSCRIPT, "instruction": INSTRUCTION}


class ChatError(ValueError):
    """Messages that the template refuses, such as a role that it does not know."""


class ChatTemplate:
    """Writes messages as the prompt that the model was taught to answer.

    `stop` holds the strings that end a reply: where the template would let the user speak.
    """

    def __init__(self, source: str = TRANSCRIPT) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        environment.globals["raise_exception"] = _refuse  # templates of the hub call it
        try:
            self._template = environment.from_string(source)
            self.source = source
            before, _, _ = self.render([{"role": "user", "content": "\0"}]).partition("\0")
        except (jinja2.TemplateError, ChatError, TypeError) as error:
            raise ModelError(f"the chat template cannot be used: {error}") from None
        speaker = before.strip()
        self.stop: tuple[str, ...] = ("\n" + speaker,) if speaker else ()

    @classmethod
    def named(cls, name: str) -> "ChatTemplate":
        """Take one of `TEMPLATES`, or a file."""
        if name in TEMPLATES:
            return cls(TEMPLATES[name])
        try:
            return cls(Path(name).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            known = ", ".join(TEMPLATES)
            raise ModelError(
                f"{name} is no chat template ({known}) and cannot be read as a file: {error}"
            ) from None

    @classmethod
    def open(cls, folder: Path) -> "ChatTemplate":
        """Read the folder's template, newer form or older; without one, use what suits its name."""
        suits = INSTRUCTION if folder_name(folder).lower().startswith("bloomz") else TRANSCRIPT
        path = folder / "chat_template.jinja"
        settings = folder / "tokenizer_config.json"
        try:
            if path.is_file():
                return cls(path.read_text(encoding="utf-8"))
            if not settings.is_file():
                return cls(suits)
            path = settings
            source = json.loads(settings.read_text(encoding="utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path} cannot be read: {error}") from None
        match source:
            case None:
                return cls(suits)
            case str():
                return cls(source)
            case [*named]:
                for entry in named:
                    if isinstance(entry, dict) and entry.get("name") == "default":
                        return cls(str(entry.get("template")))
        raise ModelError(f"{settings}: chat_template is neither a text nor has one named default")

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write the prompt whose continuation is the assistant's next message.

        Raises `ChatError` when the template refuses the messages.
        """
        try:
            return self._template.render(
                messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
            )
        except (jinja2.TemplateError, TypeError) as error:
            raise ChatError(f"the model's chat template refuses these messages: {error}") from None


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
