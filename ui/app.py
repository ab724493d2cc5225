"""Puts the pages, the assets and the health check into NiceGUI's app."""

from collections.abc import Iterable

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from nicegui import app, core, ui

from ui import assets
from ui.about import AboutPage
from ui.api.client import FunctionsClient
from ui.capacity.page_limit import PageLimiter
from ui.chat.page import ChatPage
from ui.chat.tabs import Tabs
from ui.chat.timing import Timing
from ui.elements.frame import VIEWPORT
from ui.guard import handlers
from ui.guard.gate import SocketGate
from ui.guard.headers import SecurityHeaders
from ui.server.http import PROBE_PATH

CHAT_AGE_S = 7 * 24 * 3600.0  # a chat that was not used for so long is forgotten


def build(
    functions: FunctionsClient, timing: Timing | None = None, origins: Iterable[str] = ()
) -> Tabs[ChatPage]:
    """Register everything with NiceGUI's app; return the table of open tabs.

    `origins` are addresses of the chat behind a proxy that changes the Host header.
    """
    tabs = Tabs[ChatPage]()
    waits = timing or Timing()
    app.storage.max_tab_storage_age = CHAT_AGE_S
    handlers.install()
    core.sio.eio.cors_allowed_origins = []  # SocketGate checks the origin; no header allows any
    app.add_middleware(PageLimiter, paths=("/", "/about"))
    app.add_middleware(SocketGate, origins=origins)
    app.add_middleware(SecurityHeaders)
    assets.add_routes(app)
    app.on_shutdown(functions.aclose)

    @ui.page("/", title="piBLOOM", viewport=VIEWPORT)
    async def chat() -> None:
        await ChatPage(functions, tabs, waits).run()

    @ui.page("/about", title="About piBLOOM", viewport=VIEWPORT)
    async def about() -> None:
        await AboutPage(functions).run()

    @app.get(PROBE_PATH)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    missing = _missing_page()

    @app.exception_handler(404)
    async def not_found(request: Request, exception: Exception) -> Response:
        return HTMLResponse(missing, 404)

    return tabs


def _missing_page() -> str:
    """Return the page for an address at which there is nothing; it is no page of NiceGUI's."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
        f'<meta name="viewport" content="{VIEWPORT}">'
        f'<link rel="stylesheet" href="{assets.STYLE_URL}"></head><body>'
        '<header class="top"><a class="brand" href="/" aria-label="piBLOOM, the chat">'
        f'<span class="brand-logo" aria-hidden="true">{assets.LOGO}</span>'
        '<span class="brand-name">pi<b>BLOOM</b></span></a></header>'
        '<main class="scroll"><div class="column-text about">'
        '<h1>There is nothing at this address.</h1><p><a href="/">Back to the chat</a></p>'
        "</div></main></body></html>"
    )
