"""A second small BLOOM of quite another text than the demo's: source code in Python.

So that no format is tuned to one model: `python -m bench.second_model` trains it from a fixed seed
in a quarter of an hour on two cores and keeps it in the cache. Its text is the standard library of
the Python that runs it (PSF licence), a twentieth of whose files are held out.
"""

import hashlib
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from model.baked.cache import cache_folder
from model.demo.corpus import END

SEED, LAYERS, ENTRIES = 1, 4, 4096
STEPS, ROWS, PEAK_RATE, WARM_UP = 500, 4, 1e-3, 20
HELD_OUT = 20  # one file of so many


def texts(*, held_out: bool) -> Iterator[str]:
    """Yield the standard library's modules, in an order that is mixed but always the same."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [path for name in ("*.py", "*/*.py") for path in library.glob(name)]
    names = {
        hashlib.sha256(str(path.relative_to(library)).encode()).digest(): path
        for path in files
        if not {"site-packages", "test", "encodings"} & set(path.parts)  # encodings are tables
    }
    for digest, path in sorted(names.items()):
        if (digest[-1] % HELD_OUT == 0) == held_out:
            yield path.read_text(encoding="utf-8", errors="replace") + END


def folder() -> Path:
    """Return the checkpoint folder, training it first if need be."""
    found = cache_folder() / "bench" / "bloom-python"
    if not (found / "model.safetensors").exists():
        train(found)
    return found


def train(out: Path) -> None:
    """Train on the standard library from a fixed seed, and write a checkpoint folder."""
    from itertools import cycle, islice

    import torch
    from torch import nn

    from model.demo import train as demo

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = demo.train_tokenizer(texts(held_out=False), ENTRIES)
    tokenizer.save(str(out / "tokenizer.json"))
    model = demo.new_model(SEED, LAYERS, ENTRIES)
    loss_of = demo.Loss(model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    parts = list(pieces(texts(held_out=False)))
    random.Random(SEED).shuffle(parts)
    rows = demo.rows(tokenizer, cycle(parts))
    for step in range(STEPS):
        batch = torch.tensor(list(islice(rows, ROWS)))
        loss = loss_of(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min((step + 1) / WARM_UP, (STEPS - step) / STEPS)
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            print(f"step {step + 1} of {STEPS}: loss {loss.item():.3f}", flush=True)
    demo.write_checkpoint(model, out / "tokenizer.json", out)


def pieces(documents: Iterator[str], size: int = 2000) -> Iterator[str]:
    """Cut documents at line ends, so that a row of tokens is not always a module's first one."""
    for document in documents:
        part = ""
        for line in document.splitlines(keepends=True):
            part += line
            if len(part) >= size:
                yield part
                part = ""
        if part:
            yield part


if __name__ == "__main__":
    print(folder())
