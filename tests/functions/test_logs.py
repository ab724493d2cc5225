"""Log lines are one JSON object each."""

import json
import logging
import logging.config
import sys

import pytest

from functions import logs


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    found = logging.LogRecord("a.name", logging.INFO, "path", 1, message, arguments, None)
    found.__dict__.update(more)
    return found


def test_a_record_is_one_line_with_its_fields() -> None:
    line = logs.JsonFormatter().format(record("%s\nand %d", "text", 5, fields={"status": 200}))
    assert "\n" not in line
    logged = json.loads(line)
    assert (logged["level"], logged["logger"], logged["message"]) == (
        "INFO",
        "a.name",
        "text\nand 5",
    )
    assert logged["status"] == 200
    assert logged["time"].endswith("Z")


def test_a_failure_has_its_traceback_within_the_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = logs.JsonFormatter().format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: broken" in json.loads(line)["traceback"]


def test_a_path_that_is_no_utf8_is_still_a_line() -> None:
    line = logs.JsonFormatter().format(record("no %s", b"\xff".decode(errors="surrogateescape")))
    assert "no " in json.loads(line)["message"]


@pytest.mark.parametrize("level", ["DEBUG", "ERROR"])
def test_the_configuration_is_one_that_logging_takes(level: str) -> None:
    logging.config.DictConfigurator(logs.configuration(level))
    assert logs.configuration(level)["root"]["level"] == level
