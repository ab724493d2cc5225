"""Stop strings end a text at the same place, however it is cut into tokens."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from model.text.stops import StopStrings

TEXT = st.text(alphabet="ab\n", max_size=30)


@given(
    text=TEXT,
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30)),
)
def test_cuts_do_not_change_where_a_text_stops(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    matcher, shown, stopped = StopStrings(stops), "", False
    for start, end in pairwise(edges):
        part, stopped = matcher.push(text[start:end])
        shown += part
        assert not any(stop in shown for stop in stops)
        if stopped:
            break
    if not stopped:
        shown += matcher.flush()
    first = min((text.find(stop) for stop in stops if stop in text), default=len(text))
    if not stopped:
        assert (shown, first) == (text, len(text))
    else:
        # Fed piecewise, the stop that is complete first wins; it never shows a stop string.
        assert text.startswith(shown)
        assert len(shown) >= first
        assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_text_that_cannot_be_a_stop_is_shown_at_once() -> None:
    matcher = StopStrings(["\nUser:"])
    assert matcher.push("Hello") == ("Hello", False)
    assert matcher.push("\nUs") == ("", False)
    assert matcher.push("ed") == ("\nUsed", False)
    assert matcher.push(" it\nUser: x") == (" it", True)


def test_no_stops_let_everything_through() -> None:
    matcher = StopStrings([])
    assert matcher.push("anything") == ("anything", False)
    assert matcher.flush() == ""
