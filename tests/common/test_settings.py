"""What the settings of all processes have in common."""

from dataclasses import fields, replace

import pytest

import ui.settings
from common.settings import (
    COMMAND_NAMES,
    FUNCTION_NAMES,
    PREFIX,
    UI_NAMES,
    Secret,
    is_quoted,
    is_setting,
)
from functions.settings import Settings
from tests.foreign import FOREIGN

LINKS = {name: text for name, text in FOREIGN["kubernetes"].items() if name.startswith(PREFIX)}


def test_the_functions_settings_are_known_to_all() -> None:
    """One environment serves all: a name that the chat did not know would stop it."""
    assert {PREFIX + item.name.upper() for item in fields(Settings)} == FUNCTION_NAMES
    assert not FUNCTION_NAMES & UI_NAMES
    assert not COMMAND_NAMES & (FUNCTION_NAMES | UI_NAMES)


def test_what_only_commands_read_stops_no_service() -> None:
    given = dict.fromkeys(COMMAND_NAMES, "Ada")
    assert Settings.read(given) == Settings.read({})
    assert replace(ui.settings.Settings.read(given), secret=Secret()) == replace(
        ui.settings.Settings.read({}), secret=Secret()
    )


@pytest.mark.parametrize("name", LINKS)
def test_service_links_of_kubernetes_are_no_settings(name: str) -> None:
    assert not is_setting(name, LINKS[name])


def test_what_only_resembles_a_service_link_is_a_setting() -> None:
    for name in ("PIBLOOM_PORT", "PIBLOOM_SERVICE_HOSTS", "PIBLOOM_"):
        assert is_setting(name, "9000")
    assert not is_setting("PATH", "/bin")


def test_quotes_are_those_around_the_whole_value() -> None:
    assert all(map(is_quoted, ('"a"', "'a'", '""')))
    assert not any(map(is_quoted, ("", '"', "a", "a'b'", "'a\"")))


def test_a_secret_is_shown_only_when_it_is_revealed() -> None:
    secret = Secret("my-key")
    assert "my-key" not in f"{secret} {secret!r}"
    assert secret.reveal() == "my-key"
    assert secret == Secret("my-key")
    assert len({secret, Secret("my-key"), Secret()}) == 2
    assert not Secret()
