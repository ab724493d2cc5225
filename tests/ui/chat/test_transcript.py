"""The turns on the page: a welcome while there are none, and a note below those left out."""

from nicegui import ui
from nicegui.testing import User

from tests.ui.chat.conversations import chat
from tests.ui.simulated import Site, see, texts
from ui.chat.conversation import Turn
from ui.chat.transcript import Transcript
from ui.chat.turn import TurnActions
from ui.chat.welcome import Welcome

ACTIONS = TurnActions(lambda: None, lambda: None, lambda seed: None)


async def test_turns_come_and_go_and_the_note_stands_below_those_left_out(
    simulation: tuple[User, Site],
) -> None:
    user, _ = simulation
    made: list[Transcript] = []

    @ui.page("/transcript")
    def page() -> None:
        made.append(Transcript(Welcome(lambda text: None), ACTIONS))

    await user.open("/transcript")
    (transcript,) = made
    shown = chat()
    shown.turns.clear()
    transcript.show(shown)
    await see(user, "What shall we talk about?")
    shown = chat("zero", "one")
    transcript.show(shown)
    await user.should_not_see("What shall we talk about?")
    assert texts(user, "question") == ["question 0", "question 1", "now"]
    assert not user._sees(marker="left-out")
    shown.left_out = 1
    transcript.show_left_out(shown)
    (note,) = user.find(marker="left-out").elements
    parent = note.parent_slot
    assert parent is not None
    assert parent.children.index(note) == 1
    shown.turns.append(Turn("later"))
    transcript.add_last(shown)
    assert texts(user, "question")[-1] == "later"
    shown.turns.pop()
    transcript.remove_last(shown)
    assert texts(user, "question") == ["question 0", "question 1", "now"]
