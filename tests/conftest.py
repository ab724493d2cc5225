"""What all tests have in common, and `--fast`, which leaves out what takes long."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

import pytest

# Slow to import, and not in requirements/test-fast.txt.
SLOW_PACKAGES = {
    "huggingface_hub",
    "matplotlib",
    "numpy",
    "peft",
    "playwright",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help="skip what is marked as slow, starts a process, or imports torch or a browser",
    )


def pytest_configure(config: pytest.Config) -> None:
    starts_workers = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if config.getoption("--fast") and not starts_workers:
        platform.platform()  # starts a process the first time
        sys.meta_path.insert(0, _SkipSlowPackages())
        pytest.MonkeyPatch().setattr(subprocess.Popen, "__init__", _skip_process)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


class _SkipSlowPackages(MetaPathFinder):
    """Skips the test, or the module of tests, that imports a package that is slow to import.

    No list of slow tests has to be kept: what needs such a package is skipped where it needs it.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in SLOW_PACKAGES:
            pytest.skip(f"imports {name}", allow_module_level=True)


def _skip_process(*_: object, **__: object) -> None:
    """Skip the test, or the module of tests, that starts a process."""
    pytest.skip("starts a process", allow_module_level=True)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests bake out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
