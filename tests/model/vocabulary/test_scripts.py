"""Unicode's scripts: every character, every name."""

import sys

import pytest

from model.errors import ModelError
from model.vocabulary.scripts import characters_of, script_of, scripts_named

unicode = pytest.importorskip("fontTools.unicodedata")


def test_every_character_has_the_script_that_fonttools_gives_it() -> None:
    names = unicode.Scripts.NAMES
    wrong = [
        code
        for code in range(sys.maxunicode + 1)
        if script_of(chr(code)) != names[unicode.script(chr(code))]
    ]
    assert not wrong[:5]


def test_the_table_is_as_it_is_written_anew() -> None:
    from scripts.unicode_scripts import TABLE, table

    assert TABLE.read_text(encoding="ascii") == table()


def test_every_script_is_found_by_its_name_and_its_code_in_any_case() -> None:
    for code, name in unicode.Scripts.NAMES.items():
        if code not in ("Zzzz", "Hrkt"):  # which no character has
            assert scripts_named(code.upper()) == scripts_named(name.lower()) == (name,)
            assert scripts_named(f" {name.replace('_', ' ')}") == (name,)
            assert {script_of(each) for each in characters_of(name)} == {name}


def test_codes_for_several_scripts_are_those_scripts() -> None:
    assert scripts_named("jpan") == ("Han", "Hiragana", "Katakana")
    assert scripts_named("Hans") == scripts_named("hant") == scripts_named("Hani") == ("Han",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Latim", "did you mean Latin"),
        ("arabik", "did you mean Arabic"),
        ("Devnagari", "did you mean Devanagari"),
        ("", "no script ''"),
        ("Klingon", "no script 'Klingon'"),
        ("Zzzz", "no script 'Zzzz'"),
        ("x" * 10_000, "no script 'xxx"),
    ],
)
def test_an_unknown_script_is_refused_with_those_that_are_called_alike(
    name: str, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        scripts_named(name)
    assert len(str(refused.value)) < 200
