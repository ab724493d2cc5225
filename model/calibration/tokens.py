"""The tokens that a model is calibrated on: a text's, or what the model writes itself."""

from collections.abc import Callable, Sequence

import torch

from model.baked.file import BakedModel
from model.engine.contract import Work
from model.engine.native import NativeEngine, NativeLogits
from model.errors import ModelError

# More tokens did not help: the mean divergence was 2.8e-3 with 4 windows of 512, 2.4e-3 with 16
# and 2.5e-3 with 64.
WINDOW, WINDOWS = 512, 16
FEWEST = 4 * WINDOW
_SEED = 1
OWN = "what the model writes itself"

Windows = Sequence[Sequence[int]]


def windows_of(ids: Sequence[int], context: int, most: int = WINDOWS) -> list[list[int]]:
    """Take windows of one length from all over a text; `ModelError` when it is too short."""
    size = min(WINDOW, context)
    if len(ids) < FEWEST:
        raise ModelError(
            f"the text to calibrate on has {len(ids)} tokens; at least {FEWEST} are needed, and"
            f" {WINDOW * WINDOWS} are used"
        )
    count = min(WINDOW * most // size, len(ids) // size)
    step = (len(ids) - size) / max(1, count - 1)
    starts = [round(at * step) for at in range(count)]
    return [list(ids[start : start + size]) for start in starts]


def written_by(
    model: BakedModel, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[list[int]]:
    """Let a model write texts, each after the token that ended the text before it in training.

    Tokens are drawn as the model's distribution has them, by a fixed seed.
    """
    size = min(WINDOW, model.config.max_context)
    count = WINDOW * WINDOWS // size
    first = (model.config.eos_token_ids or (0,))[0]
    # Keys and values take 2.13 bytes a column, in pages of some tokens.
    places = min(count, WINDOWS) * (size + 64)
    room = 3 * model.config.layers * model.config.hidden_size * places
    engine = NativeEngine(model, kv_bytes=max(room, 16 << 20), cache_bytes=0)
    random = torch.Generator().manual_seed(_SEED)
    written: list[list[int]] = []
    try:
        for start in range(0, count, WINDOWS):
            texts = [[first] for _ in range(min(WINDOWS, count - start))]
            sequences = [engine.new_sequence(capacity=size) for _ in texts]
            for length in range(1, size):
                works = [
                    Work(sequence, text[-1:])
                    for sequence, text in zip(sequences, texts, strict=True)
                ]
                for text, logits in zip(texts, engine.forward(works), strict=True):
                    assert isinstance(logits, NativeLogits)
                    values = torch.frombuffer(logits.all(), dtype=torch.float32)
                    chances = values.softmax(0)
                    if not chances.isfinite().all():
                        raise ModelError("the model's own text is not a number: damaged weights")
                    text.append(int(chances.multinomial(1, generator=random)))
                progress(start * size + length * len(texts), count * size)
            for sequence in sequences:
                engine.release(sequence)
            written += texts
    finally:
        engine.close()
    return written
