"""A request's body as it is read from its connection."""

import io
import math
import socket
from collections.abc import Iterator
from typing import Any

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidChunkSize

# A chunked body may have so many chunks of any size; all further ones must have so many bytes on
# average, because a chunk of a single byte takes as long to read as one of thousands.
SMALL_CHUNKS, CHUNK_BYTES = 16_384, 64


class RequestBody(io.RawIOBase):
    """Wraps gunicorn's reader of a body, and knows whether it was read to its end.

    Where it was not, the connection cannot be used again. A client that waits to be asked for its
    body (Expect: 100-continue) is asked at the first read, so that a request that is refused by its
    head alone is never asked.
    """

    def __init__(self, req: Any, connection: socket.socket) -> None:
        super().__init__()
        self._body, self._connection = req.body, connection
        self._expects_continue, req._expected_100_continue = req._expected_100_continue, False
        reader = self._body.reader
        self._left = reader.length if isinstance(reader, LengthReader) else math.inf
        if isinstance(reader, ChunkedReader):
            reader.parser = _bounded(reader.parser)

    @property
    def ended(self) -> bool:
        """Whether the body was read to its end."""
        return not self._left

    def readable(self) -> bool:
        """Return True, as readable files do."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what there is of the body into a buffer; returns how many bytes that were."""
        if self._expects_continue and self._left:
            self._expects_continue = False
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        if data:
            self._left -= len(data)
        elif self._left == math.inf:
            self._left = 0
        return len(data)


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a body's chunks, unless too many of them are small."""
    size = 0
    for count, chunk in enumerate(chunks):
        size += len(chunk)
        if count > SMALL_CHUNKS + size // CHUNK_BYTES:
            raise InvalidChunkSize(b"too many small chunks")
        yield chunk
