"""How many pages may be open, how much is kept of them, and what makes way when it is too much.

A page is built before its browser opens a socket, and costs half a megabyte from then on. So they
are built one at a time, with a look at everything else in between, and those whose socket does not
come make way for others.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nicegui import Client, app, background_tasks, core
from nicegui.storage import Storage

from ui.gate import ENTRY, AsgiApp, Message, Receive, Send, session_of, session_of_page
from ui.limits import (
    PAGE_GRACE_S,
    PAGE_REQUESTS,
    PAGES,
    PAGES_OF_VISITOR,
    PAGES_WAITING,
    TAB_BYTES,
    TABS,
    VISITOR_FILES,
)

SWEEP_S = 5.0
RETRY_S = 5
FULL = "Many people are here just now"
TOO_MANY = f"This browser has {PAGES_OF_VISITOR} chats open here"


class Pages:
    """Middleware before the pages; must stand within the session's middleware."""

    def __init__(self, app: AsgiApp, paths: Iterable[str] = ()) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._building = asyncio.Lock()
        self._asked = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request; those for a page wait for their turn."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        if self._asked >= PAGE_REQUESTS:
            await _busy(send, FULL)
            return
        self._asked += 1
        try:
            await self._building.acquire()
        except BaseException:
            self._asked -= 1
            raise
        waits = True

        def done() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._asked -= 1
                self._building.release()

        async def built(message: Message) -> None:
            done()
            await send(message)

        try:
            await asyncio.sleep(0)  # probes and the pages that are open come in between
            problem = make_room(session_of(scope), time.time())
            if problem is None:
                await self._app(scope, receive, built)
            else:
                done()
                await _busy(send, problem)
        finally:
            done()


def make_room(session: str | None, now: float) -> str | None:
    """Delete pages that must make way for one more; return why there is no room, if so."""
    pages = list(Client.instances.values())
    own = [page for page in pages if session and session_of_page(page) == session]
    if len(own) >= PAGES_OF_VISITOR and not _delete_one(own, now, grace=0):
        return TOO_MANY
    waiting = [page for page in pages if _waits(page)]
    if len(waiting) >= PAGES_WAITING and not _delete_one(waiting, now, grace=PAGE_GRACE_S):
        return FULL
    if len(Client.instances) >= PAGES and not _delete_one(pages, now, grace=PAGE_GRACE_S):
        return FULL
    return None


def _waits(page: Client) -> bool:
    """Tell whether a page has had no socket yet."""
    return page._pinned_tab_id is None


def _delete_one(pages: list[Client], now: float, grace: float) -> bool:
    """Delete the page that can be missed the most: without a socket, the oldest first."""
    idle = [
        page
        for page in pages
        if not page.has_socket_connection
        and not page.is_deleted
        and page.created + (grace if _waits(page) else 0) <= now
    ]
    if not idle:
        return False
    delete(min(idle, key=lambda page: (not _waits(page), page.created)))
    return True


def delete(page: Client) -> None:
    """Delete a page now, also one that is to be deleted later."""
    for document in list(page._delete_tasks):
        page._cancel_delete_task(document)
    page.delete()


async def keep_house() -> None:
    """Forget what is too much, every few seconds; runs until it is cancelled."""
    files_seen = 0.0
    while True:
        await asyncio.sleep(SWEEP_S)
        forget_tabs()
        await close_nameless_sockets()
        if time.monotonic() > files_seen + 60:
            files_seen = time.monotonic()
            await asyncio.to_thread(forget_visitors, Storage.path, VISITOR_FILES)


def forget_tabs(most: int = TABS, most_bytes: int = TAB_BYTES) -> None:
    """Forget the chats that were touched the longest ago, those of closed tabs first."""
    tabs = app.storage._tabs
    opened = {page.tab_id: page for page in Client.instances.values() if page.tab_id}
    oldest = sorted(tabs, key=lambda tab: (tab in opened, tabs[tab].last_modified))
    sizes = {tab: size_of(tabs[tab]) for tab in oldest}
    total, left = sum(sizes.values()), len(oldest)
    for tab in oldest:
        if left <= most and total <= most_bytes:
            return
        left -= 1
        total -= sizes[tab]
        del tabs[tab]
        if tab in opened:  # its browser loads the page anew, and finds an empty chat
            background_tasks.create(_close(opened[tab]), name="close a page")


async def _close(page: Client) -> None:
    sids = [sid for sid, _ in core.sio.manager.get_participants("/", page.id)]
    if not page.is_deleted:
        delete(page)
    for sid in sids:
        await core.sio.disconnect(sid)


def size_of(value: Any) -> int:
    """Return the bytes that a stored value's texts take."""
    if isinstance(value, str):
        return sys.getsizeof(value)
    if isinstance(value, dict):
        return 64 + sum(64 + size_of(item) for item in value.values())
    if isinstance(value, list):
        return 64 + sum(size_of(item) for item in value)
    return 32


async def close_nameless_sockets() -> None:
    """Close long polls that have not named their page in time; web sockets see to it themselves."""
    for sid in list(core.sio.eio.sockets):
        environ = core.sio.environ.get(sid)
        entry = environ["asgi.scope"].get(ENTRY) if environ else None
        if entry is not None and entry.patience == 0:
            background_tasks.create(_end(sid), name="close a socket")


async def _end(sid: str) -> None:
    socket = core.sio.eio.sockets.get(sid)
    if socket is not None:
        await socket.close(wait=False)
        core.sio.eio.sockets.pop(sid, None)


def forget_visitors(folder: Path, most: int) -> None:
    """Delete the settings of the visitors who changed them the longest ago."""
    files = []
    for file in folder.glob("storage-user-*.json"):
        try:
            files.append((file.stat().st_mtime, file))
        except FileNotFoundError:
            continue
    files.sort()
    for _, file in files[: max(0, len(files) - most)]:
        file.unlink(missing_ok=True)


async def _busy(send: Send, sentence: str) -> None:
    """Send a page that costs nothing, and that loads itself anew."""
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>piBLOOM</title>'
        f'<meta http-equiv="refresh" content="{RETRY_S}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>html{color-scheme:light dark}body{font:1.1rem system-ui;max-width:32rem;"
        "margin:20vh auto 0;padding:0 1rem}</style>"
        f"<h1>One moment</h1><p>{sentence}. This page tries again by itself.</p></html>"
    ).encode()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_S).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
