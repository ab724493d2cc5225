"""The chat as a process, and browsers of bare HTTP and web sockets that may misbehave."""

import json
import os
import re
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[2]
SOCKET = "/_nicegui_ws/socket.io/"


class Chat:
    """A running chat."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.port, self.process, self._output = port, process, output
        self.url = f"http://127.0.0.1:{port}"

    def end(self) -> str:
        """End it, and return what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        return self.written()

    def written(self) -> str:
        """Return what it has written so far."""
        self._output.seek(0)
        return self._output.read().decode()


@contextmanager
def running(
    port: int, *, before: Callable[[], None] | None = None, **environ: str
) -> Iterator[Chat]:
    """Start the chat, without functions behind it."""
    with tempfile.TemporaryFile() as output:  # a pipe that nobody reads would hold it up
        process = subprocess.Popen(
            [sys.executable, "-m", "ui", "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"PIBLOOM_GENERATE_URL": "http://127.0.0.1:9"} | environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=before,
        )
        chat = Chat(port, process, output)
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    httpx.get(f"{chat.url}/healthz")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, chat.written()
                    assert time.monotonic() < until
                    time.sleep(0.05)  # nothing announces that a port is open
            yield chat
        finally:
            process.kill()
            process.wait()


class Browser:
    """A visitor with cookies, and one page."""

    def __init__(self, chat: Chat, tab: str | None = None) -> None:
        self.chat = chat
        self.http = httpx.Client(base_url=chat.url, timeout=20)
        self.tab = tab or str(uuid4())
        self.open()

    def open(self) -> None:
        """Load the page; its elements are in `elements`."""
        self.page = self.http.get("/")
        self.page.raise_for_status()
        found = re.search(r"'client_id': '([0-9a-f-]+)'", self.page.text)
        assert found
        self.client_id = found[1]
        number = re.search(r"'next_message_id': (\d+)", self.page.text)
        assert number
        self.next_message_id = number[1]
        text = re.search(r"parseElements\(String.raw`(.*?)`\)", self.page.text, re.DOTALL)
        assert text
        plain = text[1]
        for name, sign in {"&lt;": "<", "&gt;": ">", "&#96;": "`", "&#36;": "$"}.items():
            plain = plain.replace(name, sign)
        self.elements: dict[str, Any] = json.loads(plain.replace("&amp;", "&"))

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def query(self, **changes: str) -> str:
        """Return the address of the page's socket, as its own script makes it."""
        given = {
            "client_id": self.client_id,
            "next_message_id": self.next_message_id,
            "implicit_handshake": "true",
            "document_id": str(uuid4()),
            "tab_id": self.tab,
            "old_tab_id": "null",
            "EIO": "4",
            "transport": "websocket",
        }
        return f"{SOCKET}?{urlencode(given | changes)}"

    def connect(
        self, *, cookie: str | None = None, headers: dict[str, str] | None = None, **changes: str
    ) -> ClientConnection:
        """Open the web socket; the page is not named before `enter`."""
        given = {"Origin": self.chat.url, "Cookie": self.cookie if cookie is None else cookie}
        given |= headers or {}
        opened = connect(
            self.chat.url.replace("http", "ws") + self.query(**changes),
            additional_headers={name: value for name, value in given.items() if value},
            proxy=None,
            open_timeout=10,
            max_size=None,
        )
        return opened.__enter__()  # the tests close it

    def enter(self, **named: Any) -> ClientConnection:
        """Open the socket and name the page."""
        socket = self.connect(**named)
        assert str(socket.recv(timeout=10)).startswith("0{")
        socket.send("40")
        answer = str(socket.recv(timeout=10))
        assert answer.startswith("40{"), answer
        return socket

    def element(self, component: str) -> tuple[int, dict[str, Any]]:
        """Return the first element whose tag or component is named so."""
        for number, element in self.elements.items():
            if component in (element.get("component") or element["tag"]):
                return int(number), element
        raise AssertionError(component)

    def listener(self, number: int, kind: str) -> str:
        """Return the id of an element's listener."""
        events = self.elements[str(number)]["events"]
        return next(str(e["listener_id"]) for e in events if kind in e["type"])


@contextmanager
def running_silently(port: int, **how: Any) -> Iterator[Chat]:
    """Start the chat; at the end it must have written nothing."""
    with running(port, **how) as chat:
        yield chat
        output = "\n".join(lines_of(chat.end()))
        assert output == "", output[:3000]


def ask(chat: Chat, data: bytes, seconds: float = 2.0) -> bytes:
    """Send bytes, and return what comes until the connection is closed or silent."""
    with sockets.create_connection(("127.0.0.1", chat.port), timeout=10) as connection:
        with suppress(OSError):
            connection.sendall(data)
        connection.settimeout(seconds)
        got = b""
        with suppress(OSError):
            while more := connection.recv(65536):
                got += more
        return got


def resident(chat: Chat) -> int:
    """Return the bytes that the chat holds."""
    status = Path(f"/proc/{chat.process.pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


def event(name: str, content: object) -> str:
    """Return a packet."""
    return f"42{json.dumps([name, content])}"


def everything(socket: ClientConnection, seconds: float = 1.0) -> list[str]:
    """Return what arrives until nothing more does, or the socket is closed."""
    got = []
    try:
        while True:
            got.append(str(socket.recv(timeout=seconds)))
    except TimeoutError:
        return got
    except Exception:  # closed
        return [*got, "closed"]


def lines_of(output: str) -> list[str]:
    """Return what the chat wrote, but for what it says of its functions."""
    lines = output.splitlines()
    return [line for line in lines if not re.fullmatch(r"(generate|tokenize): [\w, ]+", line)]


def theme_click(browser: Browser, client_id: str | None = None) -> str:
    """A press on a button that shows: the theme's."""
    number = next(
        int(n)
        for n, e in browser.elements.items()
        if e["tag"] == "button" and (e.get("props") or {}).get("aria-pressed") == "false"
    )
    return event("event", click_of(browser, number, client_id))


def click_of(browser: Browser, number: int, client_id: str | None = None) -> dict[str, object]:
    """Return the content of a press on a button."""
    return {
        "id": number,
        "client_id": client_id or browser.client_id,
        "listener_id": browser.listener(number, "click"),
        "args": ["{}"],
    }


def draft_event(browser: Browser, text: str) -> str:
    """A text that is typed into the composer."""
    number = next(
        int(n)
        for n, e in browser.elements.items()
        if (e.get("props") or {}).get("placeholder") == "Message piBLOOM"
    )
    content = {
        "id": number,
        "client_id": browser.client_id,
        "listener_id": browser.listener(number, "update"),
        "args": [json.dumps(text)],
    }
    return event("event", content)
