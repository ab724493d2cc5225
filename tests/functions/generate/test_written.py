"""A reply while it is written: what it shows, where its tokens start, what was sent."""

from functions.generate.written import WrittenReply
from model.serving import events
from model.text.tokenizer import StreamDecoder
from tests.fakes import byte_tokenizer


def token(text: str, id_: int = 5) -> events.Token:
    return events.Token(id_, text)


def test_a_chats_reply_begins_with_its_first_word() -> None:
    chat, text = WrittenReply(is_chat=True), WrittenReply()
    for piece in (" ", "\n", " Hi", " you"):
        chat.take(token(piece))
        text.take(token(piece))
    assert (chat.text, text.text) == ("Hi you", " \n Hi you")
    assert len(chat.tokens) == len(text.tokens) == 4


def test_what_was_sent_is_not_sent_again() -> None:
    reply = WrittenReply(echo="He")
    assert reply.take_unsent() == ("He", [])
    reply.take(events.Queued(1))
    assert reply.take_unsent() == ("", [])
    reply.take(token("llo"))
    text, placed = reply.take_unsent()
    assert (text, [each.token.text for each in placed]) == ("llo", ["llo"])
    assert reply.take_unsent() == ("", [])
    assert reply.text == "Hello"


def test_tokens_stand_where_their_own_text_starts() -> None:
    """Whatever of it is shown: the second token here is held back with the third."""
    tokenizer = byte_tokenizer()
    reply = WrittenReply(decoder=StreamDecoder(tokenizer))
    ids = tokenizer.ids("Hi!")
    reply.echo_token(ids[0])
    reply.take(token("", ids[1]))
    reply.take(token("i!", ids[2]))
    assert [each.offset for each in reply.tokens] == [0, 1, 2]
    assert reply.text == "Hi!"


def test_it_is_done_with_the_last_event() -> None:
    reply, done = WrittenReply(), events.Done("", "stop", 1, 1, 0, 0, 0, 0)
    assert reply.done is None
    reply.take(done)
    assert reply.done is done
