"""Running `pibloom` as a user does."""

import os
import subprocess
import sys

from model.names import default_model

DEMO = default_model()
GREEDY = ("--temperature", "0", "--max-new-tokens", "12")


def pibloom(
    *arguments: str, stdin: str | bytes = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        input=data,
        capture_output=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
