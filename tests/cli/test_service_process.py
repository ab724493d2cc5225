"""One service of `pibloom up`, and how it is probed."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.foreign import EVERYTHING, FOREIGN
from tests.functions.servers import free_port, wait_until

from tests.cli.stand_ins import ROOT, SERVICE, PARENT, Up, begin, children, is_alive



def test_a_proxy_is_not_asked_for_what_is_here(ups: list[Up], tmp_path: Path) -> None:
    up = begin(ups, tmp_path, "--start-timeout", "20", **FOREIGN["proxies"])
    up.wait_for_chat()
