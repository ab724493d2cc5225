"""HTTP itself, byte by byte, against the real server: RFC 9110 and RFC 9112, clause by clause."""

import http.client
import json
import socket
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import IO

import httpx
import pytest

from tests.functions.servers import Running

MOST = 65536  # PIBLOOM_MAX_BODY of `server`
HOST = b"Host: a.example\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /chat/ HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL_CHUNK = b"1\r\n \r\n"
END = b"\r\n"
EMPTY = b'{"content": ""}'  # read, and then refused with 422
WHOLE = POST + b"Content-Length: %d\r\n\r\n%s" % (len(EMPTY), EMPTY)


@dataclass
class Reply:
    """A reply as it came."""

    version: str
    status: int
    headers: Message
    body: bytes


def read_reply(stream: IO[bytes], method: str = "GET") -> Reply:
    """Read one reply, which may be 100 Continue."""
    version, status, _ = stream.readline().decode().split(" ", 2)
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
    headers = BytesHeaderParser().parsebytes(b"".join(lines))
    body = b""
    if method == "HEAD" or status in ("100", "204"):
        pass
    elif headers["Transfer-Encoding"] == "chunked":
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers["Content-Length"]))
    return Reply(version, int(status), headers, body)


def ask(server: Running, raw: bytes) -> tuple[Reply, bool]:
    """Send bytes; return the reply, and whether the connection still takes another request."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(raw)
        stream = client.makefile("rb")
        reply = read_reply(stream, raw.strip().split(b" ")[0].decode())
        if reply.headers["Connection"] == "close":
            assert stream.read() == b"", "it said that it would close"
            return reply, False
        client.sendall(GET + END)
        return reply, read_reply(stream).status == 200


# What is sent, the status, and whether the connection can be used again.
CASES = {
    # RFC 9112, section 2.2: empty lines before a request are ignored; bare LF is refused.
    "one empty line": (END + GET + END, 200, True),
    "empty lines": (END * 5 + GET + END, 200, True),
    "bare LF": (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, False),
    "a space before the colon": (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, False),
    "a space before the first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, False),
    # section 2.3 and RFC 9110, section 2.5: versions
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200, False),
    "HTTP/1.0 kept alive": (b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, True),
    "HTTP/1.2": (b"GET /healthz HTTP/1.2\r\n" + HOST + END, 200, True),
    "HTTP/1.9": (b"GET /healthz HTTP/1.9\r\n" + HOST + END, 200, True),
    "HTTP/2.0": (b"GET /healthz HTTP/2.0\r\n" + HOST + END, 505, False),
    "HTTP/3.0": (b"GET /healthz HTTP/3.0\r\n" + HOST + END, 505, False),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, False),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400, False),
    "HTTP/1": (b"GET /healthz HTTP/1\r\n" + HOST + END, 400, False),
    "http/1.1": (b"GET /healthz http/1.1\r\n" + HOST + END, 400, False),
    "HTTP/1.10": (b"GET /healthz HTTP/1.10\r\n" + HOST + END, 400, False),
    # section 3.2: Host
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, False),
    "no Host in 1.2": (b"GET /healthz HTTP/1.2\r\n\r\n", 400, False),
    "two Hosts": (GET + HOST + END, 400, False),
    "two Hosts in 1.0": (b"GET /healthz HTTP/1.0\r\n" + HOST * 2 + END, 400, False),
    "an empty Host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200, True),
    "a Host with a port": (b"GET /healthz HTTP/1.1\r\nHost: a:80\r\n\r\n", 200, True),
    "a Host of IPv6": (b"GET /healthz HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 200, True),
    "a Host with a blank": (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400, False),
    "a Host with a path": (b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, False),
    "a Host with a user": (b"GET /healthz HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, False),
    "a list of Hosts": (b"GET /healthz HTTP/1.0\r\nHost: a, b\r\n\r\n", 400, False),
    "a Host with an odd port": (b"GET /healthz HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, False),
    # section 3.2.1 to 3.2.4: the four forms of a target
    "absolute-form": (b"GET http://b.example/healthz HTTP/1.1\r\n" + HOST + END, 200, True),
    "absolute-form without Host": (b"GET http://b/healthz HTTP/1.1\r\n\r\n", 400, False),
    "asterisk-form": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 204, True),
    "asterisk-form of GET": (b"GET * HTTP/1.1\r\n" + HOST + END, 400, False),
    "authority-form of GET": (b"GET a:80 HTTP/1.1\r\n" + HOST + END, 400, False),
    "a target with a control character": (b"GET /\x01 HTTP/1.1\r\n" + HOST + END, 400, False),
    "a target of 9,000 bytes": (b"GET /%s HTTP/1.1\r\n" % (b"a" * 9000) + HOST + END, 414, False),
    # section 5: header fields
    "a folded line": (b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", 400, False),
    "a header without a colon": (GET + b"secret\r\n\r\n", 400, False),
    "NUL in a value": (GET + b"A: b\x00c\r\n\r\n", 400, False),
    "CR in a value": (GET + b"A: b\rc\r\n\r\n", 400, False),
    "a header of 9,000 bytes": (GET + b"A: %s\r\n\r\n" % (b"a" * 9000), 431, False),
    "200 headers": (GET + b"A: b\r\n" * 200 + END, 431, False),
    "two Content-Types": (POST + b"Content-Type: text/plain\r\n\r\n", 400, False),
    # section 6.1: Transfer-Encoding
    "chunked": (CHUNKED + b"f\r\n%s\r\n0\r\n\r\n" % EMPTY, 422, True),
    "Chunked": (
        POST + b"Transfer-Encoding: ChunKed\r\n\r\nf\r\n%s\r\n0\r\n\r\n" % EMPTY,
        422,
        True,
    ),
    "many small chunks": (
        CHUNKED + SMALL_CHUNK * 16_000 + b"f\r\n%s\r\n0\r\n\r\n" % EMPTY,
        422,
        True,
    ),
    "too many small chunks": (CHUNKED + SMALL_CHUNK * 20_000 + b"0\r\n\r\n", 400, False),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, False),
    "gzip and chunked apart": (
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
        False,
    ),
    "deflate, chunked": (
        POST + b"Transfer-Encoding: deflate, chunked\r\n\r\n0\r\n\r\n",
        501,
        False,
    ),
    "identity, chunked": (
        POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        501,
        False,
    ),
    "an unknown coding": (POST + b"Transfer-Encoding: br, chunked\r\n\r\n0\r\n\r\n", 501, False),
    "a parameter of chunked": (
        POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
        501,
        False,
    ),
    "chunked, chunked": (
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
        False,
    ),
    "chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400, False),
    "gzip alone": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, False),
    "identity alone": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400, False),
    "both lengths": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        False,
    ),
    "chunked in 1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        False,
    ),
    # section 7.1: chunks
    "a chunk's extension": (CHUNKED + b"f;a=b\r\n%s\r\n0\r\n\r\n" % EMPTY, 422, True),
    "a trailer": (CHUNKED + b"f\r\n%s\r\n0\r\nA: b\r\n\r\n" % EMPTY, 422, True),
    "a chunk without a size": (CHUNKED + b"\r\n%s\r\n0\r\n\r\n" % EMPTY, 400, False),
    "a chunk of size -1": (CHUNKED + b"-1\r\n%s\r\n0\r\n\r\n" % EMPTY, 400, False),
    "a chunk of size 0xf": (CHUNKED + b"0xf\r\n%s\r\n0\r\n\r\n" % EMPTY, 400, False),
    "a chunk of size g": (CHUNKED + b"g\r\n%s\r\n0\r\n\r\n" % EMPTY, 400, False),
    "a chunk longer than it says": (CHUNKED + b"5\r\n%s\r\n0\r\n\r\n" % EMPTY, 400, False),
    "a huge chunk": (CHUNKED + b"%x\r\n" % (1 << 70) + b" " * 2 * MOST, 413, False),
    "chunks beyond the limit": (CHUNKED + (b"8000\r\n" + b" " * 32768 + END) * 3, 413, False),
    # section 6.2: Content-Length
    "no body": (POST + END, 400, True),
    "a length of 0": (POST + b"Content-Length: 0\r\n\r\n", 400, True),
    "leading zeros": (POST + b"Content-Length: 015\r\n\r\n" + EMPTY, 422, True),
    "+15": (POST + b"Content-Length: +15\r\n\r\n" + EMPTY, 400, False),
    "-15": (POST + b"Content-Length: -15\r\n\r\n" + EMPTY, 400, False),
    "15, 15": (POST + b"Content-Length: 15, 15\r\n\r\n" + EMPTY, 400, False),
    "15 twice": (POST + b"Content-Length: 15\r\n" * 2 + END + EMPTY, 400, False),
    "1_5": (POST + b"Content-Length: 1_5\r\n\r\n" + EMPTY, 400, False),
    "15.0": (POST + b"Content-Length: 15.0\r\n\r\n" + EMPTY, 400, False),
    "0xf": (POST + b"Content-Length: 0xf\r\n\r\n" + EMPTY, 400, False),
    "superscript": (POST + b"Content-Length: \xb2\r\n\r\n" + EMPTY, 400, False),
    "an empty length": (POST + b"Content-Length:\r\n\r\n" + EMPTY, 400, False),
    "a length of 40 digits": (POST + b"Content-Length: %s\r\n\r\n" % (b"9" * 40), 413, False),
    "a length of 5,000 digits": (POST + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000), 400, False),
    "one byte too many": (POST + b"Content-Length: %d\r\n\r\n" % (MOST + 1), 413, False),
    # RFC 9110, section 10.1.1: Expect
    "too large, and asks": (
        POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MOST + 1),
        413,
        False,
    ),
    "asks for something else": (POST + b"Expect: 200-ok\r\nContent-Length: 15\r\n\r\n", 417, False),
    "1.0 that asks": (
        b"POST /chat/ HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        b"Content-Length: 15\r\n\r\n" + EMPTY,
        422,
        False,
    ),
    # section 9: methods
    "DELETE": (b"DELETE /healthz HTTP/1.1\r\n" + HOST + END, 405, True),
    "DELETE with a body": (
        b"DELETE /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 15\r\n\r\n" + EMPTY,
        405,
        True,
    ),
    "TRACE": (b"TRACE /healthz HTTP/1.1\r\n" + HOST + END, 405, True),
    "a method of its own": (b"FOO /healthz HTTP/1.1\r\n" + HOST + END, 405, True),
    "get": (b"get /healthz HTTP/1.1\r\n" + HOST + END, 400, False),
    "CONNECT": (b"CONNECT a.example:80 HTTP/1.1\r\n" + HOST + END, 404, False),
    "OPTIONS": (b"OPTIONS /healthz HTTP/1.1\r\n" + HOST + END, 204, True),
    "HEAD": (b"HEAD /healthz HTTP/1.1\r\n" + HOST + END, 200, True),
    "HEAD of nothing": (b"HEAD /nothing HTTP/1.1\r\n" + HOST + END, 404, True),
    # RFC 9112, section 9.3 and 9.6: persistence
    "Connection: close": (GET + b"Connection: close\r\n\r\n", 200, False),
    "Connection: Close": (GET + b"Connection: Close\r\n\r\n", 200, False),
    "an upgrade that is not done": (
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        200,
        True,
    ),
    "an error with its body read": (WHOLE, 422, True),
    "an error with a GET's body": (GET + b"Content-Length: 2\r\n\r\n{}", 200, True),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_rfcs_say(server: Running, name: str) -> None:
    raw, status, again = CASES[name]
    reply, works = ask(server, raw)
    assert (reply.status, works) == (status, again)
    assert reply.version in ("HTTP/1.1", "HTTP/1.0" if b"HTTP/1.0" in raw else "")
    assert reply.headers["Date"]
    if status >= 400 and not raw.startswith(b"HEAD"):
        error = json.loads(reply.body)["error"]
        assert set(error) >= {"code", "type", "message", "param"}
        assert reply.headers["Content-Type"] == "application/json"
        assert reply.headers["X-Request-Id"]
    if status == 405:
        assert reply.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_the_body_is_asked_for_once_it_is_wanted(server: Running) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(head)
        stream = client.makefile("rb")
        assert read_reply(stream).status == 100
        client.sendall(EMPTY + GET + END)
        assert [read_reply(stream).status for _ in range(2)] == [422, 200]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_head_has_the_headers_of_get(server: Running, path: str) -> None:
    asked = [b"%s %s HTTP/1.1\r\n" % (m, path.encode()) + HOST + END for m in (b"GET", b"HEAD")]
    got, head = (ask(server, raw)[0] for raw in asked)
    assert not head.body
    reported = {"Date", "X-Request-Id"} | ({"Content-Length"} if path == "/metrics" else set())
    kept = [{k: v for k, v in r.headers.items() if k not in reported} for r in (got, head)]
    assert kept[0] == kept[1]


def test_requests_one_behind_the_other_are_answered_in_order(server: Running) -> None:
    raw = (GET + END) + WHOLE + END + (GET + END) + CHUNKED + b"f\r\n%s\r\n0\r\n\r\n" % EMPTY
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(raw + GET + b"Connection: close\r\n\r\n" + GET + END)
        stream = client.makefile("rb")
        assert [read_reply(stream).status for _ in range(5)] == [200, 422, 200, 422, 200]
        assert stream.read() == b""  # nothing behind what said that it is the last


def test_nothing_behind_an_error_that_closes_is_answered(server: Running) -> None:
    smuggled = POST + b"Content-Length: 99999999\r\n\r\n" + GET + END
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(smuggled)
        stream = client.makefile("rb")
        assert read_reply(stream).status == 413
        assert stream.read() == b""


TOO_LARGE = b" " * (1 << 20)
REFUSED = [
    (TOO_LARGE, "application/json", 413),
    (EMPTY, "text/csv", 415),
    (b"{", "application/json", 400),
    (EMPTY, "application/json", 422),
]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("body", "kind", "status"), REFUSED)
def test_httpx_keeps_working_after_a_refusal(
    server: Running, body: bytes, kind: str, status: int, chunked: bool
) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
        for _ in range(3):
            content = iter([body]) if chunked else body
            refused = client.post("/chat/", content=content, headers={"Content-Type": kind})
            assert refused.status_code == status
            assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(("body", "kind", "status"), REFUSED)
def test_http_client_keeps_working_after_a_refusal(
    server: Running, body: bytes, kind: str, status: int
) -> None:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        client.request("POST", "/chat/", body, {"Content-Type": kind})
        refused = client.getresponse()
        refused.read()
        assert refused.status == status
        assert refused.will_close == (status == 413)
        client.request("GET", "/healthz")
        reply = client.getresponse()
        reply.read()
        assert reply.status == 200
