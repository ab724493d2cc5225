"""Small random BLOOMs in the hub's format, and the demo model."""

import shutil
from pathlib import Path

import pytest

from model.demo.corpus import CHAT_TEMPLATE
from model.names import default_model


@pytest.fixture(scope="session")
def demo() -> Path:
    """The checkpoint folder that the project ships."""
    return default_model()


@pytest.fixture(scope="session")
def random_bloom(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A BLOOM of 6 heads (no power of two), random weights, with the demo's tokenizer."""
    torch = pytest.importorskip("torch")
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path_factory.mktemp("random") / "bloom-random"
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=8200, hidden_size=96, n_layer=3, n_head=6, initializer_range=0.2, seq_length=128
    )
    BloomForCausalLM(config).save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def untied_bloom(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A BLOOM with heads of 86, as the Finnish ones have, and an output head of its own."""
    torch = pytest.importorskip("torch")
    from transformers import BloomConfig, BloomForCausalLM

    folder = tmp_path_factory.mktemp("untied") / "bloom-untied"
    torch.manual_seed(3)
    config = BloomConfig(
        vocab_size=8192, hidden_size=172, n_layer=2, n_head=2, initializer_range=0.1,
        seq_length=128, tie_word_embeddings=False,
    )  # fmt: skip
    BloomForCausalLM(config).save_pretrained(folder)
    shutil.copy(demo / "tokenizer.json", folder)
    return folder
