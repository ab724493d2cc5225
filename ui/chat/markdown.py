"""A reply's Markdown as HTML that is safe by construction, block by block.

A model's output is untrusted. HTML in it is shown as text, an image becomes its description
(its host would learn who reads it), and links go to http, https and mailto only.
"""

from collections.abc import Sequence
from html import escape
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight as paint
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

# Each of these finds its own direction: a reply may mix Arabic and English, line by line.
DIRECTED = (
    "paragraph_open",
    "heading_open",
    "bullet_list_open",
    "ordered_list_open",
    "list_item_open",
    "blockquote_open",
    "th_open",
    "td_open",
)

# Longer code is shown in one colour: the time of some languages' lexers grows with its square.
PAINTED = 2_000  # characters


def render(text: str) -> list[str]:
    """Return the HTML of each top-level block of a whole text."""
    return render_blocks(text.replace("\r", ""))[0]


def render_blocks(text: str) -> tuple[list[str], int]:
    """Return the HTML of each top-level block, and the offset at which the last one starts."""
    env: EnvType = {}
    tokens = PARSER.parse(text, env)
    blocks, start, line = [], 0, 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting >= 0 and token.map:
            line = token.map[0]
        if token.level == 0 and token.nesting <= 0:
            blocks.append(PARSER.renderer.render(tokens[start : index + 1], PARSER.options, env))
            start = index + 1
    return blocks, _offset(text, line)


def _offset(text: str, line: int) -> int:
    at = 0
    for _ in range(line):
        at = text.index("\n", at) + 1
    return at


def _code(source: str, language: str) -> str:
    try:
        lexer = get_lexer_by_name(language) if language and len(source) <= PAINTED else None
    except ClassNotFound:
        lexer = None
    painted = paint(source, lexer, HtmlFormatter(nowrap=True)) if lexer else escape(source)
    return (
        '<div class="code" dir="ltr"><div class="code-head">'
        f"<span>{escape(language) or 'text'}</span>"
        '<button type="button" class="code-copy" aria-label="Copy this code">Copy</button></div>'
        f'<pre tabindex="0"><code>{painted}</code></pre></div>\n'
    )


def _fence(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    words = token.info.split(maxsplit=1)
    return _code(token.content, words[0] if words else "")


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    return escape(self.renderInlineAsText(token.children, options, env) or "image")


def _directed(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    tokens[index].attrSet("dir", "auto")
    return self.renderToken(tokens, index, options, env)


def _link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    if not _allowed(str(token.attrs.get("href", ""))):  # an empty one is not asked about before
        token.attrs.pop("href", None)
    token.attrSet("rel", "noopener noreferrer nofollow")
    return self.renderToken(tokens, index, options, env)


def _allowed(url: str) -> bool:
    try:
        return urlsplit(url.strip()).scheme.lower() in ("http", "https", "mailto")
    except ValueError:
        return False


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(
        ["table", "strikethrough"]
    )
    # A name defined elsewhere in the text would make a block depend on another one.
    parser.disable(["reference", "html_block", "html_inline"])
    parser.validateLink = _allowed  # type: ignore[method-assign]
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link)
    for name in DIRECTED:
        parser.add_render_rule(name, _directed)
    return parser


PARSER = _parser()
