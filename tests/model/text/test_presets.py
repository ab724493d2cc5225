"""Presets write what those who trained a family published, and are found by a folder's name."""

from pathlib import Path

import pytest

from model.text.chat import ChatSource, ChatTemplate
from model.text.presets import PRESETS, preset_of

ONE = [{"role": "user", "content": "你好"}]
TALK = [*ONE, {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Why?"}]

# The first column of prompts is for ONE, the second for TALK.
PUBLISHED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "transcript": (
        "User: 你好\nAssistant:",
        "User: 你好\nAssistant: Hi!\nUser: Why?\nAssistant:",
        ("\nUser:",),
    ),
    "instruction": ("你好", "你好\nHi!\nWhy?", ()),
    "belle": (
        "Human: 你好\n\nAssistant:",
        "Human: 你好\n\nAssistant: Hi!\n\nHuman: Why?\n\nAssistant:",
        ("\n\nHuman:",),
    ),
    "phoenix": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant"
        " gives helpful, detailed, and polite answers to the human's questions.\n\n"
        "Human: <s>你好</s>Assistant: <s>",
        "A chat between a curious human and an artificial intelligence assistant. The assistant"
        " gives helpful, detailed, and polite answers to the human's questions.\n\n"
        "Human: <s>你好</s>Assistant: <s>Hi!</s>Human: <s>Why?</s>Assistant: <s>",
        ("</s>", "<s>"),
    ),
    "tigerbot": (
        "\n\n### Instruction:\n你好\n\n### Response:\n",
        "\n\n### Instruction:\n你好\n\n### Response:\nHi!"
        "\n\n### Instruction:\nWhy?\n\n### Response:\n",
        ("\n\n### Instruction:",),
    ),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n### Instruction:\n你好\n\n### Response:",
        "Below is an instruction that describes a task. Write a response that appropriately"
        " completes the request.\n\n### Instruction:\n你好\n\n### Response:Hi!"
        "\n\n### Instruction:\nWhy?\n\n### Response:",
        ("\n\n### Instruction:",),
    ),
    "sft-chat": ("</s>你好<s>", "</s>你好<s>Hi!</s>Why?<s>", ("</s>",)),
    "firefly": ("<s>你好</s></s>", "<s>你好</s></s>Hi!</s><s>Why?</s></s>", ("</s>", "<s>")),
    "blossom": (
        "A chat between a human and an artificial intelligence bot. The bot gives helpful,"
        " detailed, and polite answers to the human's questions.\n|Human|: 你好\n|Bot|: ",
        "A chat between a human and an artificial intelligence bot. The bot gives helpful,"
        " detailed, and polite answers to the human's questions.\n|Human|: 你好\n|Bot|: Hi!</s>\n"
        "|Human|: Why?\n|Bot|: ",
        ("</s>", "\n|Human|:"),
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_what_was_published(name: str) -> None:
    chat = ChatTemplate.named(name)
    assert (chat.render(ONE), chat.render(TALK), chat.stop) == PUBLISHED[name]


def test_a_system_message_comes_first_and_once() -> None:
    system = {"role": "system", "content": "Be kind."}
    for name in PRESETS:
        prompt = ChatTemplate.named(name).render([system, *TALK])
        assert prompt.count("Be kind.") == 1
        assert prompt.index("Be kind.") < prompt.index("你好")
        assert "helpful" not in prompt  # the system message that a preset has of its own
        assert "Below is an" not in prompt


NAMES = {
    "bloom-560m": "transcript",
    "bloomz-560m": "instruction",
    "bloomz-7b1-mt": "instruction",
    "BLOOMZ-7b1-p3": "instruction",
    "BELLE-7B-2M": "belle",
    "BELLE-7B-gptq": "belle",
    "phoenix-inst-chat-7b": "phoenix",
    "phoenix-chat-7b": "phoenix",
    "tigerbot-7b-sft": "tigerbot",
    "tigerbot-7b-sft-v2": "tigerbot",
    "tigerbot-7b-base": "transcript",
    "tigerbot-180b-base-v2": "transcript",
    "firefly-1b4": "firefly",
    "blossom-v2-3b": "blossom",
    "bloomz-560m-sft-chat": "sft-chat",
    "bloomz-7b1-mt-sft-chat": "sft-chat",
    "bloom-7b1-alpaca": "alpaca",
    "bloomz-396m-zh": "instruction",
    "bloom-396m-zh": "transcript",
    "gpt3-finnish-small": "transcript",
    "model": "transcript",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_found_by_the_folders_name(tmp_path: Path, name: str) -> None:
    assert preset_of(name) == NAMES[name]
    snapshot = tmp_path / f"models--org--{name}" / "snapshots" / ("0" * 40)
    for folder in (tmp_path / name, snapshot):
        folder.mkdir(parents=True)
        source = ChatSource.read(folder)
        assert source.template == PRESETS[NAMES[name]]
        assert source.origin == f"the preset {NAMES[name]}, as the model has none of its own"


def test_a_folders_own_template_wins_over_the_preset_for_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "BELLE-7B-2M"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text("own {{ messages[0].content }}")
    source = ChatSource.read(folder)
    assert (source.template, source.origin) == ("own {{ messages[0].content }}", "the model's own")


def test_a_preset_that_is_named_wins_over_the_folders_own(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ broken")
    source = ChatSource.read(tmp_path, "belle")
    assert (source.template, source.origin) == (PRESETS["belle"], "the preset belle")
