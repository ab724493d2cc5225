"""What BLOOM is, which model answers here, and what may be expected of it."""

from nicegui import background_tasks, ui

from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.status import ServedModel
from ui.elements.basic import Icon, Text
from ui.elements.frame import add_brand, add_page_head
from ui.format import byte_size, compact

LICENSE_URL = "https://huggingface.co/spaces/bigscience/license"
PAPER_URL = "https://arxiv.org/abs/2211.05100"
# The demo model is recognized by its size: the smallest published BLOOM has 559 million.
SMALLEST_BLOOM = 500_000_000


class AboutPage:
    """The page; the facts about the model arrive when the function has given them."""

    def __init__(self, functions: FunctionsClient) -> None:
        self._functions = functions
        self._client = ui.context.client
        add_page_head("About piBLOOM")
        with ui.element("header").classes("top"):
            add_brand()
            ui.element("div").classes("space")
            with ui.element("a").classes("button").props('href="/"').mark("back"):
                Icon("back")
                Text("Back to the chat")
        with (
            ui.element("main").classes("scroll").props('tabindex="-1"'),
            ui.element("div").classes("column-text about"),
        ):
            self._build()

    def _build(self) -> None:
        Text("About piBLOOM", "h1")
        Text(
            "A chat with BLOOM, the open multilingual language model, on a few Raspberry Pis or"
            " on one computer. What you write goes to the machines that run this page, and nowhere"
            " else.",
            "p",
        ).classes("lead")
        Text("The model that answers here", "h2")
        self._facts = ui.element("div").mark("facts")
        with self._facts:
            Text("Asking the model…", "p")
        _add_bloom()
        _add_abilities()
        _add_privacy()

    async def run(self) -> None:
        """Fill in the facts about the model."""
        await self._client.connected(timeout=30)
        background_tasks.create(self._fill(), name="about the model")

    async def _fill(self) -> None:
        try:
            model, problem = (await self._functions.status()).model, ""
        except FunctionError as error:
            model, problem = None, error.message
        if self._client.is_deleted:
            return
        self._facts.clear()
        with self._facts:
            if model is None:
                Text(problem or "The model is still being loaded. Look again in a moment.", "p")
            else:
                _add_facts(model)


def _add_bloom() -> None:
    """Say what BLOOM is, and under which licence."""
    Text("What BLOOM is", "h2")
    Text(
        "BLOOM is a language model that continues text. More than a thousand researchers"
        " of the BigScience workshop trained it in the open, in 2022, on the Jean Zay"
        " supercomputer in France. It learned 46 natural languages, from Arabic, Chinese and"
        " Hindi to Swahili and Yoruba, and 13 programming languages. It comes in sizes from"
        " 560 million to 176 billion parameters; the smaller ones suit a Raspberry Pi. BLOOMZ"
        " is the same model, further trained to follow instructions.",
        "p",
    )
    with ui.element("p"):
        Text("The weights of the real models are published under the ")
        with ui.element("a").props(f'href="{LICENSE_URL}" rel="noopener noreferrer"'):
            Text("BigScience RAIL licence")
        Text(
            ": everyone may use, share and change them, but not for the harmful uses that it"
            " lists. How BLOOM was made is described in "
        )
        with ui.element("a").props(f'href="{PAPER_URL}" rel="noopener noreferrer"'):
            Text("its paper")
        Text(".")


def _add_abilities() -> None:
    """Say what may be expected of it."""
    with ui.element("div").classes("pair"):
        with ui.element("div"):
            Text("What it can do", "h2")
            _add_list(
                "Continue a text or a conversation in many languages.",
                "Greet, chat, tell a short story, answer a simple question.",
                "Give the same reply again, from the same seed and settings.",
            )
        with ui.element("div"):
            Text("What it cannot do", "h2")
            _add_list(
                "Know what is true: it writes what sounds likely, also when it is wrong.",
                "Look things up, remember other chats, or learn from this one.",
                "Replace advice on health, law or money.",
            )


def _add_privacy() -> None:
    """Say where a chat is kept."""
    Text("Your words", "h2")
    Text(
        "A chat belongs to one browser tab. It is kept in the memory of the chat's server so"
        " that it survives a reload, it is not written to a log, and other tabs and other"
        " people never see it. This page loads nothing from other sites.",
        "p",
    )


def _add_facts(model: ServedModel) -> None:
    with ui.element("dl").classes("facts"):
        for name, value in (
            ("Name", model.name),
            ("Parameters", compact(model.parameters)),
            ("Size", byte_size(model.size_bytes)),
            ("Context", f"{model.max_context:,} tokens"),
            ("Layers", str(model.layers)),
            ("Width", f"{model.hidden:,}, in {model.heads} heads"),
            ("Engine", f"{model.engine}, {model.dtype}"),
            ("Licence of the weights", model.license or "not stated"),
            ("Revision", model.revision[:12]),
            ("Made of", model.source),
            ("Adapter", model.adapter),
            ("Calibrated on", model.calibration),
            ("Vocabulary", model.vocabulary),
            ("Chat template", model.chat_origin),
            ("Baked", model.baked),
        ):
            if not value:
                continue  # most models have no adapter, no cut and the like
            with ui.element("div"):
                Text(name, "dt")
                Text(value, "dd")
    if 0 < model.parameters < SMALLEST_BLOOM:
        with ui.element("div").classes("callout").mark("demo-note"):
            Text("This is a demonstration model.", "p").style("font-weight: 650")
            Text(
                "It has BLOOM's architecture, but it is far smaller than any published BLOOM:"
                " piBLOOM trained it itself, on short texts in a few languages, so that a first"
                " chat works without a large download. It greets, adds small numbers, tells short"
                " stories and knows what piBLOOM is. Beyond that it makes things up, or loses"
                " the thread. Judge BLOOM by a real checkpoint, not by this one.",
                "p",
            )


def _add_list(*items: str) -> None:
    with ui.element("ul"):
        for item in items:
            Text(item, "li")
