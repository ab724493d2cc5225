"""The turns of a chat on the page, or a welcome while there are none."""

from nicegui import ui

from ui.chat.conversation import Conversation
from ui.chat.turn import TurnActions, TurnView
from ui.chat.welcome import Welcome
from ui.elements.basic import Text


class Transcript:
    """Shows a `Conversation`; a caller that changes its turns calls these methods."""

    def __init__(self, welcome: Welcome, actions: TurnActions) -> None:
        self._welcome, self._actions = welcome, actions
        self._views: list[TurnView] = []
        self._turns = ui.element("div").classes("column-text turns")
        self._turns.props('role="log" aria-live="off" aria-label="Conversation"')
        self._note = self._build_note()
        # Neither is shown until the tab's own chat is known.
        self._welcome.element.visible = self._turns.visible = False

    @property
    def last(self) -> TurnView:
        """The view of the last turn."""
        return self._views[-1]

    def show(self, chat: Conversation) -> None:
        """Show a chat from its beginning, in place of what was shown."""
        self._turns.clear()
        self._note = self._build_note()
        with self._turns:
            self._views = [TurnView(turn, self._actions) for turn in chat.turns]
        if chat.turns:
            self.last.show_buttons(chat.turns[-1].reply, last=True)
        self.show_left_out(chat)

    def add_last(self, chat: Conversation) -> None:
        """Show the turn that was just added to the chat."""
        if self._views:
            self.last.show_buttons(chat.turns[-2].reply, last=False)
        with self._turns:
            self._views.append(TurnView(chat.turns[-1], self._actions))
        self.show_left_out(chat)

    def remove_last(self, chat: Conversation) -> None:
        """Remove the view of the turn that was just taken out of the chat."""
        self._views.pop().element.delete()
        self.show_left_out(chat)

    def show_left_out(self, chat: Conversation) -> None:
        """Put a note below the turns that are no longer sent to the model."""
        self._welcome.element.visible = not chat.turns
        self._turns.visible = bool(chat.turns)
        self._note.visible = chat.left_out > 0
        if self._note.visible:
            self._note.move(self._turns, target_index=chat.left_out)

    def _build_note(self) -> ui.element:
        with self._turns:
            note = ui.element("div").classes("note").mark("left-out")
            with note:
                Text("The messages above no longer fit into the model's memory.")
        note.visible = False
        return note
