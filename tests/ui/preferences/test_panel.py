"""The settings panel."""

import pytest
from nicegui import ui
from nicegui.testing import User

from tests.ui.simulated import Site, see, send

pytestmark = pytest.mark.asyncio


async def test_settings_go_into_the_request_and_survive_a_reload(user: User, site: Site) -> None:
    user.find(marker="settings").click()
    for name, value in (
        ("temperature", 0.0),
        ("top_p", 0.5),
        ("top_k", 7),
        ("min_p", 0.25),
        ("max_new_tokens", 32),
    ):
        (number,) = user.find(marker=name).elements
        assert isinstance(number, ui.number)
        number.value = value
    user.find(marker="seed").type(str(2**63 - 1))
    await user.open("/")
    await see(user, "What shall we talk about?")
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    sent = site.fake.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"]) == (0, 0.5, 7, 0.25)
    assert (sent["max_new_tokens"], sent["seed"]) == (32, 2**63 - 1)
    await see(user, "seed 9223…5807")


async def test_reset_goes_back_to_the_defaults(user: User, site: Site) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="temperature").elements
    assert isinstance(number, ui.number)
    number.value = 0.1
    user.find(marker="seed").type("5")
    user.find(marker="reset").click()
    assert number.value == 0.8
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert site.fake.requests[0]["temperature"] == 0.8
    assert "seed" not in site.fake.requests[0]


async def test_a_setting_that_is_left_empty_shows_what_is_in_force(user: User) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="max_new_tokens").elements
    assert isinstance(number, ui.number)
    number.value = None
    user.find(marker="max_new_tokens").trigger("blur")
    assert number.value == 256


@pytest.mark.parametrize("bad", [99.0, -1.0, float("nan"), None])
async def test_a_setting_out_of_its_limits_is_never_sent(
    user: User, site: Site, bad: float | None
) -> None:
    user.find(marker="settings").click()
    (number,) = user.find(marker="temperature").elements
    assert isinstance(number, ui.number)
    number.value = bad
    user.find(marker="seed").type("not a number")
    await see(user, "A whole number from 0 to")
    send(user, "Hello")
    await see(user, "Hello! I am piBLOOM.")
    assert site.fake.requests[0]["temperature"] == 0.8
    assert "seed" not in site.fake.requests[0]
