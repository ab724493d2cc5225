"""Conversations become the prompt that the model was taught."""

import json
from pathlib import Path

import pytest

from model.chat import ChatTemplate
from model.demo.corpus import CHAT_TEMPLATE
from model.errors import ModelError

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


def test_damaged_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer_config.json"):
        ChatTemplate.open(tmp_path)
