"""The style, the script and the logo of the pages.

The style and the script are kept in sections, and each is sent as one file: a page needs two
requests, however many sections there are. Their addresses change with their content, so that a
browser may keep them for good.
"""

import zlib
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response

STATIC = Path(__file__).with_name("static")
MAX_AGE_S = 365 * 24 * 3600

# In this order: of two rules that weigh the same, the later one counts.
STYLE_SECTIONS = (
    *("theme", "base", "nicegui", "controls", "header", "banner", "transcript", "prose", "code"),
    *("state", "jump", "welcome", "composer", "toast", "settings", "about", "motion"),
)
SCRIPT_SECTIONS = ("viewport", "signals", "length", "socket", "copy", "links", "follow")


def _joined(folder: str, sections: tuple[str, ...], ending: str) -> bytes:
    return b"\n".join((STATIC / folder / f"{name}{ending}").read_bytes() for name in sections)


STYLE = _joined("style", STYLE_SECTIONS, ".css")
SCRIPT = _joined("script", SCRIPT_SECTIONS, ".js")
LOGO_FILE = STATIC / "logo.svg"
LOGO = LOGO_FILE.read_text(encoding="utf-8")

_VERSION = f"{zlib.crc32(SCRIPT, zlib.crc32(STYLE)):08x}"
STYLE_URL = f"/assets/{_VERSION}/style.css"
SCRIPT_URL = f"/assets/{_VERSION}/chat.js"


def add_routes(app: FastAPI) -> None:
    """Serve the style and the script at their addresses."""
    headers = {"cache-control": f"public, max-age={MAX_AGE_S}, immutable"}

    @app.api_route(STYLE_URL, methods=["GET", "HEAD"], include_in_schema=False)
    async def style() -> Response:
        return Response(STYLE, media_type="text/css", headers=headers)

    @app.api_route(SCRIPT_URL, methods=["GET", "HEAD"], include_in_schema=False)
    async def script() -> Response:
        return Response(SCRIPT, media_type="text/javascript", headers=headers)
