"""The icons."""

from html.parser import HTMLParser

import pytest

from ui.elements.icons import _PATHS, icon


@pytest.mark.parametrize("name", _PATHS)
def test_an_icon_is_one_path_that_a_screen_reader_skips(name: str) -> None:
    tags: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append((tag, dict(attrs)))

        handle_startendtag = handle_starttag

    Reader().feed(icon(name))
    (svg, attributes), (path, drawn) = tags
    assert (svg, path) == ("svg", "path")
    assert attributes["aria-hidden"] == "true"
    assert drawn["d"]
