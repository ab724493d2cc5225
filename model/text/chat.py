"""Turning a conversation into a prompt: the checkpoint's chat template, or a preset.

Templates are Jinja, as the hub ships them. They come with a download, so they run in a sandbox that
bounds their time and memory (`model.text.sandbox`). A message is put into the template as it is; if
it holds the text of a special token such as `</s>`, the tokenizer reads that as the token, as it
does in any prompt.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from model.errors import ModelError
from model.files import read_object, read_text, shown
from model.names import folder_name
from model.text.presets import PRESETS, TRANSCRIPT, preset_of
from model.text.sandbox import Environment
from model.text.template_budget import SOURCE_CHARACTERS, metered
from model.text.template_builtins import RefusedError
from model.text.tokenizer_settings import read_settings

TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

_SETTINGS = "tokenizer_config.json"
_FILE = "chat_template.jinja"
_MORE_FILES = "additional_chat_templates"
_OVERRIDE = "PIBLOOM_CHAT_TEMPLATE can name another"
# Sample chats on which a template is tried. Their words must appear in what it writes.
_ASKS, _SAYS, _GOES_ON = "first question 7q1", "some answer 7a1", "second question 7q2"
_QUESTION = {"role": "user", "content": _ASKS}
_ANSWER = {"role": "assistant", "content": _SAYS}
_NEXT = {"role": "user", "content": _GOES_ON}
_SAMPLES = (
    (_QUESTION,),
    (_QUESTION, _ANSWER, _NEXT),
    ({"role": "system", "content": "some instruction 7s1"}, _QUESTION),
)


class ChatError(ValueError):
    """The template refuses the messages, for example for a role that it does not know."""


@dataclass(frozen=True)
class ChatSource:
    """A checkpoint's chat template, before it is known whether it can be used."""

    template: str | None  # None: it could not be read
    tokens: Mapping[str, str] = field(default_factory=lambda: TOKENS)  # bos_token and its like
    problem: str = ""  # why it could not be read
    origin: str = ""  # where it is from, for people

    @classmethod
    def read(cls, folder: Path, named: str = "") -> "ChatSource":
        """Read a folder's template where `transformers` looks, or take the preset for its name.

        `named` is a preset or a file that is taken in place of both.
        """
        tokens: Mapping[str, str] = {}
        try:
            tokens = read_settings(folder, {}).special_tokens
            template, origin = _named(named) if named else _read_template(folder)
            if "pad_token" in template and "pad_token" not in tokens:
                # The padding of tokenizer.json names it too; the file is large, so it is read last.
                tokens = read_settings(folder, _optional(folder / "tokenizer.json")).special_tokens
            return cls(template, tokens, origin=origin)
        except ModelError as error:
            return cls(None, tokens, str(error))


class ChatTemplate:
    """Writes messages as the prompt that the model was trained to answer.

    `stop` holds the strings that end a reply, as the template writes them after an answer.
    """

    def __init__(
        self,
        source: str = TRANSCRIPT,
        tokens: Mapping[str, str] = TOKENS,
        hidden: Collection[str] = tuple(TOKENS.values()),
    ) -> None:
        """Compile a template and try it on sample chats; `ModelError` when it cannot be used.

        `tokens` are what it may write by name, such as `bos_token`; `hidden` the texts of tokens
        that a reply does not show.
        """
        self.source, self._tokens = source, dict(tokens)
        if len(source) > SOURCE_CHARACTERS:
            raise ModelError(f"the chat template has more than {SOURCE_CHARACTERS:,} characters")
        try:
            with metered():
                self._template = _environment().from_string(source)
        except Exception as error:
            raise ModelError(f"the chat template cannot be used: {_said(error)}") from None
        alone, talk, _ = (self._try(sample) for sample in _SAMPLES)
        if alone == "" or not any((alone, talk)):
            raise ModelError("the chat template cannot be used: it writes no prompt for a message")
        self.stop = _stops(talk or "", self._try(_SAMPLES[1][:2], asks=False) or "", hidden)

    @classmethod
    def named(
        cls,
        name: str,
        tokens: Mapping[str, str] = TOKENS,
        hidden: Collection[str] = tuple(TOKENS.values()),
    ) -> "ChatTemplate":
        """Take one of `PRESETS`, or a file."""
        source, _ = _named(name)
        try:
            return cls(source, tokens, hidden)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from None

    @classmethod
    def of(
        cls, source: ChatSource, hidden: Collection[str] = tuple(TOKENS.values())
    ) -> "ChatTemplate":
        """Use a checkpoint's own template; the error says how to take another."""
        try:
            if source.template is None:
                raise ModelError(source.problem)
            return cls(source.template, source.tokens, hidden)
        except ModelError as error:
            raise ModelError(f"{error}; {_OVERRIDE}") from None

    @classmethod
    def open(cls, folder: Path) -> "ChatTemplate":
        """Read the folder's template; without one, use the default for its name."""
        return cls.of(ChatSource.read(folder))

    def render(self, messages: Sequence[Mapping[str, str | None]]) -> str:
        """Write the prompt whose continuation is the assistant's next message.

        Raises `ChatError` when the template refuses the messages, or fails with them.
        """
        try:
            return self._render(messages)
        except Exception as error:
            raise ChatError(
                f"the model's chat template refuses these messages: {_said(error)}"
            ) from None

    def _render(self, messages: Sequence[Mapping[str, str | None]], asks: bool = True) -> str:
        given = [
            {key: value for key, value in message.items() if value is not None}
            for message in messages
        ]
        variables: dict[str, Any] = self._tokens | {
            "messages": given,
            "tools": None,
            "documents": None,
            "add_generation_prompt": asks,
        }
        with metered(sum(len(value) for message in given for value in message.values())):
            text = self._template.render(variables)
        text.encode()  # half of a surrogate pair cannot be encoded
        return text

    def _try(self, messages: Sequence[Mapping[str, str]], asks: bool = True) -> str | None:
        """Render a sample chat; None when the template refuses it, as it may."""
        try:
            return self._render(messages, asks)
        except RefusedError:
            return None
        except Exception as error:
            raise ModelError(f"the chat template cannot be used: {_said(error)}") from None


