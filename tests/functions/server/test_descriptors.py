"""How many files may be open, and how many of them may be connections."""

import os
import resource

import pytest

from functions.server import descriptors

Limits = tuple[int, int]


@pytest.mark.parametrize(
    ("limits", "wanted", "expected"),
    [
        ((100, 1000), 500, (500, 1000)),
        ((100, 300), 500, (300, 300)),
        ((600, 1000), 500, None),
        ((100, resource.RLIM_INFINITY), 500, (500, resource.RLIM_INFINITY)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 500, None),
    ],
)
def test_the_limit_is_raised_as_far_as_is_wanted_and_allowed(
    limits: Limits, wanted: int, expected: Limits | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: found.append(new))
    descriptors.raise_limit(wanted)
    assert found == ([] if expected is None else [expected])


def test_what_is_open_is_not_left_for_connections() -> None:
    before = descriptors.left_for_connections()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    assert descriptors.left_for_connections() <= before - 5
    for each in opened:
        os.close(each)
