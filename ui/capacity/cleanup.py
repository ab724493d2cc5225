"""Forgets the oldest chats, settings and sockets when there are too many."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from nicegui import Client, app, background_tasks, core
from nicegui.storage import Storage

from ui.capacity.page_limit import delete_page
from ui.guard.session import entry_of
from ui.limits import TAB_BYTES, TABS, VISITOR_FILES

SWEEP_S = 5.0  # between two looks at tabs and sockets
FILES_S = 60.0  # between two looks at the files of visitors


async def clean_up_forever() -> None:
    """Forget what exceeds a limit, every few seconds; runs until it is cancelled."""
    files_seen = 0.0
    while True:
        await asyncio.sleep(SWEEP_S)
        forget_oldest_tabs()
        await close_unbound_sockets()
        if time.monotonic() > files_seen + FILES_S:
            files_seen = time.monotonic()
            await asyncio.to_thread(forget_oldest_visitors, Storage.path, VISITOR_FILES)


def forget_oldest_tabs(most: int = TABS, most_bytes: int = TAB_BYTES) -> None:
    """Forget chats until both limits hold: of closed tabs first, the least recently used first."""
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
        if tab in opened:  # its browser loads the page again, with an empty chat
            background_tasks.create(_close_page(opened[tab]), name="close a page")


async def _close_page(page: Client) -> None:
    sids = [sid for sid, _ in core.sio.manager.get_participants("/", page.id)]
    if not page.is_deleted:
        delete_page(page)
    for sid in sids:
        await core.sio.disconnect(sid)


def size_of(value: Any) -> int:
    """Return about how many bytes a stored value takes."""
    if isinstance(value, str):
        return sys.getsizeof(value)
    if isinstance(value, dict):
        return 64 + sum(64 + size_of(item) for item in value.values())
    if isinstance(value, list):
        return 64 + sum(size_of(item) for item in value)
    return 32


async def close_unbound_sockets() -> None:
    """Close long polls that have not named their page in time; `CheckedFrames` closes sockets."""
    for sid in list(core.sio.eio.sockets):
        entry = entry_of(sid)
        if entry is not None and entry.seconds_left == 0:
            background_tasks.create(_close_socket(sid), name="close a socket")


async def _close_socket(sid: str) -> None:
    socket = core.sio.eio.sockets.get(sid)
    if socket is not None:
        await socket.close(wait=False)
        core.sio.eio.sockets.pop(sid, None)


def forget_oldest_visitors(folder: Path, most: int) -> None:
    """Delete settings until `most` visitors remain: the least recently changed first."""
    files = []
    for file in folder.glob("storage-user-*.json"):
        try:
            files.append((file.stat().st_mtime, file))
        except FileNotFoundError:
            continue
    files.sort()
    for _, file in files[: max(0, len(files) - most)]:
        file.unlink(missing_ok=True)
