"""The chat's settings: defaults, and one sentence for everything that cannot be used."""

from dataclasses import asdict, replace

import pytest

from common.settings import FUNCTION_NAMES, UI_NAMES, Secret, SettingsError
from tests.foreign import FOREIGN
from ui.settings import GENERATE_URL, Settings


def test_nothing_set_means_the_documented_addresses() -> None:
    settings = Settings.read({})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.generate_url == GENERATE_URL == "http://127.0.0.1:8081"
    assert settings.tokenize_url == "http://127.0.0.1:8082"


def test_an_absent_secret_is_random_and_a_given_one_is_kept() -> None:
    assert Settings.read({}).secret != Settings.read({}).secret
    given = Settings.read({"PIBLOOM_UI_SECRET": "0123456789abcdef"})
    assert given.secret.reveal() == "0123456789abcdef"
    assert not given.secret_is_random


def test_an_address_loses_its_last_slash_and_keeps_its_path() -> None:
    settings = Settings.read({"PIBLOOM_GENERATE_URL": "https://pi.example/generate/"})
    assert settings.generate_url == "https://pi.example/generate"


def test_the_functions_settings_are_known_and_ignored() -> None:
    assert Settings.read(dict.fromkeys(FUNCTION_NAMES, "anything")).port == 8080


def test_secrets_are_not_shown() -> None:
    given = Settings.read({"PIBLOOM_UI_SECRET": "0123456789abcdef", "PIBLOOM_API_KEY": "my-key"})
    assert given.api_key.reveal() == "my-key"
    for shown in (repr(given), str(given), f"{given.api_key}{given.secret}", repr(asdict(given))):
        assert "my-key" not in shown
        assert "0123456789abcdef" not in shown


def test_its_own_address_goes_before_the_platforms() -> None:
    assert Settings.read({"HOST": "0.0.0.0"}).host == "0.0.0.0"
    assert Settings.read({"PORT": "9000"}).port == 9000


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"PIBLOOM_GENRATE_URL": "http://x"}, "PIBLOOM_GENRATE_URL"),
        ({"PIBLOOM_GENERATE_URL": "127.0.0.1:8081"}, "PIBLOOM_GENERATE_URL"),
        ({"PIBLOOM_GENERATE_URL": "ftp://x"}, "PIBLOOM_GENERATE_URL"),
        ({"PIBLOOM_GENERATE_URL": "http://x:99999"}, "PIBLOOM_GENERATE_URL"),
        ({"PIBLOOM_TOKENIZE_URL": "http://"}, "PIBLOOM_TOKENIZE_URL"),
        ({"PIBLOOM_TOKENIZE_URL": "http://x/?a=b"}, "PIBLOOM_TOKENIZE_URL"),
        ({"PIBLOOM_UI_SECRET": "short"}, "PIBLOOM_UI_SECRET"),
        ({"PIBLOOM_UI_ORIGINS": "*"}, "PIBLOOM_UI_ORIGINS"),
        ({"PIBLOOM_UI_ORIGINS": "pi.example"}, "PIBLOOM_UI_ORIGINS"),
        ({"PIBLOOM_UI_ORIGINS": "https://pi.example/path"}, "PIBLOOM_UI_ORIGINS"),
        ({"PIBLOOM_UI_ORIGINS": "https://a, https://b:x"}, "PIBLOOM_UI_ORIGINS"),
        ({"PORT": "0"}, "PORT"),
        ({"PIBLOOM_API_KEY": "kéy"}, "PIBLOOM_API_KEY"),
        ({"PIBLOOM_PORT": "9000"}, "PIBLOOM_PORT"),
        ({"PORT": "eighty"}, "PORT"),
        ({"PORT": "tcp://10.0.0.1:80"}, "PORT"),
        ({"PIBLOOM_UI_PORT": "9000"}, "PIBLOOM_UI_PORT"),
        ({"PIBLOOM_SERVICE": "x"}, "PIBLOOM_SERVICE"),
        ({"PIBLOOM_GENERATE_URL": "http://me:word@x"}, "PIBLOOM_GENERATE_URL"),
        ({"PIBLOOM_GENERATE_URL": "http://[::1"}, "PIBLOOM_GENERATE_URL"),
        ({"PIBLOOM_GENERATE_URL": '"http://x"'}, "PIBLOOM_GENERATE_URL is set with quotes"),
        ({"PIBLOOM_API_KEY": "'word'"}, "PIBLOOM_API_KEY is set with quotes"),
    ],
)
def test_a_bad_setting_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refusal:
        Settings.read(environ)
    assert "word" not in str(refusal.value).replace("password", "")


@pytest.mark.parametrize("name", sorted(UI_NAMES | {"HOST", "PORT"}))
def test_an_empty_variable_is_one_that_is_not_given(name: str) -> None:
    found = Settings.read({name: ""})
    assert replace(found, secret=Secret()) == replace(Settings.read({}), secret=Secret())


LINKS = {name: text for name, text in FOREIGN["kubernetes"].items() if name.startswith("PIBLOOM_")}


@pytest.mark.parametrize("name", LINKS)
def test_service_links_of_kubernetes_are_left_alone(name: str) -> None:
    assert Settings.read({name: LINKS[name]}).port == 8080
