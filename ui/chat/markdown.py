"""A reply's Markdown as HTML that is safe by construction, block by block while it streams.

A model's output is untrusted. HTML in it is shown as text, an image becomes its description
(loading one would tell its host who reads), and links go to http, https and mailto only.
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


# A block that is still being written is rendered anew with every piece while it is short. A longer
# one is rendered when it has grown by this share, so that the work is linear in its length.
SHORT_BLOCK = 1_000  # characters
GROWTH = 1 / 8
# Longer code is shown in one colour: the time of some languages' lexers grows with its square.
PAINTED = 2_000  # characters


class GrowingMarkdown:
    """The HTML blocks of a growing text: final ones, those that may change, and plain text.

    The work of all calls together is linear in the length of the text.
    """

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self._closed = 0  # how many of the blocks are final
        self._rest = ""  # the text of those that are not
        self._waiting = 0  # how many characters at its end are in no block yet

    @property
    def tail(self) -> str:
        """The end of the text that is in no block yet."""
        return self._rest[len(self._rest) - self._waiting :]

    def feed(self, text: str) -> int:
        """Add text; return the index of the first block that is new or changed."""
        text = text.replace("\r", "")  # a lone one would count as a line
        self._rest += text
        self._waiting += len(text)
        if len(self._rest) > SHORT_BLOCK and self._waiting < GROWTH * len(self._rest):
            return len(self.blocks)
        return self.finish()

    def finish(self) -> int:
        """Render all that was fed; return the index of the first block that is new or changed."""
        first = self._closed
        if self._waiting:
            new_line = "\n" in self.tail
            self._waiting = 0
            del self.blocks[first:]
            if new_line:
                self._close()
            self.blocks += _blocks(self._rest)[0]
        return first

    def _close(self) -> None:
        """Finish what is before the last block; a line that may go on decides nothing yet."""
        whole_lines = self._rest[: self._rest.rindex("\n") + 1]
        blocks, start_of_last = _blocks(whole_lines)
        if len(blocks) > 1:
            self.blocks += blocks[:-1]
            self._closed += len(blocks) - 1
            self._rest = self._rest[start_of_last:]


def render(text: str) -> list[str]:
    """Return the HTML of each top-level block of a whole text."""
    return _blocks(text.replace("\r", ""))[0]


def _blocks(text: str) -> tuple[list[str], int]:
    """Return the HTML of each block, and the offset at which the last one starts."""
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
