"""Text that a model writes in the process of the command."""

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import DEMO, GREEDY, pibloom


def test_generate_heeds_the_settings_of_the_model(tmp_path: Path) -> None:
    """An error that names a setting must not be all that comes of it."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}")
    ask = ("generate", "--model", str(folder), *GREEDY, "--chat", "Hello")
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    refused = pibloom(*ask, **cache)
    assert refused.returncode == 3
    assert "PIBLOOM_CHAT_TEMPLATE can name another" in refused.stderr
    done = pibloom(*ask, PIBLOOM_CHAT_TEMPLATE="transcript", PIBLOOM_BITS="4", **cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert list((tmp_path / "pibloom").glob("demo-*-w4.bloom"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PIBLOOM_BITS", "5"),
        ("PIBLOOM_THREADS", "many"),
        ("PIBLOOM_KV_MEMORY", "1e9"),
        ("PIBLOOM_ENGINE", "odd"),
        ("PIBLOOM_MODLE", "x"),
    ],
)
def test_generate_names_a_setting_that_cannot_be(name: str, value: str) -> None:
    done = pibloom("generate", "Hi", **{name: value})
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr
