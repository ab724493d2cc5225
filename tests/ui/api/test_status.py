"""What the function says of itself."""

import pytest

from tests.ui.fake_functions import Fake
from ui.api.client import FunctionsClient
from ui.api.errors import FunctionError
from ui.api.status import FunctionStatus
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
