"""How long a reply took, as all routes but Ollama's say it."""

import msgspec

from model.serving import events


class Timings(msgspec.Struct, kw_only=True):
    """How long a reply took, in milliseconds, and how fast it was written."""

    queued_ms: float
    prefill_ms: float
    decode_ms: float
    tokens_per_second: float


def timings_of(done: events.Done) -> Timings:
    """Return the timings of a finished reply, rounded to a tenth."""
    return Timings(
        queued_ms=round(done.queued_s * 1000, 1),
        prefill_ms=round(done.prefill_s * 1000, 1),
        decode_ms=round(done.decode_s * 1000, 1),
        tokens_per_second=round(done.tokens_per_second, 1),
    )
