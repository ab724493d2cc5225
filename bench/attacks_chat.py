"""What a hostile client can do to the chat: python -m bench.attacks_chat [--at FOLDER] [--write].

Starts `python -m ui` of the folder for each attack, attacks it on the loopback interface, probes it
as Kubernetes does meanwhile, and tells its memory. Each attack is bounded: at most 1,200
connections, 800 pages or 40 MB sent, and 25 s.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import httpx

RESULTS = Path(__file__).with_name("results")
LIMIT_MIB = 512  # of the manifest
PROBE_S = 0.5
SOCKET = "/_nicegui_ws/socket.io/"
LONGEST_S = 25.0


@dataclass
class Report:
    """What was seen during one attack."""

    seconds: float = 0.0
    peak_mib: float = 0.0
    rest_mib: float = 0.0
    probes: list[float] = field(default_factory=list)  # seconds; 10 and more is a failed one
    reported: str = ""


@dataclass
class Chat:
    """The chat under attack."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def mib(self) -> float:
        """Return the memory that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def page_of(client: httpx.AsyncClient, chat: Chat) -> tuple[str, str, str]:
    """Load a page as a new visitor; return its id, its cookie and its text."""
    answer = await client.get(chat.url, headers={"Cookie": ""})
    answer.raise_for_status()
    found = re.search(r"'client_id': '([0-9a-f-]+)'", answer.text)
    assert found
    return found[1], answer.headers["set-cookie"].split(";")[0], answer.text


async def web_socket(
    chat: Chat, client_id: str, cookie: str, more: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a page's web socket with bare bytes."""
    query = {
        "client_id": client_id,
        "next_message_id": "0",
        "implicit_handshake": "true",
        "document_id": str(uuid4()),
        "tab_id": str(uuid4()),
        "EIO": "4",
        "transport": "websocket",
    }
    reader, writer = await asyncio.open_connection("127.0.0.1", chat.port)
    writer.write(
        f"GET {SOCKET}?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1:{chat.port}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {cookie}\r\n{more}\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(data: bytes, first: int = 0x81) -> bytes:
    """Return a client's frame, with a mask of zeros."""
    size = len(data)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + b"\x00" * 4 + data


async def pages(chat: Chat, report: Report) -> None:
    """800 pages whose socket never comes."""
    counts: dict[int, int] = {}
    async with httpx.AsyncClient(timeout=30) as client:

        async def load() -> None:
            for _ in range(8):
                try:
                    status = (await client.get(chat.url, headers={"Cookie": ""})).status_code
                except httpx.HTTPError:
                    status = 0
                counts[status] = counts.get(status, 0) + 1

        await asyncio.gather(*(load() for _ in range(100)))
    report.reported = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))


async def drafts(chat: Chat, report: Report) -> None:
    """160 tabs with a draft of 900 kB each."""
    opened, refused = [], 0
    async with httpx.AsyncClient(timeout=30) as client:
        for _ in range(160):
            try:
                client_id, cookie, text = await page_of(client, chat)
                found = re.search(r'"(\d+)":\{(?:(?!"\d+":\{).)*Message piBLOOM', text, re.DOTALL)
                assert found
                listener = re.search(
                    r'listener_id":"([0-9a-f-]+)","type":"update:value"', text[found.start() :]
                ) or re.search(
                    r'"type":"update:value","specials":\[[^]]*\][^}]*?listener_id":"([^"]+)"',
                    text[found.start() :],
                )
                reader, writer = await web_socket(chat, client_id, cookie)
                writer.write(frame(b"40"))
                await reader.read(100)
                content = {
                    "id": int(found[1]),
                    "client_id": client_id,
                    "listener_id": listener[1] if listener else "",
                    "args": [json.dumps("draft " * 150_000)],
                }
                await asyncio.sleep(0.05)
                writer.write(frame(f"42{json.dumps(['event', content])}".encode()))
                await writer.drain()
                opened.append(writer)
            except (httpx.HTTPError, OSError, asyncio.IncompleteReadError):
                refused += 1
    await asyncio.sleep(2)
    report.reported = f"{len(opened)} tabs, {refused} refused"
    for writer in opened:
        writer.close()


