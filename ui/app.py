"""Puts the pages, the assets and the health check into NiceGUI's app."""

from collections.abc import Iterable

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from nicegui import app, core, ui

from ui import gate
from ui.about import AboutPage
from ui.chat import ChatPage, Tabs, Timing
from ui.client import Functions
from ui.frame import LOGO, STATIC, VIEWPORT, asset_version
from ui.gate import AsgiApp, Message, Receive, Send
from ui.pages import Pages
from ui.server import PROBE_PATH

FAVICON = STATIC / "logo.svg"

# The page loads nothing from elsewhere, and the browser sees to it. Vue compiles its templates in
# the browser, hence 'unsafe-eval'; a reply's own markup never becomes a script (see markdown.py).
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]

CHAT_AGE_S = 7 * 24 * 3600.0  # a chat that nobody has touched for so long is forgotten


class Guarded:
    """Adds the headers that keep a browser from loading anything foreign."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def build(functions: Functions, timing: Timing | None = None, origins: Iterable[str] = ()) -> Tabs:
    """Register everything with NiceGUI's app; return the table of open tabs.

    `origins` are addresses of the chat that its Host header does not tell.
    """
    tabs = Tabs()
    patience = timing or Timing()
    app.storage.max_tab_storage_age = CHAT_AGE_S
    gate.install()
    core.sio.eio.cors_allowed_origins = []  # the gate looks at the origin; no header allows one
    app.add_middleware(Pages, paths=("/", "/about"))
    app.add_middleware(gate.Gate, origins=origins)
    app.add_middleware(Guarded)
    app.add_static_files(f"/assets/{asset_version()}", STATIC, max_cache_age=31_536_000)
    app.on_shutdown(functions.aclose)

    @ui.page("/", title="piBLOOM", viewport=VIEWPORT)
    async def chat() -> None:
        await ChatPage(functions, tabs, patience).run()

    @ui.page("/about", title="About piBLOOM", viewport=VIEWPORT)
    async def about() -> None:
        await AboutPage(functions).run()

    @app.get(PROBE_PATH)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    missing = _missing()

    @app.exception_handler(404)
    async def not_found(request: Request, exception: Exception) -> Response:
        return HTMLResponse(missing, 404)

    return tabs


def _missing() -> str:
    """Return the page for an address at which there is nothing; it costs no page of NiceGUI's."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
        f'<meta name="viewport" content="{VIEWPORT}">'
        f'<link rel="stylesheet" href="/assets/{asset_version()}/style.css"></head><body>'
        '<header class="top"><a class="brand" href="/" aria-label="piBLOOM, the chat">'
        f'<span class="brand-logo" aria-hidden="true">{LOGO}</span>'
        '<span class="brand-name">pi<b>BLOOM</b></span></a></header>'
        '<main class="scroll"><div class="column-text about">'
        '<h1>There is nothing at this address.</h1><p><a href="/">Back to the chat</a></p>'
        "</div></main></body></html>"
    )
