"""Chat templates give what `transformers` gives, and name what ends a reply."""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers

from model.errors import ModelError
from model.names import default_model
from model.text.chat import ChatError, ChatSource, ChatTemplate
from model.text.stops import StopStrings
from tests.model.text.chat_templates import CHATS, TEMPLATES

TOKENS = {
    "bos_token": "<s>",
    "eos_token": "<|im_end|>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "sep_token": "<|sep|>",
}


@cache
def reference() -> Any:
    return transformers.AutoTokenizer.from_pretrained(default_model(), **TOKENS)


def expected(source: str, chat: list[dict[str, str]]) -> str | None:
    try:
        text = reference().apply_chat_template(
            chat, chat_template=source, tokenize=False, add_generation_prompt=True
        )
    except Exception:
        return None
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_writes_what_the_library_writes(name: str, chat: str) -> None:
    ours = ChatTemplate(TEMPLATES[name], TOKENS)
    theirs = expected(TEMPLATES[name], CHATS[chat])
    if theirs is None:
        with pytest.raises(ChatError):
            ours.render(CHATS[chat])
    else:
        assert ours.render(CHATS[chat]) == theirs


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_long_conversation_stays_within_a_templates_bounds(name: str) -> None:
    text = "Some words, and a line.\n" * 80
    turns = [{"role": role, "content": text} for role in ("user", "assistant")] * 100
    chat = [*turns, {"role": "user", "content": "And now?"}]
    theirs = expected(TEMPLATES[name], chat)
    if theirs is not None:
        assert ChatTemplate(TEMPLATES[name], TOKENS).render(chat) == theirs


def test_a_field_that_is_null_is_as_good_as_not_given() -> None:
    source = "{{ messages[0].content }}{{ messages[0].name is defined }}"
    said: list[Any] = [{"role": "user", "content": "a", "name": None}]
    assert ChatTemplate(source).render(said) == expected(source, said)


# What folders say of their templates and tokens: files by name, as they would lie there.
A, B, C = ("{{ bos_token }}" + name + "{{ eos_token }}{{ messages[0].content }}" for name in "ABC")
SHOW = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ sep_token }}|"
SHOW += "{{ image_token }}|{{ cls_token is defined }}|{{ messages[0].content }}"
ADDED = {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False}
FOLDERS: dict[str, dict[str, Any]] = {
    "text": {"tokenizer_config.json": {"chat_template": A, "bos_token": "<s>"}},
    "list": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "tool_use", "template": B},
                {"name": "default", "template": A},
            ]
        }
    },
    "list with two defaults": {
        "tokenizer_config.json": {
            "chat_template": [
                {"name": "default", "template": B},
                {"name": "default", "template": A},
            ]
        }
    },
    "list without default": {
        "tokenizer_config.json": {"chat_template": [{"name": "tool_use", "template": B}]}
    },
    "object": {"tokenizer_config.json": {"chat_template": {"default": A, "rag": B}}},
    "file": {"chat_template.jinja": A},
    "file before settings": {
        "chat_template.jinja": A,
        "tokenizer_config.json": {"chat_template": B, "eos_token": "</s>"},
    },
    "file before list": {
        "chat_template.jinja": A,
        "tokenizer_config.json": {"chat_template": [{"name": "default", "template": B}]},
    },
    "more files": {
        "chat_template.jinja": A,
        "additional_chat_templates/tool_use.jinja": B,
        "tokenizer_config.json": {"chat_template": C},
    },
    "more files alone": {
        "additional_chat_templates/tool_use.jinja": B,
        "tokenizer_config.json": {"chat_template": C},
    },
    "a default among more files": {
        "additional_chat_templates/default.jinja": B,
        "chat_template.jinja": A,
    },
    "tokens in settings": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
    },
    "tokens as objects": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": ADDED, "eos_token": ADDED | {"content": "</s>"}},
    },
    "null tokens": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": None, "eos_token": "</s>"},
    },
    "former map": {
        "chat_template.jinja": SHOW,
        "special_tokens_map.json": {
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": False, "rstrip": False},
        },
    },
    "former map wins": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": "<unk>", "pad_token": "<pad>"},
        "special_tokens_map.json": {"bos_token": "<s>", "pad_token": None},
    },
    "former map is not read": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": "<unk>", "added_tokens_decoder": {}},
        "special_tokens_map.json": {"bos_token": "<s>"},
    },
    "a token of another name": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"image_token": "<pad>", "add_bos_token": True},
    },
    "extra tokens by name": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<unk>"}},
    },
    "extra tokens as a list": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"additional_special_tokens": ["<pad>"], "bos_token": "<s>"},
    },
    "no settings": {"chat_template.jinja": SHOW},
    "a list of no templates": {"tokenizer_config.json": {"chat_template": ["x"]}},
    "a number": {"tokenizer_config.json": {"chat_template": 5}},
    "a token that is a number": {
        "chat_template.jinja": SHOW,
        "tokenizer_config.json": {"bos_token": 5},
    },
}


