"""llama.cpp's logits: `.venv/llama.cpp/bin/python -m bench.llama_logits`, run by bench.quality.

With a checkpoint folder and FILE.gguf, writes the folder as float32 for llama.cpp; with FILE.gguf,
windows of token ids as JSON, and OUT.npy, writes the logits before each token but the first of each
window, and prints the bits a weight of all tensors.
"""

import json
import sys
from pathlib import Path


def write_logits(model: Path, windows: Path, out: Path) -> None:
    """Write logits as float32 [scored tokens, vocabulary]."""
    import numpy as np
    from gguf import GGUFReader
    from llama_cpp import Llama

    rows = json.loads(windows.read_text())
    length = max(map(len, rows))
    llama = Llama(
        str(model), n_ctx=length, n_batch=length, n_threads=1, logits_all=True, verbose=False
    )
    found = []
    for row in rows:
        llama.reset()
        llama.eval(row[:-1])
        found.append(llama.scores[: len(row) - 1].astype(np.float32))
    np.save(out, np.concatenate(found))
    tensors = GGUFReader(model).tensors
    size, count = sum(int(t.n_bytes) for t in tensors), sum(int(t.n_elements) for t in tensors)
    print(json.dumps({"bits": 8 * size / count}))


if __name__ == "__main__":
    arguments = list(map(Path, sys.argv[1:]))
    if len(arguments) == 2:
        from bench.weights import write_gguf

        write_gguf(arguments[0], arguments[1], "F32")
    else:
        write_logits(*arguments)
