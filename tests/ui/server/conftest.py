"""Fixtures: one chat with few descriptors for all tests of the server."""

import resource
from collections.abc import Iterator

import pytest

from tests.ports import free_port
from tests.ui.bare_browser import Chat, running_silently

DESCRIPTORS = 420  # leaves room for 100 connections or so


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


@pytest.fixture(scope="package")
def chat() -> Iterator[Chat]:
    """A running chat without functions; when all tests have passed it must have written nothing."""
    with running_silently(free_port(), before=few_descriptors) as running_chat:
        yield running_chat
