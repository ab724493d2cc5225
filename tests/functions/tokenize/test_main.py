"""The tokenization function over HTTP, on the demo model's tokenizer."""

import subprocess
import sys
from dataclasses import fields

import pytest
from flask.testing import FlaskClient

from model.baked.card import ModelCard
from tests.functions.answers import check_error
from tests.functions.servers import ROOT


def test_a_text_becomes_tokens(tokenize: FlaskClient) -> None:
    text = "Hello, 你好 🌺"
    reply = tokenize.post("/", json={"text": text}).get_json()
    assert reply["count"] == len(reply["ids"]) == len(reply["pieces"]) == len(reply["offsets"])
    assert (reply["offsets"][0][0], reply["offsets"][-1][1]) == (0, len(text))
    # A piece of less than a character, as of the flower, is written otherwise than the text.
    parts = [text[start:end] for start, end in reply["offsets"]]
    for piece, part in zip(reply["pieces"], parts, strict=True):
        assert piece == part or part == "🌺"


def test_an_empty_text_has_no_tokens(tokenize: FlaskClient) -> None:
    reply = tokenize.post("/", json={"text": ""}).get_json()
    assert reply == {"ids": [], "pieces": [], "offsets": [], "count": 0}


@pytest.mark.parametrize("body", [{}, {"text": 3}, {"text": None}, {"text": "a", "x": 1}])
def test_a_bad_field_is_refused(tokenize: FlaskClient, body: object) -> None:
    check_error(tokenize.post("/", json=body), "invalid_field")


@pytest.mark.parametrize("body", [b'{"text": "\\ud800"}', b'{"text": "\xff"}', b"text"])
def test_what_is_no_text_is_refused(tokenize: FlaskClient, body: bytes) -> None:
    check_error(tokenize.post("/", data=body, content_type="application/json"), "not_json")


def test_it_needs_no_torch() -> None:
    source = ROOT / "functions" / "tokenize" / "main.py"
    code = (
        "import functions_framework, sys\n"
        f"app = functions_framework.create_app('tokenize', {str(source)!r})\n"
        "service = app.extensions['pibloom']\n"
        "service.start()\n"
        "assert service.wait(20)\n"
        "print(service.state, [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "ready []"


def test_probes_and_root_tell_the_state(tokenize: FlaskClient) -> None:
    assert tokenize.get("/healthz").json == {"status": "ok"}
    assert tokenize.get("/readyz").json == {"status": "ready"}
    root = tokenize.get("/").get_json()
    assert (root["service"], root["state"]) == ("tokenize", "ready")
    assert (root["model"]["name"], root["model"]["vocab_size"]) == ("pibloom-demo", 8192)
    assert {item.name for item in fields(ModelCard)} < root["model"].keys()


def test_tokens_become_text_again(tokenize: FlaskClient) -> None:
    ids = tokenize.post("/", json={"text": "Hi"}).get_json()["ids"]
    assert tokenize.post("/detokenize", json={"ids": ids}).json == {"text": "Hi"}
    refused = tokenize.post("/detokenize", json={"ids": [5, 10**9]})
    assert refused.get_json()["error"]["param"] == "ids[1]"
