"""Each setting is a flag too, but for the secrets."""

from dataclasses import Field, fields

import click
import pytest
from click.testing import CliRunner

from common.settings import PREFIX, Secret
from functions.flags import chosen, setting_flags
from functions.settings import Settings

PUBLIC = [item for item in fields(Settings) if item.type is not Secret]


SECRETS = [item for item in fields(Settings) if item.type is Secret]


def test_every_setting_has_a_flag_which_takes_precedence_over_its_variable() -> None:
    seen: dict[str, str] = {}

    @click.command()
    @setting_flags
    def command() -> None:
        seen.update(chosen())

    given = {"model": "/m.bloom", "engine": "reference", "dtype": "bfloat16", "device": "cpu"}
    given["log_level"] = "ERROR"
    flags = []
    for item in PUBLIC:
        given.setdefault(item.name, "8" if item.type in (int, float) else "some")
        flags += ["--" + item.name.replace("_", "-"), given[item.name]]
    done = CliRunner().invoke(command, flags)
    assert done.exit_code == 0, done.output
    assert seen == {PREFIX + name.upper(): value for name, value in given.items()}
    seen.clear()
    assert CliRunner().invoke(command, []).exit_code == 0
    assert seen == {}


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.name)
def test_an_empty_flag_is_refused(item: Field[object]) -> None:
    flag = "--" + item.name.replace("_", "-")
    for arguments in ([flag, ""], [flag + "="]):
        done = CliRunner().invoke(click.command()(setting_flags(lambda: None)), arguments)
        assert done.exit_code == 2
        assert flag in done.output


@pytest.mark.parametrize("item", SECRETS, ids=lambda item: item.name)
def test_a_secret_has_no_flag_and_the_refusal_does_not_show_it(item: Field[object]) -> None:
    flag = "--" + item.name.replace("_", "-")
    for arguments in ([flag, "sk-1234"], [flag + "=sk-1234"]):
        done = CliRunner().invoke(click.command()(setting_flags(lambda: None)), arguments)
        assert done.exit_code == 2
        assert "PIBLOOM_API_KEYS" in done.output
        assert "--api-keys-file" in done.output
        assert "sk-1234" not in done.output
    assert (
        flag + " "
        not in CliRunner().invoke(click.command()(setting_flags(lambda: None)), ["--help"]).output
    )
