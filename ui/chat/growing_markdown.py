"""Markdown that grows: while a reply streams, only blocks that can still change are rendered."""

from ui.chat import markdown

# A short block that is still being written is rendered again with every piece. A longer one is
# rendered when it has grown by this share, so that the work is linear in its length.
SHORT_BLOCK = 1_000  # characters
GROWTH = 1 / 8


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
        text = text.replace("\r", "")  # alone, the parser would take it for a new line
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
            self.blocks += markdown.render_blocks(self._rest)[0]
        return first

    def _close(self) -> None:
        """Make all blocks before the last one final; only whole lines can decide that."""
        whole_lines = self._rest[: self._rest.rindex("\n") + 1]
        blocks, start_of_last = markdown.render_blocks(whole_lines)
        if len(blocks) > 1:
            self.blocks += blocks[:-1]
            self._closed += len(blocks) - 1
            self._rest = self._rest[start_of_last:]
