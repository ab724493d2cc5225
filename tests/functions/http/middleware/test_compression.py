"""Long answers are compressed for those who ask."""

import gzip

import pytest
from flask.testing import FlaskClient

# RFC 9110, section 12.5.3
CODINGS = {
    "gzip": True,
    "GZIP": True,
    "x, gzip, y": True,
    "gzip;q=0.1": True,
    "*": True,
    "*;q=0.5": True,
    "deflate, gzip;q=1.0, *;q=0.5": True,
    "identity;q=0.5, gzip": True,
    "gzip;q=0": False,
    "gzip;q=0, *": False,
    "*;q=0": False,
    "identity": False,
    "identity, gzip;q=0.5": False,
    "deflate, br": False,
    "": False,
}


@pytest.mark.parametrize("length", [2000, 200_000])
@pytest.mark.parametrize("accepted", CODINGS)
def test_answers_are_compressed_for_those_who_ask(
    tokenize: FlaskClient, accepted: str, length: int
) -> None:
    body = {"text": "ab" * length}
    plain = tokenize.post("/", json=body)
    asked = tokenize.post("/", json=body, headers={"Accept-Encoding": accepted})
    assert plain.headers["Vary"] == asked.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in plain.headers
    if CODINGS[accepted]:
        assert asked.headers["Content-Encoding"] == "gzip"
        assert len(asked.data) < len(plain.data) / 2
        assert gzip.decompress(asked.data) == plain.data
        assert asked.headers.get("Content-Length") in (None, str(len(asked.data)))
    else:
        assert "Content-Encoding" not in asked.headers
        assert asked.data == plain.data


def test_what_is_short_is_not_compressed(tokenize: FlaskClient) -> None:
    asked = tokenize.post("/", json={"text": "Hi"}, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in asked.headers
