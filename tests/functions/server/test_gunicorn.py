"""What functions/server uses of gunicorn that no documentation promises.

gunicorn is pinned exactly. An upgrade is right when these tests and those of the server pass.
"""

import inspect
import logging
import os
import socket
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http import body as bodies
from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from gunicorn.workers import gthread
from gunicorn.workers.gthread import TConn, ThreadWorker

from functions.server.worker import Worker
from tests.functions.servers import ROOT

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}GET "


def test_the_release_is_the_one_that_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"gunicorn=={version('gunicorn')}" in project["dependencies"]


def parsed(raw: bytes) -> tuple[RequestParser, Any, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    theirs.close()
    parser = RequestParser(Config(), ours, ("127.0.0.1", 1))
    return parser, next(parser), ours


def test_what_overrides_a_method_has_one_to_override() -> None:
    """A method that gunicorn no longer calls by this name would silently do nothing."""
    own = {name for name, _ in inspect.getmembers(Worker, inspect.isfunction)}
    own = {name for name in own if name in vars(Worker) and not name.startswith("_")}
    assert own == {
        "accept",
        "enqueue_req",
        "finish_request",
        "get_thread_pool",
        "handle",
        "handle_error",
        "handle_request",
        "init_process",
        "is_parent_alive",
        "murder_pending",
        "set_accept_enabled",
        "wait_for_and_dispatch_events",
    }
    for name in own:
        ours, theirs = getattr(Worker, name), getattr(ThreadWorker, name)
        assert list(inspect.signature(ours).parameters) == list(
            inspect.signature(theirs).parameters
        ), name


def test_the_worker_has_the_fields_and_methods_that_are_used() -> None:
    worker = ThreadWorker(1, os.getppid(), [], None, 30, Config(), logging.getLogger("gunicorn"))
    for name in (
        *("alive", "cfg", "keepalived_conns", "max_keepalived", "method_queue", "nr_conns"),
        *("pending_conns", "poller", "sockets", "tpool", "worker_connections"),
        *("handle_exit", "on_client_socket_readable", "on_pending_socket_readable"),
    ):
        assert hasattr(worker, name), name
    assert callable(worker.method_queue.defer)
    assert list(inspect.signature(worker.on_pending_socket_readable).parameters) == [
        "conn",
        "client",
    ]
    assert gthread._DEFER is not None
    assert "SIG_QUEUE.put_nowait(" in inspect.getsource(Arbiter)
    assert "self.wsgi = " in inspect.getsource(ThreadWorker.load_wsgi)
    worker.tmp.close()


@pytest.mark.parametrize("raw", [SIZED, CHUNKED])
def test_a_connection_and_its_parser_have_the_fields_that_are_used(raw: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(raw)
    conn = TConn(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
    assert (conn.sock, conn.timeout, conn.initialized, conn.data_ready) == (
        ours,
        None,
        False,
        False,
    )
    conn.init()
    assert conn.initialized
    request = next(conn.parser)
    request.body.read()
    unreader = conn.parser.unreader
    assert unreader.buf.getvalue() == (b"GET " if raw == SIZED else b"")
    unreader.take_buffered()
    unreader.unread(b"HEAD")
    assert unreader.buf.getvalue() == b"HEAD"
    conn.close()
    theirs.close()


def test_a_request_has_the_fields_that_are_used() -> None:
    _, request, ours = parsed(SIZED)
    assert (request.method, request.version) == ("POST", (1, 1))
    assert ("HOST", "a") in request.headers
    assert request._expected_100_continue is True
    assert request.should_close() is False
    reader = request.body.reader
    assert isinstance(reader, bodies.LengthReader)
    assert reader.length == 2
    request._expected_100_continue = False  # so that nothing is sent
    _, environ = create(request, ours, ("127.0.0.1", 1), ("127.0.0.1", 2), Config())
    assert environ["gunicorn.socket"] is ours
    assert environ["RAW_URI"] == "/"
    ours.close()


def test_a_chunked_body_is_read_through_an_iterator_that_can_be_replaced() -> None:
    _, request, ours = parsed(CHUNKED)
    reader = request.body.reader
    assert isinstance(reader, bodies.ChunkedReader)
    reader.parser = iter([b"bc"])
    assert request.body.read() == b"bc"
    ours.close()


def test_errors_of_the_parser_tell_what_is_looked_at() -> None:
    assert errors.InvalidHeader("HOST").hdr == "HOST"
    assert errors.InvalidHTTPVersion((2, 0)).version == (2, 0)
    assert errors.InvalidRequestLine("PRI * HTTP/2.0").req == "PRI * HTTP/2.0"
    for name in (
        *("ExpectationFailed", "InvalidChunkSize", "LimitRequestHeaders", "LimitRequestLine"),
        "UnsupportedTransferCoding",
    ):
        assert issubclass(getattr(errors, name), errors.ParseException), name
