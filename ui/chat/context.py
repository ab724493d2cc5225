"""Fits a chat into the model's context: its oldest turns are left out when it grows too long.

How many tokens a text has is guessed from its length, with a ratio that is corrected by each count
that the model reports. When the guess was too low, the model refuses, and more is left out.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.events import DoneEvent, ReplyEvent
from ui.api.sampling import SamplingOptions
from ui.chat.conversation import Conversation


async def reply_within_context(
    functions: FunctionsClient,
    chat: Conversation,
    options: SamplingOptions,
    max_context: int | None,
    on_left_out: Callable[[], None],
) -> AsyncGenerator[ReplyEvent, None]:
    """Stream the reply to a chat; leaves out the oldest turns until the model accepts the rest.

    `max_context` is in tokens, None if it is not known yet. `on_left_out` is called when
    `chat.left_out` has changed. Raises `FunctionError`; a last message that is too long by itself
    leaves nothing out.
    """
    left_out_before = chat.left_out
    if max_context and leave_room_for_reply(chat, max_context, options.max_new_tokens):
        on_left_out()
    while True:
        try:
            async with aclosing(functions.reply(chat.messages(), options)) as events:
                async for event in events:
                    if isinstance(event, DoneEvent):
                        learn_ratio(chat, event.prompt_tokens)
                    yield event
            return
        except FunctionError as error:
            if not error.too_long:
                raise
            if not shorten_after_refusal(chat, error):
                chat.left_out = left_out_before
                on_left_out()
                raise
            on_left_out()


def leave_room_for_reply(chat: Conversation, max_context: int, max_new_tokens: int) -> bool:
    """Leave out turns until the reply has room, as far as can be guessed; tell whether any went.

    A reply gets the room of its longest length, but at most a quarter of the context.
    """
    if not chat.tokens:
        return False
    return shorten(chat, max_context - min(max_new_tokens, max_context // 4))


def shorten_after_refusal(chat: Conversation, refusal: FunctionError) -> bool:
    """Leave out turns after the model said that the chat is too long; tell whether any went."""
    if refusal.prompt_tokens and refusal.max_context:
        learn_ratio(chat, refusal.prompt_tokens)
        if shorten(chat, refusal.max_context * 3 // 4):
            return True
    return leave_out_oldest(chat)


def learn_ratio(chat: Conversation, prompt_tokens: int) -> None:
    """Correct the guess by how many tokens the model counted in what was sent."""
    if prompt_tokens > 0:
        chat.tokens_per_character = prompt_tokens / max(1, chat.characters_sent)


def shorten(chat: Conversation, limit: int) -> bool:
    """Leave out the oldest turns until about `limit` tokens remain; tell whether any went.

    The last turn always stays: it is the question.
    """
    before = chat.left_out
    while (
        chat.left_out < len(chat.turns) - 1
        and chat.characters_sent * chat.tokens_per_character > limit
    ):
        chat.left_out += 1
    return chat.left_out > before


def leave_out_oldest(chat: Conversation) -> bool:
    """Leave out the oldest turn that is still sent; False when only the question remains."""
    if chat.left_out >= len(chat.turns) - 1:
        return False
    chat.left_out += 1
    return True
