"""Serve the chat: python -m ui --host 127.0.0.1 --port 8080 [--reload]."""

import argparse
import errno
import logging
import os
import shlex
import signal
import socket
import sys
import tempfile
from pathlib import Path

from common import environment, ports, stdio
from common.settings import SettingsError
from ui.limits import PACKET_BYTES
from ui.settings import Settings


def main(arguments: list[str] | None = None) -> None:
    """Read the settings and serve until SIGTERM or SIGINT; exits with 0, or 1 or 2 and a sentence.

    1 is for an address or port that cannot be used, 2 for a setting.
    """
    stdio.open_missing(discard=True)
    logging.raiseExceptions = False  # a log line that cannot be written causes no traceback
    environment.remove_others()
    try:
        os.getcwd()
    except OSError:
        _give_up("The current folder is not there any more; start the chat from another.", 1)
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        _give_up(str(error), 2)
    parser = argparse.ArgumentParser(prog="python -m ui", description="Serve piBLOOM's chat.")
    parser.add_argument("--host", default=settings.host, help="address (%(default)s)")
    parser.add_argument("--port", type=int, default=settings.port, help="port (%(default)s)")
    parser.add_argument("--reload", action="store_true", help="restart when the code changes")
    given = parser.parse_args(arguments)
    if not given.host:
        parser.error("argument --host: it is given, but empty")
    if not 1 <= given.port <= 65535:
        parser.error(f"argument --port: {given.port} is not a port from 1 to 65535")
    _check_free(given.host, given.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if given.reload:
        _serve_reloading(given.host, given.port)
    else:
        _serve(settings, given.host, given.port)


def _serve(settings: Settings, host: str, port: int) -> None:
    with tempfile.TemporaryDirectory(prefix="pibloom-ui-") as scratch:
        # With a random secret no cookie is valid after a restart, so nothing needs to be kept.
        kept = scratch if settings.secret_is_random else _state_folder() or scratch
        os.environ["NICEGUI_STORAGE_PATH"] = kept  # read when nicegui is imported
        from fastapi.middleware.gzip import GZipMiddleware
        from nicegui import app, ui

        from ui import assets
        from ui.api.client import FunctionsClient
        from ui.app import build
        from ui.capacity.cleanup import clean_up_forever
        from ui.server.connections import BACKLOG, OPEN_CONNECTIONS
        from ui.server.http import ChatHttpProtocol

        logging.getLogger("httpx").setLevel(logging.WARNING)
        build(FunctionsClient(settings), origins=settings.origins)
        app.on_startup(clean_up_forever)
        OPEN_CONNECTIONS.fit_limit()
        ui.run(
            host=host,
            port=port,
            title="piBLOOM",
            favicon=assets.LOGO_FILE,
            dark=None,
            reload=False,
            show=False,
            show_welcome_message=False,
            tailwind=False,
            storage_secret=settings.secret.reveal(),
            # A busy Pi may take a while to reconnect a page; until then its reply goes on.
            reconnect_timeout=30,
            # Open pages hold a socket, which would otherwise delay the end.
            timeout_graceful_shutdown=1,
            uvicorn_logging_level="error",  # a client could fill the log with its warnings
            http=ChatHttpProtocol,
            # The highest level takes four times as long, and one thread answers all requests.
            gzip_middleware_factory=lambda served: GZipMiddleware(served, compresslevel=3),
            ws_max_size=PACKET_BYTES,
            ws_per_message_deflate=False,  # 15 kB could become 15 MB
            backlog=BACKLOG,
            workers=1,  # whatever WEB_CONCURRENCY says: the pages live in this process
        )


def _serve_reloading(host: str, port: int) -> None:
    from watchfiles import PythonFilter, run_process

    command = shlex.join([sys.executable, "-m", "ui", "--host", host, "--port", str(port)])
    run_process(
        Path(__file__).parent,
        target=command,
        target_type="command",
        watch_filter=PythonFilter(extra_extensions=(".css", ".js", ".svg")),
        sigint_timeout=5,
    )


def _state_folder() -> str | None:
    """Return where visitors' settings are kept, or None where nothing can be written."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        folder = state / "pibloom" / "ui"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return str(folder) if os.access(folder, os.W_OK) else None


def _check_free(host: str, port: int) -> None:
    try:
        ports.check_free(host, port)
    except socket.gaierror:
        _give_up(f"There is no address {host} on this machine.", 1)
    except PermissionError:
        _give_up(f"Port {port} needs more rights; choose one above 1023 with --port.", 1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _give_up(f"Port {port} is taken; end what uses it, or choose another with --port.", 1)
        _give_up(f"Nothing can listen on {host}, port {port}: {error.strerror}.", 1)


def _give_up(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
