"""The windows are those of transformers' guide to perplexity."""

import pytest

from model.evaluation.windows import windows


def scored_by_the_guide(tokens: int, size: int, stride: int) -> list[tuple[int, int, list[int]]]:
    """The loop of https://huggingface.co/docs/transformers/perplexity, with positions as labels.

    The model shifts labels by one, so the first label of a window counts for nothing.
    """
    found, prev_end_loc = [], 0
    for begin_loc in range(0, tokens, stride):
        end_loc = min(begin_loc + size, tokens)
        trg_len = end_loc - prev_end_loc
        labels = list(range(begin_loc, end_loc))
        labels[:-trg_len] = [-100] * (len(labels) - trg_len)
        found.append((begin_loc, end_loc, [each for each in labels[1:] if each != -100]))
        prev_end_loc = end_loc
        if end_loc == tokens:
            break
    return found


@pytest.mark.parametrize("tokens", [2, 3, 15, 16, 17, 31, 32, 33, 100])
@pytest.mark.parametrize("size", [2, 3, 16, 32, 200])
def test_windows_are_those_of_the_guide(tokens: int, size: int) -> None:
    for stride in range(1, size + 1):
        ours = [
            (each.start, each.end, list(range(each.first, each.end)))
            for each in windows(tokens, size, stride)
        ]
        assert ours == scored_by_the_guide(tokens, size, stride)


@pytest.mark.parametrize(("size", "stride"), [(16, 8), (16, 15), (16, 1), (2, 1), (99, 98)])
def test_each_token_but_the_first_is_scored_once(size: int, stride: int) -> None:
    scored = [at for each in windows(100, size, stride) for at in range(each.first, each.end)]
    assert scored == list(range(1, 100))


@pytest.mark.parametrize("stride", [0, -1, 17])
def test_a_stride_that_would_leave_tokens_out_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        list(windows(100, 16, stride))
