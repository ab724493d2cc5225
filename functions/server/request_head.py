"""A request's head: looked at before a thread reads it, and checked once it has been parsed."""

import re
import socket
from typing import Any

from gunicorn.http.errors import InvalidHeader, UnsupportedTransferCoding

HEAD_BYTES = 64 << 10  # of a request that are looked at before it gets a thread

_END_OF_HEAD = re.compile(rb"\r\n\r\n|\n\n")
# A whole head, without a body, so that answering it waits for nothing.
_PROBE = re.compile(
    rb"(?:GET|HEAD) /(?:healthz|readyz)[ /?]"
    rb"(?:(?!\r\ncontent-length:|\r\ntransfer-encoding:|\r\nexpect:).)*?\r\n\r\n",
    re.DOTALL | re.IGNORECASE,
)
# RFC 9110, section 7.2: a name, an IPv4 or an IPv6 address, and a port. It may be empty.
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)


def peek(conn: Any) -> bytes | None:
    """Return what has arrived, without taking it: b"" at the end, None while there is nothing."""
    try:
        found: bytes = conn.sock.recv(HEAD_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return found
    except BlockingIOError:
        return None
    except OSError:  # a reset, which reading will report
        return b""


def is_probe(conn: Any) -> bool:
    """Whether the whole head of a probe, and nothing before it, waits on a connection."""
    return bool(_PROBE.match(peek(conn) or b"")) and not _read_ahead(conn)


def is_torn(conn: Any) -> bool:
    """Whether only a part of a request's head has arrived, so that reading it would wait."""
    arrived = _read_ahead(conn) + (peek(conn) or b"")
    return bool(arrived) and not _END_OF_HEAD.search(arrived)


def skip_empty_lines(conn: Any) -> bool:
    """Drop empty lines before a request (RFC 9112, section 2.2); tells whether anything is left."""
    if ahead := _read_ahead(conn):
        conn.parser.unreader.take_buffered()
        conn.parser.unreader.unread(ahead := _without_empty_lines(ahead))
    if ahead:
        return True
    arrived = peek(conn)
    if arrived and (empty := len(arrived) - len(_without_empty_lines(arrived))):
        conn.sock.recv(empty)
        arrived = peek(conn)
    return arrived is not None


def check(req: Any) -> None:
    """Refuse what gunicorn lets pass: RFC 9112, sections 3.2 and 6.1."""
    given = [value for name, value in req.headers if name == "HOST"]
    if (req.version >= (1, 1) and not given) or not all(map(_HOST.fullmatch, given)):
        raise InvalidHeader("HOST", req=req)
    for name, value in req.headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise UnsupportedTransferCoding(value)


def _read_ahead(conn: Any) -> bytes:
    """Return what was read beyond the end of a connection's last request."""
    found: bytes = conn.parser.unreader.buf.getvalue() if conn.initialized else b""
    return found


def _without_empty_lines(data: bytes) -> bytes:
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data
