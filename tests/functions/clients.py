"""The function `tokenize` as a Flask test client, with settings of its own."""

from typing import Any

import functions_framework
import pytest

from tests.functions.servers import ROOT


def tokenize_client(patch: pytest.MonkeyPatch, **settings: str) -> Any:
    """Load the function with settings, such as API_KEYS."""
    for name, value in settings.items():
        patch.setenv(f"PIBLOOM_{name}", value)
    source = ROOT / "functions" / "tokenize" / "main.py"
    app = functions_framework.create_app("tokenize", str(source))
    service = app.extensions["pibloom"]
    service.start()
    service.wait(20)
    return app.test_client()


def post_text(client: Any, **headers: str) -> Any:
    return client.post("/", json={"text": "Hi"}, headers=headers)
