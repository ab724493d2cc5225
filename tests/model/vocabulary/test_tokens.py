"""Which scripts a token is of, if it is of whole characters or not."""

import pytest

from model.vocabulary.tokens import MIXED, PIECES, KeptScripts, kind_of, split


@pytest.mark.parametrize(
    ("token", "parts"),
    [
        (b"abc", (b"", "abc", b"")),
        ("é你".encode(), (b"", "é你", b"")),
        ("你好".encode()[1:], (b"\xbd\xa0", "好", b"")),
        ("a你好".encode()[:-1], (b"", "a你", b"\xe5\xa5")),
        ("你".encode()[:1], (b"", "", b"\xe4")),
        ("🙂".encode()[1:], (b"\x9f\x99\x82", "", b"")),
        ("🙂".encode()[1:3], (b"\x9f\x99", "", b"")),
        ("🙂a🙂".encode()[2:-2], (b"\x99\x82", "a", b"\xf0\x9f")),
        (b"", (b"", "", b"")),
        (b"\x80\x80\x80\x80", (b"", None, b"")),
        (b"a\xff", (b"", None, b"")),
        (b"\xc0\x80", (b"", None, b"")),
        (b"\xed\xa0\x80", (b"", None, b"")),
    ],
)
def test_a_token_is_split_at_whole_characters(
    token: bytes, parts: tuple[bytes, str | None, bytes]
) -> None:
    assert split(token) == parts


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (" the", "Latin"),
        ("1.", "Common"),
        ("e\u0301", "Latin"),
        ("\u0301", "Common"),
        ("你a", MIXED),
        ("नम", "Devanagari"),
        ("\ue000", "Unknown"),
    ],
)
def test_the_kind_of_a_token_is_its_script(token: str, kind: str) -> None:
    assert kind_of(token.encode()) == kind
    assert kind_of(token.encode() + b"\xe4") == PIECES


def test_pieces_of_characters_are_kept_with_their_script() -> None:
    han, latin = KeptScripts(["Han"]), KeptScripts(["Latin"])
    for token in ("龘".encode()[:2], "a龘".encode()[:3][1:], "龘".encode()[1:], " 龘".encode()[:3]):
        assert han.hold(token)
    assert not latin.hold(" 龘".encode()[:3])
    assert not han.hold("д".encode()[:1])
    assert latin.hold("é".encode()[:1])
    for token in (b"", b"\xff", b"a\xff", b"\xc0"):
        assert not latin.hold(token), "it can be in no text"


@pytest.mark.parametrize("token", [" 12", "…", "🙂", "🙂".encode()[:3].decode("latin-1"), "\u0301"])
def test_what_all_scripts_share_goes_with_each(token: str) -> None:
    data = token.encode("latin-1") if token[0] == "ð" else token.encode()
    for scripts in (["Latin"], ["Han"], ["Runic"]):
        assert KeptScripts(scripts).hold(data)
