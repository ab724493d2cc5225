"""The About page: BLOOM, the model that is loaded, and honest words."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import PATIENCE, Site

pytestmark = pytest.mark.asyncio


async def test_it_tells_what_bloom_is_and_which_model_answers(
    simulation: tuple[User, Site],
) -> None:
    user, _ = simulation
    await user.open("/about")
    for words in ("46 natural languages", "13 programming languages", "RAIL", "BigScience"):
        await user.should_see(words)
    for fact in ("pibloom-demo", "5.8 million", "23.2 MB", "512 tokens", "reference, float32"):
        await user.should_see(fact, retries=PATIENCE)
    await user.should_see("This is a demonstration model.")


async def test_a_real_model_is_not_called_a_demonstration(
    simulation: tuple[User, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ui import fake_functions

    user, _ = simulation
    monkeypatch.setitem(fake_functions.MODEL, "parameters", 559_214_592)
    await user.open("/about")
    await user.should_see("559.2 million", retries=PATIENCE)
    await user.should_not_see("This is a demonstration model.")


async def test_a_model_that_is_still_loading_is_said_to_be(simulation: tuple[User, Site]) -> None:
    user, site = simulation
    site.fake.ready = False
    await user.open("/about")
    await user.should_see("still being loaded", retries=PATIENCE)


async def test_the_models_card_is_shown_as_text(
    simulation: tuple[User, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.ui import fake_functions

    user, _ = simulation
    await user.open("/about")
    await user.should_see("pibloom-demo", retries=PATIENCE)
    for absent in ("Adapter", "Vocabulary", "Baked", "Revision"):
        await user.should_not_see(absent)
    monkeypatch.setitem(fake_functions.MODEL, "revision", "c" * 40)
    monkeypatch.setitem(fake_functions.MODEL, "baked_by", "<img src=x>")
    await user.open("/about")
    await user.should_see("c" * 12, retries=PATIENCE)
    await user.should_see("by <img src=x>")
