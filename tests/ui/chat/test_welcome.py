"""The empty chat."""

import pytest
from nicegui.testing import User
from nicegui.testing.user_interaction import UserInteraction

from tests.ui.simulated import Site, see

pytestmark = pytest.mark.asyncio


async def test_an_example_is_one_press_away(user: User, site: Site) -> None:
    examples = user.find(marker="example").elements
    assert {"en", "ar", "zh"} <= {example.props["lang"] for example in examples}
    assert all(example.props["dir"] == "auto" for example in examples)
    (chinese,) = (example for example in examples if example.props["lang"] == "zh")
    UserInteraction(user, {chinese}, None).click()
    await see(user, "我是 piBLOOM")
    assert site.fake.requests[0]["messages"][0]["content"].startswith("你是谁")
