"""What the function says of itself."""

import pytest

from tests.ui.fake_functions import Fake
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.status import FunctionStatus, parse_status
from ui.settings import Settings


async def test_about_reads_the_model_and_its_absence(fake: Fake) -> None:
    functions = FunctionsClient(Settings(fake.generate_url, fake.tokenize_url))
    status = await functions.status()
    assert status.model is not None
    assert (status.state, status.model.name, status.model.max_context) == (
        "ready",
        "pibloom-demo",
        512,
    )
    fake.ready = False
    assert await functions.status() == FunctionStatus("loading", None)
    with pytest.raises(FunctionError, match="still being loaded"):
        await functions.check_ready()
    await functions.aclose()


def test_the_card_is_told_in_words() -> None:
    fields = {
        "name": "bloomz-560m+mine",
        "adapter": {"name": "mine", "base": "bigscience/bloomz-560m", "rank": 8},
        "calibration": {"tokens": 4096, "source": "its own text"},
        "cut": {"kept": ["Latin", "Han"], "entries_before": 250_680, "entries_after": 46_145},
        "baked_with": "0.1.0",
        "baked_by": "Ada",
    }
    model = parse_status({"model": fields}).model
    assert model is not None
    assert model.adapter == "mine, trained on bigscience/bloomz-560m"
    assert model.calibration == "4,096 tokens of its own text"
    assert model.vocabulary == "cut to 46,145 of 250,680 entries: Latin, Han"
    assert model.baked == "with piBLOOM 0.1.0, by Ada"
    assert model.revision == model.chat_origin == ""


@pytest.mark.parametrize(
    "value", [None, 5, "text", [], [[]], {}, {"name": {}, "kept": 3}, "x" * 9999]
)
@pytest.mark.parametrize(
    "name", ["adapter", "calibration", "cut", "revision", "baked_by", "source"]
)
def test_a_strange_card_breaks_nothing(name: str, value: object) -> None:
    model = parse_status({"model": {"name": "m", name: value}}).model
    assert model is not None
    assert all(len(text) <= 520 for text in vars(model).values() if isinstance(text, str))
