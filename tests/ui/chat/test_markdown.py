"""Replies as HTML: safe whatever the model writes."""

import random
from html.parser import HTMLParser

import pytest

from tests.ui.fake_functions import ARABIC, ATTACK
from ui.chat.markdown import render

pytestmark = pytest.mark.slow

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


def test_every_paragraph_and_item_finds_its_own_direction() -> None:
    html = "".join(render(f"{ARABIC}\n\nEnglish\n\n- {ARABIC}\n- English"))
    assert html.count('<p dir="auto">') == 2
    assert html.count('<li dir="auto">') == 2
