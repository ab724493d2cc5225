"""Long answers are compressed for clients that accept it (RFC 9110, section 12.5.3)."""

import zlib
from collections.abc import Iterable, Iterator

from flask import Request, Response
from werkzeug.wsgi import ClosingIterator

SHORTEST = 4096  # bytes; a shorter answer is sent as it is
_MEDIA_TYPES = ("application/json", "text/plain")


def compress(request: Request, response: Response) -> None:
    """Compress a long answer with gzip, if the client accepts it."""
    if response.status_code != 200 or response.mimetype not in _MEDIA_TYPES:
        return
    response.vary.add("Accept-Encoding")
    if not response.is_streamed and len(response.get_data()) < SHORTEST:
        return
    gzip = request.accept_encodings.quality("gzip")
    if not gzip or gzip < request.accept_encodings.quality("identity"):
        return
    response.headers["Content-Encoding"] = "gzip"
    if response.is_streamed:
        written = response.response
        pieces = _gzip(response.iter_encoded())
        response.response = ClosingIterator(pieces, getattr(written, "close", None))
    else:
        response.set_data(b"".join(_gzip([response.get_data()])))


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()