async def compressed(chat: Chat, report: Report) -> None:
    """40 messages of 15 MB, each 15 kB on the wire."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    small = packer.compress(b"4" + b"a" * 15_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    small = small[:-4]
    agreed = 0
    async with httpx.AsyncClient(timeout=30) as client:
        client_id, cookie, _ = await page_of(client, chat)
    opened = []
    for _ in range(40):
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", chat.port)
            writer.write(
                f"GET {SOCKET}?EIO=4&transport=websocket&client_id={client_id} HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{chat.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                f"Sec-WebSocket-Extensions: permessage-deflate\r\nCookie: {cookie}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            agreed += b"permessage-deflate" in head.lower()
            opened.append(writer)
    for writer in opened:
        with suppress(OSError):
            writer.write(frame(small, first=0xC1))
            await writer.drain()
    await asyncio.sleep(3)
    report.reported = f"{agreed} of {len(opened)} agreed to unpack"
    for writer in opened:
        writer.close()


async def partial(chat: Chat, report: Report) -> None:
    """40 messages of 1 MB that never end."""
    opened = []
    async with httpx.AsyncClient(timeout=30) as client:
        for _ in range(40):
            with suppress(httpx.HTTPError, OSError, asyncio.IncompleteReadError):
                client_id, cookie, _ = await page_of(client, chat)
                reader, writer = await web_socket(chat, client_id, cookie)
                writer.write(frame(b"40"))
                await reader.read(100)
                writer.write(frame(b"4" * 990_000, first=0x01))
                await asyncio.wait_for(writer.drain(), 5)
                opened.append(writer)
    await asyncio.sleep(2)
    report.reported = f"{len(opened)} sockets"
    for writer in opened:
        writer.close()


async def silent(chat: Chat, report: Report) -> None:
    """1,200 connections that say nothing, for 15 s."""
    opened: list[socket.socket] = []
    for _ in range(1_200):
        connection = socket.socket()
        connection.settimeout(1)
        try:
            await asyncio.to_thread(connection.connect, ("127.0.0.1", chat.port))
        except OSError:
            connection.close()
        else:
            opened.append(connection)
    await asyncio.sleep(15)
    report.reported = f"{len(opened)} connected"
    for connection in opened:
        connection.close()


async def clients(chat: Chat, report: Report) -> None:
    """200 browsers at once: the page, its files, and its socket."""
    done, refused = 0, 0
    files: list[str] = []
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as client:
        _, _, text = await page_of(client, chat)
        files = sorted(set(re.findall(r'(?:src|href|from)=?"(/[^"]+\.(?:js|css))"', text)))

        async def visit() -> None:
            nonlocal done, refused
            try:
                client_id, cookie, _ = await page_of(client, chat)
                for file in files:
                    await client.get(chat.url + file)
                reader, writer = await web_socket(chat, client_id, cookie)
                writer.write(frame(b"40"))
                await reader.read(100)
                done += 1
                await asyncio.sleep(1)
                writer.close()
            except (httpx.HTTPError, OSError, asyncio.IncompleteReadError):
                refused += 1

        await asyncio.gather(*(visit() for _ in range(200)))
    report.reported = f"{done} in, {refused} asked to come back; {len(files)} files each"


ATTACKS: list[Callable[[Chat, Report], Awaitable[None]]] = [
    pages,
    drafts,
    compressed,
    partial,
    silent,
    clients,
]


async def watch(chat: Chat, report: Report, ended: asyncio.Event) -> None:
    """Look at the memory and ask as a probe does, each time by a new connection."""

    async def memory() -> None:
        while not ended.is_set():
            with suppress(OSError, IndexError):
                report.peak_mib = max(report.peak_mib, chat.mib())
            await asyncio.sleep(0.05)

    async def probe() -> None:
        while not ended.is_set():
            started = time.monotonic()
            try:
                async with httpx.AsyncClient(timeout=10) as client:
                    answer = await client.get(f"{chat.url}/healthz")
                report.probes.append(time.monotonic() - started if answer.is_success else 10.0)
            except httpx.HTTPError:
                report.probes.append(10.0)
            await asyncio.sleep(PROBE_S)

    await asyncio.gather(memory(), probe())


async def run(attack: Callable[[Chat, Report], Awaitable[None]], folder: Path) -> Report:
    """Start the chat, attack it, and return what was seen."""
    with socket.socket() as free, tempfile.TemporaryFile() as output:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        process = subprocess.Popen(
            [sys.executable, "-m", "ui", "--port", str(port)],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": str(folder)}
            | {"PIBLOOM_GENERATE_URL": "http://127.0.0.1:9"}
            | {"PIBLOOM_TOKENIZE_URL": "http://127.0.0.1:9"},
            stdout=output,
            stderr=output,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
        )
        chat, report, ended = Chat(port, process.pid), Report(), asyncio.Event()
        try:
            for _ in range(300):
                try:
                    httpx.get(f"{chat.url}/healthz")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.1)
            watching = asyncio.create_task(watch(chat, report, ended))
            started = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(attack(chat, report), LONGEST_S)
            report.seconds = time.monotonic() - started
            await asyncio.sleep(3)
            ended.set()
            await watching
            with suppress(OSError, IndexError):
                report.rest_mib = chat.mib()
        finally:
            process.kill()
            process.wait()
        return report


def row(name: str, where: str, report: Report) -> str:
    """Return a line of the table."""
    failed = sum(probe >= 10 for probe in report.probes)
    slowest = max(report.probes, default=0.0)
    over = " **over**" if report.peak_mib > LIMIT_MIB else ""
    return (
        f"| {name} | {where} | {report.seconds:.1f} | {report.peak_mib:.0f}{over} |"
        f" {report.rest_mib:.0f} | {len(report.probes) - failed} of {len(report.probes)} |"
        f" {slowest:.2f} | {report.reported or 'not over after 25 s'} |"
    )


def main() -> None:
    """Run the attacks, and print or write the table."""
    parser = argparse.ArgumentParser(description="What a hostile client can do to the chat.")
    parser.add_argument("--at", action="append", help="NAME=FOLDER of a checkout; may be repeated")
    parser.add_argument("--only", action="append", help="one attack by its name")
    parser.add_argument("--write", action="store_true", help="write bench/results/attacks_chat.md")
    given = parser.parse_args()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    places = [place.split("=", 1) for place in given.at or [f"now={Path.cwd()}"]]
    lines = [
        "| attack | code | s | peak MiB | after MiB | probes answered | slowest probe, s | seen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for attack in ATTACKS:
        if given.only and attack.__name__ not in given.only:
            continue
        for where, folder in places:
            about = (attack.__doc__ or "").rstrip(".")
            lines.append(row(about, where, asyncio.run(run(attack, Path(folder)))))
            print(lines[-1], flush=True)
    if given.write:
        text = (
            "# Attacks on the chat\n\nMade by `python -m bench.attacks_chat`, on x86 with 2 cores,"
            " the attacker on the same machine. The manifest's limit is 512 MiB; a probe is asked"
            " anew every 0.5 s and fails after 10 s. The process may have 1,024 files open.\n\n"
        )
        (RESULTS / "attacks_chat.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
