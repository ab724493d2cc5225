"""How many pages may be open, and which of them make way for others.

A page is built before its browser opens a socket, and takes half a megabyte from then on. So pages
are built one at a time, and those whose socket does not come make way for others.
"""

import asyncio
import time
from collections.abc import Iterable

from nicegui import Client

from ui.asgi import HTML, AsgiApp, Message, Receive, Send, respond
from ui.guard.session import session_of, session_of_page
from ui.limits import PAGE_GRACE_S, PAGE_REQUESTS, PAGES, PAGES_OF_VISITOR, PAGES_WAITING

RETRY_S = 5
FULL = "Many people are here just now"
TOO_MANY = f"This browser has {PAGES_OF_VISITOR} chats open here"


class PageLimiter:
    """Middleware before the pages; must stand within the session's middleware."""

    def __init__(self, app: AsgiApp, paths: Iterable[str] = ()) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._building = asyncio.Lock()
        self._waiting = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request; those for a page wait for their turn."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        if self._waiting >= PAGE_REQUESTS:
            await _send_busy_page(send, FULL)
            return
        self._waiting += 1
        try:
            await self._building.acquire()
        except BaseException:
            self._waiting -= 1
            raise
        holds = True

        def let_next() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._waiting -= 1
                self._building.release()

        async def send_and_let_next(message: Message) -> None:
            let_next()
            await send(message)

        try:
            await asyncio.sleep(0)  # lets probes and the open pages come in between
            problem = make_room(session_of(scope), time.time())
            if problem is None:
                await self._app(scope, receive, send_and_let_next)
            else:
                let_next()
                await _send_busy_page(send, problem)
        finally:
            let_next()


def make_room(session: str | None, now: float) -> str | None:
    """Delete pages that must make way for one more; return why there is no room, if so."""
    pages = list(Client.instances.values())
    own = [page for page in pages if session and session_of_page(page) == session]
    if len(own) >= PAGES_OF_VISITOR and not _delete_one(own, now, grace=0):
        return TOO_MANY
    waiting = [page for page in pages if _has_no_socket_yet(page)]
    if len(waiting) >= PAGES_WAITING and not _delete_one(waiting, now, grace=PAGE_GRACE_S):
        return FULL
    if len(Client.instances) >= PAGES and not _delete_one(pages, now, grace=PAGE_GRACE_S):
        return FULL
    return None


def _has_no_socket_yet(page: Client) -> bool:
    """Tell whether a page's browser has opened no socket so far."""
    return page._pinned_tab_id is None


def _delete_one(pages: list[Client], now: float, grace: float) -> bool:
    """Delete a page without a socket: first the oldest one that never had any."""
    idle = [
        page
        for page in pages
        if not page.has_socket_connection
        and not page.is_deleted
        and page.created + (grace if _has_no_socket_yet(page) else 0) <= now
    ]
    if not idle:
        return False
    delete_page(min(idle, key=lambda page: (not _has_no_socket_yet(page), page.created)))
    return True


def delete_page(page: Client) -> None:
    """Delete a page now, also one that is to be deleted later."""
    for document in list(page._delete_tasks):
        page._cancel_delete_task(document)
    page.delete()


async def _send_busy_page(send: Send, sentence: str) -> None:
    """Send a page that costs nothing, and that loads itself again."""
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>piBLOOM</title>'
        f'<meta http-equiv="refresh" content="{RETRY_S}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>html{color-scheme:light dark}body{font:1.1rem system-ui;max-width:32rem;"
        "margin:20vh auto 0;padding:0 1rem}</style>"
        f"<h1>One moment</h1><p>{sentence}. This page tries again by itself.</p></html>"
    ).encode()
    headers = [(b"retry-after", str(RETRY_S).encode()), (b"cache-control", b"no-store")]
    await respond(send, 503, body, HTML, headers)
