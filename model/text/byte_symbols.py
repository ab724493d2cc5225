"""Byte-level BPE's alphabet: each byte is written as one printable character (Radford et al. 2019).

GPT-2 introduced it, so that a vocabulary is text without spaces or control characters.
"""


def _byte_symbols() -> dict[str, int]:
    """Return the byte that each of GPT-2's 256 printable stand-ins means (Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTE_OF = _byte_symbols()
SYMBOLS = frozenset(_BYTE_OF)  # the characters that vocabularies are written in
SYMBOL_OF = {byte: symbol for symbol, byte in _BYTE_OF.items()}


def bytes_of_symbols(symbols: str) -> bytes:
    """Return the bytes that a token stands for; one with other characters stands for itself."""
    try:
        return bytes(_BYTE_OF[symbol] for symbol in symbols)
    except KeyError:
        return symbols.encode()
