"""The command that serves one function."""

import socket

from tests.functions.servers import free_port, serve


def test_a_busy_port_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("tokenize", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


def test_a_bad_setting_ends_the_server_with_a_sentence() -> None:
    done = serve("tokenize", "--port", str(free_port()), PIBLOOM_SPEED="fast")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "PIBLOOM_SPEED" in done.stderr
