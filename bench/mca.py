"""What the Cortex-A72's pipelines make of the NEON kernels: `python -m bench.mca`.

The kernels are compiled as they ship, the innermost loop of each is taken from the assembly, and
LLVM's machine code analyser counts its cycles. It models an A72 by its A57's tables; caches and
memory are left out.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from model.native.build import FOLDER, compile_commands

RESULT = Path(__file__).parent / "results" / "mca.md"
ITERATIONS = 200
MULTIPLY = re.compile(r"\b[su]ml[a-z]*l2?\b|\b[su]mull2?\b|\b[su]mlal2?\b")
BRANCH = re.compile(r"(b|b\.?(eq|ne|lt|le|gt|ge|hi|hs|lo|ls|cc|cs|mi|pl)|cbn?z|tbn?z)\s")
PRODUCTS = 8  # of a multiplication of bytes: a result register of 8 halfwords


def inner_loops(assembly: str) -> dict[str, list[str]]:
    """Return each function's block of straight code that multiplies most."""
    found: dict[str, list[str]] = {}
    function, block = "", list[str]()
    for line in [*assembly.splitlines(), "end:"]:
        text = line.split("//")[0].strip()
        label = re.fullmatch(r"([\w.]+):", text)
        if label:
            if len(_multiplies(block)) > len(_multiplies(found.get(function, []))):
                found[function] = block
            if not label[1].startswith(".L"):
                function = label[1]
            block = []
        elif text and not text.startswith("."):
            block.append(text)
            if BRANCH.match(text):
                if len(_multiplies(block)) > len(_multiplies(found.get(function, []))):
                    found[function] = block
                block = []
    return found


def _multiplies(block: list[str]) -> list[str]:
    return [line for line in block if MULTIPLY.search(line) and ".8h" in line]


def cycles(block: list[str]) -> float:
    """Return the cycles that one pass of a block takes on a Cortex-A72."""
    command = ["llvm-mca", "-march=aarch64", "-mcpu=cortex-a72", f"-iterations={ITERATIONS}"]
    done = subprocess.run(
        command, input="\n".join(block), capture_output=True, text=True, check=True
    )
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert total, done.stdout
    return int(total[1]) / ITERATIONS


def main() -> None:
    """Compile, analyse, and write the table."""
    for tool in ("llvm-mca", "aarch64-linux-gnu-gcc"):
        if not shutil.which(tool):
            sys.exit(f"piBLOOM: {tool} is needed; install llvm and gcc-aarch64-linux-gnu")
    source = FOLDER / "kernels" / "neon.c"
    command = [*compile_commands(["aarch64-linux-gnu-gcc"])[source], "-g0", "-S", "-o", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [
        "# The NEON kernels on a Cortex-A72, by llvm-mca",
        "",
        "Made by `python -m bench.mca`: the innermost loop of each kernel, without memory.",
        "",
        "| kernel | multiply-accumulates a pass | cycles a pass | a cycle |",
        "|---|---|---|---|",
    ]
    for name, block in inner_loops(done.stdout).items():
        if name in ("matmul_w8", "matmul_w4", "low_dot", "matmul"):
            products, spent = PRODUCTS * len(_multiplies(block)), cycles(block)
            lines.append(f"| {name} | {products} | {spent:.1f} | {products / spent:.2f} |")
    text = "\n".join(lines) + "\n"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