class LeadingSpace:
    """Strips the white space before the first word of a chat's reply, piece by piece.

    A prompt ends with a word such as "Assistant:", after which the model writes a space; it does
    not belong to what the assistant says.
    """

    def __init__(self) -> None:
        self._met_word = False

    def strip(self, text: str) -> str:
        """Return the next piece of the reply without that space; it may be empty."""
        if not self._met_word:
            text = text.lstrip()
            self._met_word = bool(text)
        return text


@cache
def _environment() -> Environment:
    return Environment()


def _said(error: Exception) -> str:
    """Return an error's message, shortened, since a template can make it of any length."""
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deep"
    if not isinstance(error, TemplateError):
        return f"{type(error).__name__}: {shown(error)}"
    return shown(error) or type(error).__name__


def _optional(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        return {}


def _read_text(path: Path) -> str:
    try:
        return read_text(path, 4 * SOURCE_CHARACTERS)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}") from None


def _named(name: str) -> tuple[str, str]:
    """Return one of `PRESETS` or the text of a file, and where it is from."""
    if name in PRESETS:
        return PRESETS[name], f"the preset {name}"
    path = Path(name).expanduser()
    try:
        return _read_text(path), path.name
    except ModelError as error:
        known = ", ".join(PRESETS)
        raise ModelError(f"{name} is not a chat template ({known}): {error}") from None


def _read_template(folder: Path) -> tuple[str, str]:
    """Return the template of a folder, or the preset for its name, and where it is from."""
    files = {path.stem: path for path in sorted((folder / _MORE_FILES).glob("*.jinja"))}
    if (folder / _FILE).exists():
        files = {"default": folder / _FILE} | files
    found: object = {name: _read_text(path) for name, path in files.items()}
    if not found:
        found = _optional(folder / _SETTINGS).get("chat_template")
    if isinstance(found, list):
        try:
            found = {each["name"]: each["template"] for each in found}
        except (TypeError, KeyError):
            raise ModelError(
                f"{folder / _SETTINGS}: chat_template is a list, but not of names and templates"
            ) from None
    if isinstance(found, dict):
        if "default" not in found:
            names = ", ".join(map(str, found))
            raise ModelError(f"{folder} has chat templates ({names}), but no default one")
        found = found["default"]
    if found is None:
        preset = preset_of(folder_name(folder))
        return PRESETS[preset], f"the preset {preset}, as the model has none of its own"
    if not isinstance(found, str):
        raise ModelError(f"{folder / _SETTINGS}: chat_template is not text")
    return found, "the model's own"


def _stops(talk: str, said: str, hidden: Collection[str]) -> tuple[str, ...]:
    """Return what ends a reply: the text between an answer and the next question.

    `talk` is a conversation as the template writes it, and `said` one that ends with the answer.
    A hidden token between them is a stop by itself. Other text is a stop only if it is a line of
    its own, or not a plain word, so that it does not occur in an answer.
    """
    _, answered, rest = talk.partition(_SAYS)
    between, asked, _ = rest.partition(_GOES_ON)
    if not (answered and asked):
        return ()
    tokens = [token for token in sorted(hidden, key=len, reverse=True) if token]
    pattern = "|".join(map(re.escape, tokens)) or "(?!)"
    stops = re.findall(pattern, between)
    *before, last = re.split(pattern, between)
    end = said.partition(_SAYS)[2].strip()  # of an answer with which the conversation ends
    if not before:
        stops.append(between.rstrip())
        if end and between.strip().startswith(end) and end != between.strip():
            stops.append(end)
    else:
        stops += [each.strip() for each in before[:1] if _is_marker(each)]
        if last.strip() and last[0] == "\n":
            stops.append(last.rstrip())
        elif _is_marker(last):
            stops.append("\n" + last.strip())
    return tuple(dict.fromkeys(stop for stop in stops if stop.strip()))


def _is_marker(text: str) -> bool:
    """Whether a text is more than a plain word, which an answer may contain as well."""
    return bool(text.strip()) and not text.strip().replace("_", "").isalnum()
