"""The frame of every page."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import Site


@pytest.mark.parametrize(
    ("path", "title"), [("/", "piBLOOM"), ("/about", "About piBLOOM"), ("/nowhere", "Not found")]
)
async def test_every_page_has_a_title_and_leads_to_the_chat(
    simulation: tuple[User, Site], path: str, title: str
) -> None:
    user, _ = simulation
    page = (await user.http_client.get(path)).text
    assert f"<title>{title}</title>" in page
    assert "piBLOOM, the chat" in page
