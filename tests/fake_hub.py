"""A server that speaks the hub's protocol, for folders on this disk; and that fails on demand.

What is spoken: the listing of a model's revision with sizes and hashes, and `resolve` of a file, by
HEAD and GET, with ranges. Large files are announced as the hub announces those outside of git.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

LARGE = 100_000  # bytes from which a file is one outside of git
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Faults:
    """What goes wrong; by a file's name, or for all requests."""

    cut: dict[str, list[int]] = field(
        default_factory=dict
    )  # bytes after which it hangs up, once each
    longer: set[str] = field(default_factory=set)  # a byte more comes than was announced
    hashes: dict[str, str] = field(default_factory=dict)  # what the listing says in place of them
    damaged: set[str] = field(default_factory=set)  # one bit of it is another
    status: dict[str, int] = field(default_factory=dict)  # of a file, or of "listing"
    answer: bytes = b""  # to a listing, in place of it
    gated: bool = False
    missing: bool = False
    slow: float = 0.0  # seconds before each block


@dataclass
class FakeHub:
    """A running hub with the models that its folders hold."""

    url: str
    models: dict[str, Path]
    faults: Faults = field(default_factory=Faults)
    commit: str = COMMIT
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    tokens: set[str] = field(default_factory=set)

    def gets(self, name: str) -> int:
        """How often a file's bytes were asked for."""
        return sum(method == "GET" and path.endswith(f"/{name}") for method, path, _ in self.asked)


@contextmanager
def fake_hub(models: dict[str, Path]) -> Iterator[FakeHub]:
    """Serve models on loopback as long as the `with` block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub = FakeHub(f"http://127.0.0.1:{server.server_port}", models)
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request to the hub."""

    protocol_version = "HTTP/1.1"
    hashes: ClassVar[dict[tuple[Path, int], str]] = {}

    @property
    def hub(self) -> FakeHub:
        found: FakeHub = self.server.hub  # type: ignore[attr-defined]
        return found

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if token := self.headers.get("Authorization"):
            self.hub.tokens.add(token)
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            return self.listing(name, revision or "main")
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self.file(name, revision, file)

    def fail(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message or "no")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def refused(self, name: str, revision: str, what: str) -> bool:
        """Answer with an error where there is one to give."""
        faults = self.hub.faults
        if name not in self.hub.models or faults.missing:
            self.fail(401, "RepoNotFound")
        elif faults.gated:
            self.fail(403, "GatedRepo", "Access to this model is restricted")
        elif revision not in ("main", self.hub.commit):
            self.fail(404, "RevisionNotFound")
        elif what in faults.status:
            self.fail(faults.status[what])
        else:
            return False
        return True

    def listing(self, name: str, revision: str) -> None:
        if self.refused(name, revision, "listing"):
            return
        folder = self.hub.models[name]
        siblings: list[dict[str, Any]] = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                size, large = path.stat().st_size, path.stat().st_size >= LARGE
                entry = {"rfilename": str(path.relative_to(folder)), "size": size}
                entry["blobId"] = "0" * 40 if large else self.etag(path)
                told = self.hub.faults.hashes.get(path.name)
                if told is not None:
                    entry["blobId"] = told
                if large:
                    entry["lfs"] = {
                        "sha256": told or self.etag(path),
                        "size": size,
                        "pointerSize": 134,
                    }
                siblings.append(entry)
        body = (
            self.hub.faults.answer
            or json.dumps({"id": name, "sha": self.hub.commit, "siblings": siblings}).encode()
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self, name: str, revision: str, file: str) -> None:
        if self.refused(name, revision, file):
            return
        path = self.hub.models[name] / file
        if not path.is_file():
            return self.fail(404, "EntryNotFound")
        data = path.read_bytes()
        if file in self.hub.faults.longer:
            data += b"+"
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        self.send_response(206 if start else 200)
        etag = "X-Linked-Etag" if len(data) >= LARGE else "ETag"
        self.send_header(etag, f'"{self.etag(path)}"')
        if len(data) >= LARGE:
            self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "GET":
            self.body(file, data, start)

    def body(self, file: str, data: bytes, start: int) -> None:
        faults = self.hub.faults
        if file in faults.damaged:
            data = bytes([data[0] ^ 1]) + data[1:]
        cuts = faults.cut.get(file) or []
        end = cuts.pop(0) if cuts else len(data)
        for at in range(start, min(end, len(data)), 1 << 16):
            time.sleep(faults.slow)
            self.wfile.write(data[at : min(at + (1 << 16), end)])
        if end < len(data):
            self.close_connection = True
            self.connection.close()

    def etag(self, path: Path) -> str:
        key = (path, path.stat().st_mtime_ns)
        if key not in self.hashes:
            data = path.read_bytes()
            if len(data) >= LARGE:
                self.hashes[key] = hashlib.sha256(data).hexdigest()
            else:
                head = b"blob %d\0" % len(data)
                self.hashes[key] = hashlib.sha1(head + data, usedforsecurity=False).hexdigest()
        return self.hashes[key]
