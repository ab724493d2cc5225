"""Replies as HTML: safe whatever the model writes, and the same streamed as whole."""

import random
from html.parser import HTMLParser
from typing import Any

import pygments
import pytest

from tests.ui.fake_functions import ARABIC, ATTACK, CHINESE, CODE, STORY
from ui.chat import markdown
from ui.chat.markdown import GrowingMarkdown, render

ALLOWED = {"p", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr", "br"}
ALLOWED |= {"table", "thead", "tbody", "tr", "th", "td", "strong", "em", "s", "code", "pre", "a"}
ALLOWED |= {"div", "span", "button"}
ATTRIBUTES = {"dir", "class", "href", "rel", "title", "start", "style", "type", "aria-label"}
ATTRIBUTES |= {"tabindex"}


class Checker(HTMLParser):
    """Finds whatever a reply must never become."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED:
            self.bad.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES:
                self.bad.append(f"{tag} {name}")
            if name == "href" and not (value or "").startswith(("http:", "https:", "mailto:")):
                self.bad.append(f"href {value}")
            if name == "style" and not (value or "").startswith("text-align:"):
                self.bad.append(f"style {value}")


def problems(text: str) -> list[str]:
    checker = Checker()
    checker.feed("".join(render(text)))
    return checker.bad


@pytest.mark.parametrize(
    "text",
    [
        ATTACK,
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<div>\n\n<iframe src='//evil.example'></iframe>\n\n</div>",
        "[a](javascript:alert(1)) [b](JAVASCRIPT:alert(1)) [c](data:text/html,x) [d](/path)",
        "[e](vbscript:x) [f](&#106;avascript:alert(1)) <javascript:alert(1)> [g](//evil.example)",
        '[h](http://x "t" onclick="alert(1)) ![i](http://evil.example/pixel.png)',
        '```"><script>alert(1)</script>\nx\n```',
        "```<img/src/onerror=alert(1)>\n</code></pre><script>alert(1)</script>\n```",
        "[x]: javascript:alert(1)\n\n[x]",
        "| <b>a</b> |\n|---|\n| <svg onload=alert(1)> |",
    ],
)
def test_markup_of_the_model_never_becomes_markup_of_the_page(text: str) -> None:
    assert problems(text) == []


def test_no_mixture_of_dangerous_pieces_becomes_markup() -> None:
    pieces = [
        "<",
        ">",
        '"',
        "'",
        "`",
        "```",
        "\n",
        "\n\n",
        "[",
        "](",
        ")",
        "![",
        "javascript:",
        "*",
    ]
    pieces += [
        "<script>",
        "</p>",
        "&lt;",
        "|",
        "---",
        "- ",
        "> ",
        "    ",
        "onload=",
        "a",
        "\t",
        "\\",
    ]
    rng = random.Random(7)
    for _ in range(2000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 30)))
        assert problems(text) == [], text


def test_an_image_is_shown_as_its_description_and_never_loaded() -> None:
    html = "".join(render("See ![a small fox](http://203.0.113.1/fox.png)."))
    assert "a small fox" in html
    assert "203.0.113.1" not in html


def test_a_code_block_keeps_its_text_and_names_its_language() -> None:
    (html,) = render("```python\nif a < b:\n    pass\n```")
    assert "<span>python</span>" in html
    assert "&lt;" in html
    assert 'dir="ltr"' in html


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


def test_every_paragraph_and_item_finds_its_own_direction() -> None:
    html = "".join(render(f"{ARABIC}\n\nEnglish\n\n- {ARABIC}\n- English"))
    assert html.count('<p dir="auto">') == 2
    assert html.count('<li dir="auto">') == 2


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
    blocks = markdown._blocks

    def counted(text: str) -> tuple[list[str], int]:
        nonlocal parsed
        parsed += len(text)
        return blocks(text)

    monkeypatch.setattr(markdown, "_blocks", counted)
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
