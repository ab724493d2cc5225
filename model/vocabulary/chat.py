"""The tokens that a chat takes besides what is said in it."""

from contextlib import suppress

from model.errors import ModelError
from model.text.chat import ChatError, ChatSource, ChatTemplate
from model.text.tokenizer import Tokenizer

_SHORT = "1"  # a message whose tokens are kept anyway
_ASKED, _SAID = {"role": "user", "content": _SHORT}, {"role": "assistant", "content": _SHORT}
_CHATS = (
    (_ASKED,),
    (_ASKED, _SAID, _ASKED),
    ({"role": "system", "content": _SHORT}, _ASKED),
)


def tokens_of_chats(source: ChatSource, tokenizer: Tokenizer) -> set[int]:
    """Return the ids of what a template writes around messages; none if it cannot be used."""
    found: set[int] = set()
    with suppress(ModelError):
        template = ChatTemplate.of(source, tokenizer.hidden)
        for chat in _CHATS:
            with suppress(ChatError):  # a template may know no system messages
                found |= set(tokenizer.ids(template.render(chat), add_special_tokens=False))
    return found
