"""A reply while it is written: its text and tokens so far, and which of them were sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.serving import events
from model.text.chat import LeadingSpace
from model.text.tokenizer import StreamDecoder


@dataclass(frozen=True)
class PlacedToken:
    """A token, and the character of the whole text at which its own text starts."""

    token: events.Token
    offset: int


class WrittenReply:
    """Collects the events of one generation.

    `done` is None until the last event. `text` leaves out what `is_chat` says about the start of a
    chat's reply.
    """

    def __init__(
        self, *, is_chat: bool = False, echo: str = "", decoder: StreamDecoder | None = None
    ) -> None:
        """Start with the text of `echo`; tokens have offsets only if there is a `decoder`."""
        self.text = echo
        self.tokens: list[PlacedToken] = []
        self.done: events.Done | None = None
        self._leading_space = LeadingSpace() if is_chat else None
        self._decoder, self._offset = decoder, 0
        self._sent_characters = self._sent_tokens = 0

    def take(self, event: events.Event) -> None:
        """Take the next event; those that say nothing of the text are passed over."""
        match event:
            case events.Token(text=text):
                self._add_token(event)
                self.text += self._leading_space.strip(text) if self._leading_space else text
            case events.PromptToken(id_, likelihood):
                self.echo_token(id_, likelihood)
            case events.Done():
                self.done = event

    def echo_token(self, id_: int, likelihood: events.Likelihood | None = None) -> None:
        """Take a token of the prompt, which stands before the reply; it needs a decoder."""
        self.text += self._add_token(events.Token(id_, "", likelihood))

    def take_unsent(self) -> tuple[str, Sequence[PlacedToken]]:
        """Return the text and the tokens that came since this was last called."""
        text, tokens = self.text[self._sent_characters :], self.tokens[self._sent_tokens :]
        self._sent_characters, self._sent_tokens = len(self.text), len(self.tokens)
        return text, tokens

    def _add_token(self, token: events.Token) -> str:
        """Add a token, and return its own text.

        That is not what the event says: a stop string may hold back the text of several tokens.
        """
        self.tokens.append(PlacedToken(token, self._offset))
        text = self._decoder.push(token.id) if self._decoder else ""
        self._offset += len(text)
        return text
