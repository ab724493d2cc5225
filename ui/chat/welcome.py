"""What an empty chat shows: a greeting, and examples to press."""

from collections.abc import Callable
from functools import partial

from nicegui import ui

from ui.api.status import ServedModel
from ui.elements.basic import Button, Text
from ui.elements.frame import add_logo
from ui.format import compact

EXAMPLES = (  # text and language
    ("Who are you?", "en"),
    ("What is piBLOOM?", "en"),
    ("What is 7 plus 5?", "en"),
    ("Tell me a story about a fox.", "en"),
    ("كيف حالك؟", "ar"),
    ("你是谁？", "zh"),
)


class Welcome:
    """The greeting and the examples; `ask` is called with the text of the example pressed."""

    def __init__(self, ask: Callable[[str], None]) -> None:
        self.element = ui.element("div").classes("column-text empty").mark("empty")
        with self.element:
            add_logo("empty-logo")
            Text("What shall we talk about?", "h1")
            self._greeting = Text(
                "A BLOOM language model answers here. What you write goes to no other service.", "p"
            ).mark("greeting")
            with ui.element("div").classes("examples"):
                for text, language in EXAMPLES:
                    button = Button(text, on_click=partial(ask, text))
                    button.classes("example").props(f'dir="auto" lang="{language}"').mark("example")

    def introduce(self, model: ServedModel) -> None:
        """Say which model answers."""
        self._greeting.text = (
            f"{model.name} answers here, a BLOOM with {compact(model.parameters)} parameters."
            " What you write goes to no other service."
        )
