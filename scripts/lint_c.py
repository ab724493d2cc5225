"""Check the C of the native engine: its format, warnings as errors, and clang-tidy.

    python -m scripts.lint_c          # of this checkout; part of `make lint`
    python -m scripts.lint_c --fix    # format it; part of `make format`

GCC and clang compile every source for x86-64 and for ARM, the kernels of each instruction set with
their own flags. A compiler that is not installed is left out, with a sentence. clang-format and
clang-tidy come with requirements/test.txt.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.native.build import FOLDER, compile_commands

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
PROGRAM = ROOT / "tests/model/native/run.c"
FORMATTED = [*sorted(FOLDER.rglob("*.[ch]")), PROGRAM]
CROSS = "--target=aarch64-linux-gnu"
COMPILERS = (["gcc"], ["aarch64-linux-gnu-gcc"], ["clang"], ["clang", CROSS])


def run(*command: str | Path) -> str:
    """Return what a command complained of; nothing when it succeeds."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout if done.returncode else ""


def commands() -> Iterator[list[str | Path]]:
    """Yield every check but that of the format."""
    tidied: set[Path] = set()
    for compiler in COMPILERS:
        if not shutil.which(compiler[0]):
            print(f"piBLOOM: {compiler[0]} is not installed, so C is not compiled with it")
            continue
        for source, command in compile_commands(compiler, [PROGRAM]).items():
            yield [*command, "-Werror", "-o", os.devnull]
            if source not in {PROGRAM, *tidied}:
                tidied.add(source)
                target = [CROSS] if compiler[0].startswith("aarch64") else []
                yield [TOOLS / "clang-tidy", "--quiet", source, "--", *target, *command[1:]]


def main() -> None:
    """Check, or format, and say what is wrong."""
    format_: list[str | Path] = [TOOLS / "clang-format", f"--style=file:{ROOT / '.clang-format'}"]
    if sys.argv[1:] == ["--fix"]:
        sys.exit(run(*format_, "-i", *FORMATTED) or None)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        every: list[list[str | Path]] = [
            [*format_, "--dry-run", "--Werror", *FORMATTED],
            *commands(),
        ]
        found = list(pool.map(lambda command: run(*command), every))
    sys.exit("".join(found) or None)


if __name__ == "__main__":
    main()
