"""The model that a user names: a baked file or a checkpoint folder."""

from pathlib import Path

from model.baked.card import ModelCard
from model.baked.file import BakedModel, is_baked
from model.errors import ModelError
from model.hub_cache import hub_name, snapshot
from model.license import license_of
from model.names import default_model, folder_name, folder_revision
from model.text.tokenizer import Tokenizer


def located(path: Path) -> Path:
    """Return where a model is that a service is given: the path, or the folder of a pulled model.

    Services fetch nothing, so `ModelError` for a name on the hub that was not pulled.
    """
    if path.exists() or (model := hub_name(str(path))) is None:
        return path
    folder = snapshot(model)
    if not folder.is_dir():
        raise ModelError(
            f"{path} is neither a path here nor a model that was pulled, and a function fetches"
            f" none; pibloom pull {path} does, and build.sh puts it into an image"
        )
    return folder


def model_name(path: Path) -> str:
    """Return a model's name; `?` replaces what is not UTF-8 in it."""
    if is_baked(path):
        return model_card(path).name
    is_demo = path.resolve() == default_model().resolve()
    name = "pibloom-demo" if is_demo else folder_name(path)
    return name.encode(errors="replace").decode()


def model_card(path: Path) -> ModelCard:
    """Return what a baked file says of its model, or of a checkpoint folder what it tells."""
    if is_baked(path):
        return card_of(BakedModel(path))
    revision, license_ = folder_revision(path), license_of(path)
    return ModelCard.read({"name": model_name(path), "revision": revision, "license": license_})


def card_of(model: BakedModel) -> ModelCard:
    """Return what a baked model says of itself; one without a name is called as its file."""
    stem = model.path.stem.encode(errors="replace").decode()
    return ModelCard.read({"name": stem} | dict(model.metadata))


def open_tokenizer(path: Path) -> Tokenizer:
    """Open a baked model's tokenizer, or compile a checkpoint folder's."""
    return BakedModel(path).tokenizer() if is_baked(path) else Tokenizer.open(path)
