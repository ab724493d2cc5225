"""Whether a client is still there."""

import select
import socket
from typing import Any

_CLOSED = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)  # the last: Linux only


def client_left(environ: dict[str, Any]) -> bool:
    """Tell whether the client has closed its connection; this neither waits nor reads.

    `environ` is the request's WSGI environment. A WSGI server reports a closed connection only when
    a write fails, and a reply that is not streamed writes nothing before its end.
    """
    connection: socket.socket | None = environ.get("gunicorn.socket")
    if connection is None:
        return False
    try:
        poller = select.poll()
        poller.register(connection, select.POLLIN | _CLOSED)
        happened = poller.poll(0)
        if not happened:
            return False
        if happened[0][1] & _CLOSED:  # also where bytes wait to be read
            return True
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True
