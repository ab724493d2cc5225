"""Settings are checked once, at the start, by name."""

from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from functions.flags import chosen, setting_flags
from functions.settings import PREFIX, SettingError, Settings, table


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


def test_every_setting_has_a_flag_which_outdoes_its_variable() -> None:
    seen: dict[str, str] = {}

    @click.command()
    @setting_flags
    def command() -> None:
        seen.update(chosen())

    given = {"model": "/m.bloom", "engine": "reference", "dtype": "bfloat16", "device": "cpu"}
    given["log_level"] = "ERROR"
    flags = []
    for item in fields(Settings):
        given.setdefault(item.name, "8" if item.type in (int, float) else "some")
        flags += ["--" + item.name.replace("_", "-"), given[item.name]]
    done = CliRunner().invoke(command, flags)
    assert done.exit_code == 0, done.output
    assert seen == {PREFIX + name.upper(): value for name, value in given.items()}
    seen.clear()
    assert CliRunner().invoke(command, []).exit_code == 0
    assert seen == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PIBLOOM_MAX_BACTH", "3", "no setting"),
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
    with pytest.raises(SettingError, match=said) as refusal:
        Settings.read({name: value})
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_readme_lists_every_setting() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert table() in readme
    for item in fields(Settings):
        assert f"`{PREFIX}{item.name.upper()}`" in readme
