"""What is forgotten of visitors when it is too much."""

import os
from pathlib import Path

import pytest
from nicegui import app
from nicegui.observables import ObservableDict
from nicegui.testing import User

from tests.ui.simulated import Site
from ui.capacity.cleanup import forget_oldest_tabs, forget_oldest_visitors, size_of


def tab(text: str, touched: float) -> ObservableDict:
    made = ObservableDict({"draft": text})
    made.last_modified = touched
    return made


def test_the_chats_touched_the_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tabs = {name: tab("x" * 1000, touched) for name, touched in zip("abc", (2, 1, 3), strict=True)}
    monkeypatch.setattr(app.storage, "_tabs", tabs)
    one = size_of(tabs["a"])
    forget_oldest_tabs(most=3, most_bytes=3 * one)
    assert list(tabs) == ["a", "b", "c"]
    forget_oldest_tabs(most=2, most_bytes=3 * one)
    assert list(tabs) == ["a", "c"]
    forget_oldest_tabs(most=2, most_bytes=2 * one - 1)
    assert list(tabs) == ["c"]


async def test_closed_tabs_go_before_open_ones(user: User, site: Site) -> None:
    app.storage._tabs["closed"] = tab("", 1e12)
    forget_oldest_tabs(most=1)
    assert list(app.storage._tabs) == [user.tab_id]
    forget_oldest_tabs(most=0)
    assert not app.storage._tabs


def test_texts_count_as_many_bytes_as_they_take() -> None:
    assert size_of({"draft": "🦊" * 1000}) > 4000
    assert size_of({"turns": [{"question": "x" * 1000, "reply": {"text": "y" * 500}}]}) > 1500


def test_settings_changed_the_longest_ago_are_forgotten(tmp_path: Path) -> None:
    for age in range(5):
        file = tmp_path / f"storage-user-{age}.json"
        file.write_text("{}")
        os.utime(file, (1000 - age, 1000 - age))
    (tmp_path / "storage-general.json").write_text("{}")
    forget_oldest_visitors(tmp_path, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "storage-general.json",
        "storage-user-0.json",
        "storage-user-1.json",
    ]
