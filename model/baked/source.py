"""The model that a user names: a baked file or a checkpoint folder."""

from pathlib import Path

from model.baked.file import BakedModel, is_baked
from model.names import default_model, folder_name
from model.text.tokenizer import Tokenizer


def model_name(path: Path) -> str:
    """Return a model's name; `?` replaces what is not UTF-8 in it."""
    if is_baked(path):
        name = str(BakedModel(path).metadata.get("name", path.stem))
    elif path.resolve() == default_model().resolve():
        name = "pibloom-demo"
    else:
        name = folder_name(path)
    return name.encode(errors="replace").decode()


def open_tokenizer(path: Path) -> Tokenizer:
    """Open a baked model's tokenizer, or compile a checkpoint folder's."""
    return BakedModel(path).tokenizer() if is_baked(path) else Tokenizer.open(path)
