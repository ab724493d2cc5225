"""Replies that grow: the same streamed as whole, for an effort that is linear in the text."""

import random
from typing import Any

import pygments
import pytest

from tests.ui.fake_functions import ARABIC, ATTACK, CHINESE, CODE, STORY
from ui.chat import markdown
from ui.chat.growing_markdown import GrowingMarkdown
from ui.chat.markdown import render


@pytest.mark.parametrize("text", [STORY, CODE, ARABIC, CHINESE, ATTACK, "a\r\n\r\nb\rc\n\n# d"])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_streamed_in_any_pieces_is_the_same_as_whole(text: str, size: int) -> None:
    rendered = GrowingMarkdown()
    for start in range(0, len(text), size):
        rendered.feed(text[start : start + size])
        assert len(rendered.tail) < max(len(text) / 4, 1)
    rendered.finish()
    assert rendered.blocks == render(text)


def test_random_markdown_streams_to_the_same_as_whole() -> None:
    pieces = ["word ", "\n", "\n\n", "- ", "1. ", "# ", "> ", "```\n", "| a | b |\n", "|---|---|\n"]
    pieces += ["    ", "**", "---\n", "===\n", "`", "* "]
    rng = random.Random(3)
    for _ in range(1500):
        parts = [rng.choice(pieces) for _ in range(rng.randrange(1, 25))]
        rendered = GrowingMarkdown()
        for part in parts:
            rendered.feed(part)
        rendered.finish()
        assert rendered.blocks == render("".join(parts)), parts


# One block of each kind that goes on and on, and what makes parsers go back and forth.
ENDLESS = {
    "list": "- word **and** word\n",
    "loose list": "- word\n\n  more\n\n",
    "numbered list": "1. word\n",
    "nested list": "- a\n  - b\n    - c\n",
    "code": "```python\n" + "x = [1, 2]\n" * 20,
    "indented code": "    x = 1\n",
    "table": "| a | b |\n|---|---|\n" + "| c | d |\n" * 20,
    "paragraph": "word ",
    "lines": "word\n",
    "paragraphs": "word word\n\n",
    "quote": "> word\n",
    "brackets": "[",
    "images": "![",
    "stars": "*a ",
    "underscores": "_a",
    "backticks": "`a ",
    "links": "[a](b ",
    "empty": "\n",
}


def grown(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


@pytest.mark.parametrize("unit", ENDLESS.values(), ids=ENDLESS)
def test_the_work_of_streaming_is_linear_in_the_text(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0
    blocks = markdown.render_blocks

    def counted(text: str) -> tuple[list[str], int]:
        nonlocal parsed
        parsed += len(text)
        return blocks(text)

    monkeypatch.setattr(markdown, "render_blocks", counted)
    work = []
    for size in (2_000, 8_000):
        parsed, rendered, text = 0, GrowingMarkdown(), grown(unit, size)
        for start in range(0, size, 40):
            rendered.feed(text[start : start + 40])
        rendered.finish()
        work.append(parsed)
        assert rendered.blocks == render(text)
    assert work[1] <= 6 * work[0]  # four times the text; a quadratic one would take 16 times


def test_finished_blocks_are_not_rendered_again() -> None:
    rendered = GrowingMarkdown()
    rendered.feed("one\n\ntwo\n\nthree\n")
    assert rendered.feed("and more") == 2


@pytest.mark.parametrize(
    ("language", "unit"), [("perl", "m{"), ("java", "a\n"), ("typescript", ".a"), ("css", ":a ")]
)
def test_long_code_is_whole_and_costs_no_lexer_more_than_short_code(
    language: str, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []

    def counted(source: str, *rest: Any) -> Any:
        painted.append(len(source))
        return pygments.highlight(source, *rest)

    monkeypatch.setattr(markdown, "paint", counted)
    rendered, text = GrowingMarkdown(), f"```{language}\n{grown(unit, 9_000)}\n```\n"
    for start in range(0, len(text), 500):
        rendered.feed(text[start : start + 500])
    rendered.finish()
    assert painted
    assert max(painted) <= 2_000
    assert grown(unit, 9_000) in "".join(rendered.blocks)