def lay_out(folder: Path, files: dict[str, Any]) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(default_model() / name, folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folders_template_and_tokens_are_those_of_the_library(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, FOLDERS[name])
    chat = CHATS["talk"]
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
    except Exception:
        with pytest.raises(ModelError, match="PIBLOOM_CHAT_TEMPLATE"):
            ChatTemplate.open(tmp_path)
    else:
        assert ChatTemplate.open(tmp_path).render(chat) == theirs


def test_padding_of_the_tokenizer_names_its_token(tmp_path: Path) -> None:
    lay_out(tmp_path, FOLDERS["no settings"])
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 3,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        CHATS["one"], tokenize=False
    )
    assert ChatTemplate.open(tmp_path).render(CHATS["one"]) == theirs


def test_a_template_that_cannot_be_read_is_kept_for_the_setting_to_override(
    tmp_path: Path,
) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    source = ChatSource.read(tmp_path)
    assert source.template is None
    assert "chat_template.jinja" in source.problem


# Templates of the table that write one message at most, no turns, or nothing between them.
NO_TURNS = {
    *("tools and documents", "every token", "filters", "methods", "namespace", "comments"),
    *("recursive loop", "loop variables", "white space", "tojson", "tojson with settings"),
    "preset instruction",
}
MARKERS = re.compile(r"<\|[^|]*\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]")


def next_turn(source: str) -> str:
    """Return what the library writes from an answer's end to its chat's next question."""
    talk = [
        *CHATS["one"],
        {"role": "assistant", "content": "ANSWER"},
        {"role": "user", "content": "QUESTION"},
    ]
    text = expected(source, talk)
    assert text is not None
    return text.partition("ANSWER")[2].partition("QUESTION")[0]


@pytest.mark.parametrize("hides", [False, True], ids=["markers are text", "markers are tokens"])
@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - NO_TURNS))
def test_a_model_that_writes_the_users_turn_is_cut(name: str, hides: bool) -> None:
    """The model writes an answer, then what the template has before the user's next words."""
    between = next_turn(TEMPLATES[name])
    hidden = {"<unk>", "<s>", "</s>", "<pad>"} | (set(MARKERS.findall(between)) if hides else set())
    chat = ChatTemplate(TEMPLATES[name], TOKENS, hidden)
    tokens = "|".join(map(re.escape, sorted(hidden, key=len, reverse=True)))
    stops, shown = StopStrings(chat.stop), ""
    for part in re.split(f"({tokens})", f"Fine.{between}Tell me more."):
        if part in hidden:
            if part in chat.stop:  # as the scheduler takes it
                break
            continue
        text, stopped = stops.push(part)
        shown += text
        if stopped:
            break
    else:
        pytest.fail(f"{chat.stop} ends nothing of {between!r}")
    assert shown.strip() == "Fine."


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_stops_leave_an_ordinary_answer_alone(name: str) -> None:
    answer = "# A title\n\n- user: one\n- two\n\n```\n[x] <a> 1 < 2\n```\nThe user said: done.\n"
    shown, stopped = StopStrings(ChatTemplate(TEMPLATES[name], TOKENS).stop).push(answer)
    assert not stopped
    assert answer.startswith(shown)
