"""What Python declares a second time is what the C declares, field by field and value by value."""

import ctypes
import subprocess
from pathlib import Path

import pytest

from model.baked import bake, format
from model.checkpoint import weights
from model.engine import native, pages
from model.errors import ModelError
from model.native import check_struct
from model.native.build import FOLDER
from model.text import compiled

STRUCTS: dict[str, type[ctypes.Structure]] = {
    "bloom_header": format.Header,
    "bloom_tensor": format.TensorEntry,
    "bloom_pack_stats": format.PackStats,
    "bloom_work": native._Work,
    "bloom_gptq": weights.Gptq,
    "tokenizer_header": compiled.TokenizerHeader,
    "added": compiled.AddedEntry,
}
VALUES = {
    "BLOOM_VERSION": format.VERSION,
    "BLOOM_KINDS": len(format.KINDS),
    "BLOOM_EMBED_HIGH": bake._EMBEDDING[0],
    "BLOOM_EMBED_NORM": bake._EMBEDDING[-1],
    "BLOOM_EMBED_F32": bake._EMBEDDING_F32,
    "BLOOM_HEAD_HIGH": bake._HEAD[0],
    "BLOOM_HEAD_NORM": bake._HEAD[-1],
    "BLOOM_HEAD_F32": bake._HEAD_F32,
    "BLOOM_F32": bake.F32,
    "BLOOM_W8": bake.W8,
    "BLOOM_W4": bake.W4,
    "BLOOM_LOW": bake.LOW,
    "BLOOM_W5": bake.W5,
    "BLOOM_LOW2": bake.LOW2,
    "BLOOM_NOT_FINITE": bake._NOT_FINITE,
    "BLOOM_TOO_LARGE": bake._TOO_LARGE,
    "BLOOM_GROUP": weights.GROUP,
    "BLOOM_GPTQ_ASYMMETRIC": weights.ASYMMETRIC,
    "BLOOM_GPTQ_SCALE": weights.BAD_SCALE,
    "BLOOM_GPTQ_GROUP": weights.BAD_GROUP,
    "BLOOM_GPTQ_ZERO": weights.BAD_ZERO,
    "BLOOM_PAGE": pages.PAGE,
    "TOKENIZER_VERSION": compiled.VERSION,
    "ADDED_SPECIAL": compiled.IS_SPECIAL,
    "ADDED_SINGLE_WORD": compiled.SINGLE_WORD,
    "ADDED_LSTRIP": compiled.LSTRIP,
    "ADDED_RSTRIP": compiled.RSTRIP,
    "ADDED_NEVER": compiled.NEVER,
    "TRIM_SPACES": compiled.TRIM_SPACES,
    "TRIM_BUT_FIRST": compiled.TRIM_BUT_FIRST,
}


def in_c(expressions: list[str], folder: Path) -> dict[str, int]:
    """Return what constant expressions of the C headers amount to."""
    lines = "".join(f'    printf("%ld\\n", (long)({each}));\n' for each in expressions)
    source = folder / "values.c"
    source.write_text(
        '#include <stdio.h>\n#include "bloom.h"\n#include "tokenizer.h"\n'
        f"int main(void) {{\n{lines}    return 0;\n}}\n"
    )
    program = folder / "values"
    subprocess.run(["cc", f"-I{FOLDER}", str(source), "-o", str(program)], check=True)
    found = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    return dict(zip(expressions, map(int, found.stdout.split()), strict=True))


@pytest.mark.parametrize("name", STRUCTS)
def test_a_structure_is_declared_alike(name: str, tmp_path: Path) -> None:
    expected = {f"sizeof(struct {name})": ctypes.sizeof(STRUCTS[name])}
    for field, *_ in STRUCTS[name]._fields_:
        place = getattr(STRUCTS[name], field)
        expected[f"offsetof(struct {name}, {field})"] = place.offset
        expected[f"sizeof(((struct {name} *)0)->{field})"] = place.size
    assert in_c(list(expected), tmp_path) == expected


def test_constants_are_declared_alike(tmp_path: Path) -> None:
    assert in_c(list(VALUES), tmp_path) == VALUES


@pytest.mark.parametrize("name", STRUCTS)
def test_the_library_tells_the_sizes(name: str) -> None:
    check_struct(name, STRUCTS[name])


def test_a_library_of_other_sources_is_refused() -> None:
    class Longer(ctypes.Structure):
        _fields_ = (("work", native._Work), ("more", ctypes.c_uint32))

    with pytest.raises(ModelError, match="other sources.*build it again"):
        check_struct("bloom_work", Longer)
    with pytest.raises(ModelError, match="other sources"):
        check_struct("bloom_unknown", Longer)
