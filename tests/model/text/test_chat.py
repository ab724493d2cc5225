"""Conversations become the prompt that the model was taught."""

import json
import os
from pathlib import Path

import pytest

from model.demo.corpus import CHAT_TEMPLATE
from model.errors import ModelError
from model.text.chat import ChatError, ChatTemplate, LeadingSpace

TALK = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "How are you?"},
]


def test_without_a_template_a_chat_is_a_transcript(tmp_path: Path) -> None:
    chat = ChatTemplate.open(tmp_path)
    assert chat.render(TALK) == "User: Hello\nAssistant: Hi!\nUser: How are you?\nAssistant:"
    assert chat.stop == ("\nUser:",)


def test_the_demo_models_template_ends_replies_as_in_training() -> None:
    chat = ChatTemplate(CHAT_TEMPLATE)
    assert chat.render(TALK) == "User: Hello\nAssistant: Hi!</s>\nUser: How are you?\nAssistant:"


def test_newer_and_older_places_of_a_template(tmp_path: Path) -> None:
    older = tmp_path / "tokenizer_config.json"
    older.write_text(json.dumps({"chat_template": "old {{ messages[0].content }}"}))
    assert ChatTemplate.open(tmp_path).render(TALK) == "old Hello"
    (tmp_path / "chat_template.jinja").write_text("new {{ messages[0].content }}")
    assert ChatTemplate.open(tmp_path).render(TALK) == "new Hello"


def test_a_template_without_a_speaker_needs_no_stop() -> None:
    assert ChatTemplate("{{ messages[-1].content }}").stop == ()


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ messages[0].content.foo() }}", "{{ ''.__class__.__mro__[1]() }}"]
)
def test_a_broken_or_hostile_template_is_refused(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        ChatTemplate(source)


def test_messages_that_a_template_refuses_are_told_apart_from_a_broken_template() -> None:
    chat = ChatTemplate(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    assert chat.render(TALK) == "Hello"
    with pytest.raises(ChatError, match="no system role"):
        chat.render([{"role": "system", "content": "Be kind"}])


def test_of_several_templates_the_default_one_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": "the default"}]
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": named}))
    assert ChatTemplate.open(tmp_path).render(TALK) == "the default"
    settings.write_text(json.dumps({"chat_template": named[:1]}))
    with pytest.raises(ModelError, match="default"):
        ChatTemplate.open(tmp_path)


def test_a_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelError, match="chat_template.jinja"):
        ChatTemplate.open(tmp_path)


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer_config.json"):
        ChatTemplate.open(tmp_path)


def test_a_bloomz_gets_its_instruction_as_it_is(tmp_path: Path) -> None:
    for name, prompt in (
        ("bloomz-560m", "Translate: chat"),
        ("bloom-560m", "User: Translate: chat\nAssistant:"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        asked = ChatTemplate.open(folder).render([{"role": "user", "content": "Translate: chat"}])
        assert asked == prompt


def test_a_template_can_be_chosen_by_name_or_file(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert ChatTemplate.named("instruction").render(talk) == "a\nb"
    assert ChatTemplate.named("transcript").stop == ("\nUser:",)
    file = tmp_path / "own.jinja"
    file.write_text("{{ messages[-1].content }}!")
    assert ChatTemplate.named(str(file)).render(talk) == "b!"
    with pytest.raises(ModelError, match="not a chat template"):
        ChatTemplate.named("nonsense")


def test_what_an_error_repeats_of_a_template_is_short_and_one_line() -> None:
    refuses = "{{ raise_exception('a\\x1b[2J\\n' * 9999) }}"
    source = "{% if messages[0].content == 'go' %}" + refuses + "{% endif %}x"
    chat = ChatTemplate(source)
    with pytest.raises(ChatError) as refused:
        chat.render([{"role": "user", "content": "go"}])
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "large"])
def test_a_template_that_is_no_ordinary_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "chat_template.jinja"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.write_text("a" * 1_000_000)
    with pytest.raises(ModelError, match="chat_template.jinja"):
        ChatTemplate.open(tmp_path)


@pytest.mark.parametrize(
    ("pieces", "stripped"),
    [
        ([" Hello", " you"], "Hello you"),
        ([" ", "", "\n", "\u3000Hi", " "], "Hi "),
        (["Hi", " ", "you"], "Hi you"),
        ([" ", "\n"], ""),
        ([], ""),
    ],
)
def test_the_space_before_a_reply_is_stripped_however_it_is_cut(
    pieces: list[str], stripped: str
) -> None:
    leading_space = LeadingSpace()
    assert "".join(leading_space.strip(piece) for piece in pieces) == stripped
