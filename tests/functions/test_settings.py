"""Settings are checked once, at the start, by name."""

from dataclasses import Field, asdict, fields
from pathlib import Path

import pytest

from common.settings import PREFIX, Secret, SettingsError
from functions.settings import Settings, keys_of, origins_of, table
from tests.foreign import FOREIGN
from tests.functions.servers import ROOT


def test_the_environment_is_read_and_others_variables_are_left_alone() -> None:
    found = Settings.read(
        {
            "PIBLOOM_MAX_BATCH": "3",
            "PIBLOOM_MODEL": "/models/b",
            "PATH": "x",
            "PIBLOOM_UI_SECRET": "s",
        }
    )
    assert (found.max_batch, found.model) == (3, Path("/models/b"))
    assert found.max_queue == Settings().max_queue


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PIBLOOM_MAX_BACTH", "3", "not a setting"),
        ("PIBLOOM_MAX_BATCH", "0", "from 1 to 64"),
        ("PIBLOOM_MAX_BATCH", "many", "whole number"),
        ("PIBLOOM_MAX_BODY", "10", "at least 1024"),
        ("PIBLOOM_DEADLINE", "nan", "from 1"),
        ("PIBLOOM_ENGINE", "warp", "reference"),
        ("PIBLOOM_BITS", "5", "one of 8, 4, not '5'"),
        ("PIBLOOM_LOG_LEVEL", "loud", "WARNING"),
    ],
)
def test_an_unknown_name_or_a_bad_value_is_one_sentence(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refusal:
        Settings.read({name: value})
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_readme_lists_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    assert table() in readme
    for item in fields(Settings):
        assert f"`{PREFIX}{item.name.upper()}`" in readme


@pytest.mark.parametrize("name", [PREFIX + item.name.upper() for item in fields(Settings)])
def test_an_empty_variable_is_one_that_is_not_given(name: str) -> None:
    assert Settings.read({name: ""}) == Settings()


@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_quotes_that_no_shell_took_away_are_refused(item: Field[object]) -> None:
    name = PREFIX + item.name.upper()
    for text in ('"8"', "'/models/b'", '""'):
        with pytest.raises(SettingsError, match=f"{name} is set with quotes") as refusal:
            Settings.read({name: text})
        assert "8" not in str(refusal.value)


def test_keys_are_shown_nowhere() -> None:
    settings = Settings.read({"PIBLOOM_API_KEYS": "sk-1234,sk-5678"})
    assert keys_of(settings) == ("sk-1234", "sk-5678")
    key = settings.api_keys
    for shown in (
        repr(settings),
        str(settings),
        f"{settings} {key} {key!r}",
        str(asdict(settings)),
    ):
        assert "sk-" not in shown
    for keys in ("sk-1234\x07", "sk-é1234", '"sk-1234"', " , "):
        with pytest.raises(SettingsError) as refusal:
            Settings.read({"PIBLOOM_API_KEYS": keys})
        assert "1234" not in str(refusal.value)


@pytest.mark.parametrize("name", ["PIBLOOM_MODEL", "PIBLOOM_CHAT_TEMPLATE"])
def test_a_tilde_is_the_home_folder(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = Settings.read({name: "~/x"})
    assert str(getattr(found, name.removeprefix(PREFIX).lower())) == "/home/me/x"
    with pytest.raises(SettingsError, match="home folder"):
        Settings.read({name: "~nobody-of-this-name/x"})


def test_a_tilde_in_the_keys_file_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("sk-1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keys_of(Settings.read({"PIBLOOM_API_KEYS_FILE": "~/keys"})) == ("sk-1",)


LINKS = {name: text for name, text in FOREIGN["kubernetes"].items() if name.startswith(PREFIX)}


@pytest.mark.parametrize("name", LINKS)
def test_service_links_of_kubernetes_are_left_alone(name: str) -> None:
    assert Settings.read({name: LINKS[name]}) == Settings()


@pytest.mark.parametrize(
    "name",
    [
        "PIBLOOM_PORT",
        "PIBLOOM_UI_PORT",
        "PIBLOOM_HOST",
        "PIBLOOM_SERVICE",
        "PIBLOOM_PORT_80",
        "PIBLOOM_SERVICE_HOSTS",
        "PIBLOOM_MODELS",
        "PIBLOOM_",
    ],
)
def test_what_only_resembles_a_service_link_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.read({name: "9000"})


def test_a_key_file_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(SettingsError, match="PIBLOOM_API_KEYS_FILE"):
        keys_of(Settings(api_keys_file="/nothing/here"))


@pytest.mark.parametrize("origins", ["*", "https://a.example/", "a.example"])
def test_an_origin_that_no_browser_sends_is_refused(origins: str) -> None:
    with pytest.raises(SettingsError, match="PIBLOOM_CORS_ORIGINS"):
        origins_of(Settings(cors_origins=origins))


@pytest.mark.parametrize("keys", [" , ", "kéy"])
def test_keys_that_are_none_do_not_open_the_door(keys: str) -> None:
    with pytest.raises(SettingsError):
        keys_of(Settings(api_keys=Secret(keys)))
