"""Numbers as people read them."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, and commas between thousands: "1,024 tokens"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def compact(count: int) -> str:
    """Return a large count in words: "1.3 million"."""
    for size, word in ((10**9, " billion"), (10**6, " million"), (10**3, " thousand")):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + word
    return str(count)


def byte_size(count: int) -> str:
    """Return a number of bytes in the largest unit that fits: "23.2 MB"."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{count / 10**6:.1f} MB" if count >= 10**6 else f"{count / 10**3:.1f} kB"


def seconds(duration: float) -> str:
    """Return a duration to a tenth of a second: "1.0 s"."""
    return f"{duration:.1f} s"


def token_rate(tokens_per_second: float) -> str:
    """Return a speed with as many digits as mean something: "12.3 tokens/s", "45 tokens/s"."""
    return f"{tokens_per_second:.{0 if tokens_per_second >= 20 else 1}f} tokens/s"


def shortened(digits: str) -> str:
    """Return a long number with its middle left out: "9223…5807"."""
    return digits if len(digits) <= 10 else f"{digits[:4]}…{digits[-4:]}"
