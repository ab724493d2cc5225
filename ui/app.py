"""Puts the pages, the assets and the health check into NiceGUI's app."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from nicegui import Client, app, ui

from ui.about import AboutPage
from ui.chat import ChatPage, Tabs, Timing
from ui.client import Functions
from ui.frame import STATIC, VIEWPORT, Text, asset_version, brand, dress

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

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


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


def build(functions: Functions, timing: Timing | None = None) -> Tabs:
    """Register everything with NiceGUI's app; return the table of open tabs."""
    tabs = Tabs()
    patience = timing or Timing()
    app.storage.max_tab_storage_age = CHAT_AGE_S
    app.add_middleware(Guarded)
    app.add_static_files(f"/assets/{asset_version()}", STATIC, max_cache_age=31_536_000)
    app.on_shutdown(functions.aclose)

    @ui.page("/", title="piBLOOM", viewport=VIEWPORT)
    async def chat() -> None:
        await ChatPage(functions, tabs, patience).run()

    @ui.page("/about", title="About piBLOOM", viewport=VIEWPORT)
    async def about() -> None:
        await AboutPage(functions).run()

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @app.exception_handler(404)
    async def not_found(request: Request, exception: Exception) -> Response:
        with Client(ui.page("", title="Not found", viewport=VIEWPORT), request=request) as client:
            dress("Not found")
            with ui.element("header").classes("top"):
                brand()
            with (
                ui.element("main").classes("scroll"),
                ui.element("div").classes("column-text about"),
            ):
                Text("There is nothing at this address.", "h1")
                with ui.element("p"), ui.element("a").props('href="/"'):
                    Text("Back to the chat")
        return client.build_response(request, 404)

    return tabs
