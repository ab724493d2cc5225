"""Compiles the C of this folder into one shared library, for this machine or another.

    python -m model.native.build                                 # for this machine
    CC=aarch64-linux-gnu-gcc python -m model.native.build -o DIR/libbloom.so

Each instruction set has a file of its own in kernels/, compiled with its own flags. Which of them
runs is chosen when an engine is made (kernels/dispatch.c).
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from model.errors import ModelError
from model.native import LIBRARY

FOLDER = Path(__file__).parent
_FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O3",
    "-g1",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
]
_WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes"]
# The kernels of each architecture, by the first word of `cc -dumpmachine`, and their flags.
_KERNELS = {
    "x86_64": {
        "avx2.c": ["-mavx2", "-mfma", "-mf16c"],
        "avx512.c": [
            "-mavx512f",
            "-mavx512bw",
            "-mavx512vl",
            "-mavx512vnni",
            "-mfma",
            "-mf16c",
        ],
    },
    "aarch64": {
        "neon.c": ["-mtune=cortex-a72"],
        "dotprod.c": ["-march=armv8.2-a+dotprod", "-mtune=cortex-a76"],
    },
}


def build(
    output: Path = LIBRARY,
    *,
    compiler: str | None = None,
    flags: Sequence[str] = (),
    program: Path | None = None,
) -> None:
    """Compile and link the library; or, with the source of a program, that program.

    `compiler` is CC's, or cc; `flags` come last. `ModelError` holds the compiler's complaint.
    """
    cc = shlex.split(compiler or os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        commands = compile_commands(cc, [program] if program else [])
        for source, command in commands.items():
            objects.append(str(Path(scratch) / f"{source.stem}.o"))
            _run([*command, *flags, "-o", objects[-1]])
        # Under a temporary name first: a process may have the former library mapped.
        fresh = output.with_suffix(f".{os.getpid()}.tmp")
        kind = [] if program else ["-shared"]
        _run([*cc, *kind, *flags, *objects, "-o", str(fresh), "-lm", "-lpthread"])
        fresh.replace(output)


def compile_commands(cc: Sequence[str], others: Sequence[Path] = ()) -> dict[Path, list[str]]:
    """Return how each source is compiled for the compiler's machine, by the source.

    These are the sources of the library, and `others`. What is lacking is only the output.
    """
    machine = _run([*cc, "-dumpmachine"]).partition("-")[0]
    special = _KERNELS.get(machine, {})
    foreign = {name for kernels in _KERNELS.values() for name in kernels} - special.keys()
    return {
        source: [
            *cc,
            *_FLAGS,
            *_WARNINGS,
            f"-I{FOLDER}",
            *special.get(source.name, ()),
            "-c",
            str(source),
        ]
        for source in (*sorted(FOLDER.rglob("*.c")), *others)
        if source.name not in foreign
    }


def is_fresh() -> bool:
    """Whether the library is there and newer than its sources and this file."""
    if not LIBRARY.is_file():
        return False
    built = LIBRARY.stat().st_mtime_ns
    sources = (*FOLDER.rglob("*.[ch]"), Path(__file__))
    return all(path.stat().st_mtime_ns <= built for path in sources)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise ModelError(
            f"the native engine is written in C, and no compiler runs as {command[0]!r}"
            f" ({error.strerror}); install gcc, or name another one in CC"
        ) from None
    if done.returncode:
        raise ModelError(f"{shlex.join(command)} failed:\n{done.stderr}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    return done.stdout


def main() -> None:
    """Build from the command line."""
    parser = argparse.ArgumentParser(description="compile the native engine")
    parser.add_argument("-o", "--output", type=Path, default=LIBRARY)
    parser.add_argument("--if-needed", action="store_true", help="only when a source is newer")
    arguments = parser.parse_args()
    if arguments.if_needed and arguments.output == LIBRARY and is_fresh():
        return
    try:
        build(arguments.output)
    except ModelError as error:
        sys.exit(f"piBLOOM: {error}")


if __name__ == "__main__":
    main()
