"""The layout of `model.bloom`, as `model/native/bloom.h` declares it.

A test compares every field and constant with the C; the sizes are compared when the library loads.
"""

import ctypes

SUFFIX = ".bloom"
MAGIC = b"\x89BLOOM\r\n"
VERSION = 3  # 2 had no output head of its own; 1 a single end token, and fewer checks
KINDS = (
    ("word_embeddings.high", ""),
    ("word_embeddings.low", ""),
    ("word_embeddings.norm", ""),
    ("word_embeddings.weight", ""),
    ("word_embeddings_layernorm.weight", ""),
    ("word_embeddings_layernorm.bias", ""),
    ("input_layernorm.weight", "h."),
    ("input_layernorm.bias", "h."),
    ("self_attention.query_key_value.weight", "h."),
    ("self_attention.query_key_value.bias", "h."),
    ("self_attention.dense.weight", "h."),
    ("self_attention.dense.bias", "h."),
    ("post_attention_layernorm.weight", "h."),
    ("post_attention_layernorm.bias", "h."),
    ("mlp.dense_h_to_4h.weight", "h."),
    ("mlp.dense_h_to_4h.bias", "h."),
    ("mlp.dense_4h_to_h.weight", "h."),
    ("mlp.dense_4h_to_h.bias", "h."),
    ("ln_f.weight", ""),
    ("ln_f.bias", ""),
    ("lm_head.high", ""),
    ("lm_head.low", ""),
    ("lm_head.norm", ""),
    ("lm_head.weight", ""),
)  # in the order of `enum bloom_kind`: what a checkpoint calls it, and what it puts before


class Header(ctypes.LittleEndianStructure):
    """`struct bloom_header`: the first bytes of a file."""

    _fields_ = (
        ("magic", ctypes.c_uint8 * 8),
        ("version", ctypes.c_uint32),
        ("byte_order", ctypes.c_uint32),
        ("file_size", ctypes.c_uint64),
        ("sha256", ctypes.c_uint8 * 32),
        ("header_size", ctypes.c_uint32),
        ("header_crc", ctypes.c_uint32),
        ("vocab_rows", ctypes.c_uint32),
        ("n_vocab", ctypes.c_uint32),
        ("hidden", ctypes.c_uint32),
        ("layers", ctypes.c_uint32),
        ("heads", ctypes.c_uint32),
        ("max_context", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("epsilon", ctypes.c_float),
        ("bits", ctypes.c_uint32),
        ("tensors", ctypes.c_uint32),
        ("tokenizer_offset", ctypes.c_uint64),
        ("tokenizer_size", ctypes.c_uint64),
        ("metadata_offset", ctypes.c_uint64),
        ("metadata_size", ctypes.c_uint64),
    )


class TensorEntry(ctypes.LittleEndianStructure):
    """`struct bloom_tensor`: a tensor's kind, shape and place; the entries follow the header."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("layer", ctypes.c_uint32),
        ("format", ctypes.c_uint32),
        ("rows", ctypes.c_uint32),
        ("cols", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


class PackStats(ctypes.Structure):
    """`struct bloom_pack_stats`: what quantising cost a tensor."""

    _fields_ = (
        ("squared_error", ctypes.c_double),
        ("squares", ctypes.c_double),
        ("largest_error", ctypes.c_double),
        ("lost", ctypes.c_double),
        ("lost_of_row", ctypes.c_double),
    )


def tensor_name(kind: int, layer: int) -> str:
    """Return what a checkpoint calls a tensor; `kind` is of `enum bloom_kind`."""
    name, prefix = KINDS[kind]
    return f"{prefix}{layer}.{name}" if prefix else name
