"""The app: its health check, its headers, and an address at which there is nothing."""

import pytest
from nicegui.testing import User

from tests.ui.simulated import Site

pytestmark = pytest.mark.asyncio


async def test_the_health_check_and_the_headers(simulation: tuple[User, Site]) -> None:
    user, _ = simulation
    health = await user.http_client.get("/healthz")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    page = await user.http_client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    missing = await user.http_client.get("/nowhere")
    assert missing.status_code == 404
    assert "There is nothing at this address." in missing.text
