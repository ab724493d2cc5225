"""The parts of a baked file."""

from model.baked.file import BakedModel


def tensors_and_tokenizer(model: BakedModel) -> bytes:
    """Return all that lies between a file's header and its description."""
    return model.path.read_bytes()[model.header.header_size : model.header.metadata_offset]
