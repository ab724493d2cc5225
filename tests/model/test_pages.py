"""Memory for keys and values: shared where prompts begin alike, and never more than there is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine import OutOfMemory
from model.pages import PAGE, PagedSequence, PagePool

BYTES = 4096


def pool(pages: int, cached: int | None = None) -> PagePool:
    return PagePool(BYTES, pages * BYTES, (pages if cached is None else cached) * BYTES)


def write(memory: PagePool, sequence: PagedSequence, tokens: list[int]) -> None:
    memory.reserve(sequence, sequence.length + len(tokens))
    memory.grow(sequence, sequence.length + len(tokens))
    memory.extend(sequence, tokens)


def run(memory: PagePool, tokens: list[int]) -> PagedSequence:
    sequence = memory.open(tokens, len(tokens))
    write(memory, sequence, tokens[sequence.length :])
    return sequence


def test_a_common_beginning_is_held_once() -> None:
    memory, start = pool(10), list(range(2 * PAGE))
    one = run(memory, [*start, 1, 2, 3])
    two = run(memory, [*start, 7, 8, 9])
    assert one.pages[:2] == two.pages[:2]
    assert one.pages[2] != two.pages[2]
    assert memory.bytes_used == 4 * BYTES


def test_the_same_page_after_another_beginning_is_another_page() -> None:
    memory, same = pool(10), [5] * PAGE
    run(memory, [*range(PAGE), *same, 1])
    other = memory.open([*range(1, PAGE + 1), *same, 1], 40)
    assert other.length == 0


def test_what_is_kept_stays_within_its_budget_oldest_first() -> None:
    memory = pool(10, cached=3)
    texts = [[at] * (2 * PAGE + 1) for at in range(3)]
    for text in texts:
        memory.release(run(memory, text))
    assert memory.bytes_cached == 3 * BYTES
    assert memory.bytes_used == 0
    assert [memory.open(text, 33).length for text in texts] == [0, PAGE, 2 * PAGE]


def test_kept_pages_make_room_for_those_in_use() -> None:
    memory = pool(4)
    memory.release(run(memory, list(range(4 * PAGE))))
    assert memory.bytes_cached == 4 * BYTES
    assert memory.tokens_free == 4 * PAGE
    sequence = run(memory, list(range(100, 100 + 4 * PAGE)))
    assert len(sequence.pages) == 4
    assert memory.bytes_cached == 0


def test_a_reservation_is_kept_for_its_owner() -> None:
    memory = pool(4)
    first = memory.open([], 3 * PAGE)
    with pytest.raises(OutOfMemory):
        memory.open([], 2 * PAGE)
    second = memory.open([], PAGE)
    write(memory, second, [1] * PAGE)
    write(memory, first, [2] * (3 * PAGE))
    with pytest.raises(OutOfMemory):
        memory.reserve(first, 3 * PAGE + 1)


def test_releasing_twice_is_releasing_once() -> None:
    memory = pool(4)
    sequence = run(memory, [1, 2, 3])
    memory.release(sequence)
    memory.release(sequence)
    assert memory.tokens_free == 4 * PAGE


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(0, 12))
def test_pages_are_never_lost_nor_given_twice(seed: int, pages: int, cached: int) -> None:
    chance, memory = random.Random(seed), pool(pages, cached)
    texts = [[chance.randrange(3) for _ in range(70)] for _ in range(3)]
    running: list[PagedSequence] = []
    for _ in range(60):
        if running and chance.random() < 0.4:
            memory.release(running.pop(chance.randrange(len(running))))
            continue
        text = chance.choice(texts)[: chance.randrange(1, 70)]
        try:
            sequence = memory.open(text, len(text) + chance.randrange(20))
        except OutOfMemory:
            continue
        write(memory, sequence, text[sequence.length :])
        running.append(sequence)
        used = {page for each in running for page in each.pages}
        assert len(used) * BYTES == memory.bytes_used
        assert memory.bytes_cached <= min(cached, pages) * BYTES
        assert memory.tokens_free >= 0
        for each in running:  # the same page only where the same tokens lead up to it
            for other in running:
                for at, page in enumerate(each.pages):
                    if page in other.pages:
                        assert other.pages.index(page) == at
                        upto = (at + 1) * PAGE  # what is written of it
                        assert each.tokens[:upto] == other.tokens[:upto]
    for sequence in running:
        memory.release(sequence)
    assert memory.bytes_used == 0
    assert memory.tokens_free == pages * PAGE


def test_two_that_write_the_same_hold_it_once_and_the_next_turn_finds_all_of_it() -> None:
    """One of them may end, and be forgotten, before the other."""
    memory, start = pool(12), list(range(2 * PAGE))
    first, second = memory.open(start, 60), memory.open(start, 100)
    write(memory, first, start)
    write(memory, second, start)
    assert first.pages == second.pages
    assert memory.bytes_used == 2 * BYTES
    memory.release(first)
    write(memory, second, [7] * (PAGE + 1))
    memory.release(second)
    assert memory.open([*start, *[7] * PAGE, 1], 50).length == 3 * PAGE
