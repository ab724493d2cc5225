"""Whatever fails is answered in the one shape of errors."""

import logging

import pytest
from flask import Flask
from werkzeug import exceptions

from functions import errors
from functions.http.replies import as_api_error, json_reply


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (errors.Loading("wait"), errors.Loading, "wait"),
        (exceptions.NotFound(), errors.NotFound, "there is nothing at POST /x"),
        (exceptions.MethodNotAllowed(["GET"]), errors.MethodNotAllowed, "POST is not allowed at"),
        (exceptions.BadRequest("my secret"), errors.BadRequest, "cannot be understood"),
        (exceptions.ImATeapot(), errors.BadRequest, "cannot be understood"),
    ],
)
def test_an_exception_becomes_the_error_that_fits(
    error: Exception, kind: type[errors.ApiError], said: str
) -> None:
    with Flask("x").test_request_context("/x", method="POST"):
        found = as_api_error(error)
    assert type(found) is kind
    assert said in found.message
    assert "secret" not in found.message


def test_what_was_not_expected_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = as_api_error(RuntimeError("my secret"))
    assert (found.status, found.message) == (500, "the server failed to answer this request")
    assert "RuntimeError" in caplog.text


def test_json_is_announced_as_such() -> None:
    reply = json_reply({"a": [1]}, 201)
    assert (reply.status_code, reply.data) == (201, b'{"a":[1]}')
    assert reply.content_type == "application/json"
