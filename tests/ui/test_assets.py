"""The style and the script: every section is sent, in one file each, to be kept for good."""

from nicegui.testing import User

from tests.ui.simulated import Site
from ui import assets


def test_every_section_is_sent() -> None:
    for folder, sections in (("style", assets.STYLE_SECTIONS), ("script", assets.SCRIPT_SECTIONS)):
        assert {file.stem for file in (assets.STATIC / folder).iterdir()} == set(sections)
        assert len(sections) == len(set(sections))
    for content, name in ((assets.STYLE, "style/about.css"), (assets.SCRIPT, "script/copy.js")):
        assert (assets.STATIC / name).read_bytes() in content


async def test_a_page_names_both_and_a_browser_may_keep_them(
    simulation: tuple[User, Site],
) -> None:
    user, _ = simulation
    page = (await user.http_client.get("/")).text
    for url, content, media_type in (
        (assets.STYLE_URL, assets.STYLE, "text/css; charset=utf-8"),
        (assets.SCRIPT_URL, assets.SCRIPT, "text/javascript; charset=utf-8"),
    ):
        assert page.count(url) == 1
        answer = await user.http_client.get(url)
        assert (answer.content, answer.headers["content-type"]) == (content, media_type)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        head = await user.http_client.head(url)
        assert (head.status_code, head.headers) == (200, answer.headers)
