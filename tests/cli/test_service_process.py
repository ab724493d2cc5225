"""One service of `pibloom up`, and how it is probed."""

from pathlib import Path

from tests.cli.stand_ins import Up, begin
from tests.foreign import FOREIGN


def test_a_proxy_is_not_asked_for_what_is_here(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "--start-timeout", "20", **FOREIGN["proxies"])
    up.wait_for_chat()
