"""Text that a running function writes for the command."""

from pathlib import Path

import pytest

from tests.cli.commands import pibloom
from tests.foreign import FOREIGN, NOWHERE
from tests.functions.servers import Start, wait_until

KEY = "sk-a-key-that-nobody-may-see"


def test_generate_asks_a_running_function(start: Start) -> None:
    server = start("Hello, 你好!", 0.0)
    wait_until(server.is_ready)
    url = f"http://127.0.0.1:{server.port}"
    assert pibloom("generate", "--url", url, "Hi").stdout == "Hello, 你好!\n"
    refused = pibloom("generate", "--url", url, "x" * 3000)
    assert refused.returncode == 1
    assert "context" in refused.stderr


def test_generate_brings_a_key_from_the_environment_or_a_file(start: Start, tmp_path: Path) -> None:
    server = start("Hello", 0.0, PIBLOOM_API_KEYS=f"other,{KEY}")
    wait_until(server.is_ready)
    ask = ("generate", "--url", f"http://127.0.0.1:{server.port}", "Hi")
    (tmp_path / "key").write_text(f"{KEY}\n")
    file = ("--api-key-file", str(tmp_path / "key"))
    for more, environment in (((), {"PIBLOOM_API_KEY": KEY}), (file, {"PIBLOOM_API_KEY": "wrong"})):
        done = pibloom(*ask, *more, **environment)
        assert (done.stdout, done.returncode) == ("Hello\n", 0), done.stderr
    for wrong in ("", "wrong-one"):
        done = pibloom(*ask, PIBLOOM_API_KEY=wrong)
        assert done.returncode == 1
        assert "key" in done.stderr
        assert "wrong-one" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0.0.0.0"])
def test_generate_asks_what_is_here_through_no_proxy(start: Start, host: str) -> None:
    server = start("Hello", 0.0)
    wait_until(server.is_ready)
    proxies = {**FOREIGN["proxies"], "all_proxy": NOWHERE, "ALL_PROXY": NOWHERE}
    for others in (proxies, FOREIGN["proxies"]):
        done = pibloom("generate", "--url", f"http://{host}:{server.port}", "Hi", **others)
        assert done.stdout == "Hello\n", done.stderr


def test_a_proxy_that_cannot_be_used_is_a_sentence() -> None:
    for name, value in (("http_proxy", "nonsense://x"), ("ALL_PROXY", "socks9://x")):
        done = pibloom("generate", "--url", "http://pi.example", "Hi", **{name: value})
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("pibloom: ")
