"""Standard streams that are closed are replaced, so that no file or socket gets their number."""

import subprocess
import sys

import pytest

CODE = """
import os
from common import stdio
stdio.open_missing(discard={discard})
number = os.open(os.devnull, os.O_RDONLY)
try:
    print("text", flush=True)
    outcome = "ignored"
except OSError:
    outcome = "failed"
os.write(2, f"{{number > 2}} {{outcome}}".encode())
"""


@pytest.mark.parametrize(("discard", "outcome"), [(False, "failed"), (True, "ignored")])
def test_a_closed_stream_is_replaced(discard: bool, outcome: str) -> None:
    command = 'exec "$0" -c "$1" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, CODE.format(discard=discard)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr.startswith(f"True {outcome}")
