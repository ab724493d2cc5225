"""Memory for keys and values: shared where prompts begin alike, and never more than there is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.engine.contract import OutOfMemory
from model.engine.pages import PAGE, PagedSequence, PagePool

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


def text_of(client: int, pages: int) -> list[int]:
    return [1000 * client + at // PAGE for at in range(pages * PAGE)]


def warm(memory: PagePool, tokens: list[int], tenant: str | None = None) -> None:
    sequence = memory.open(tokens, len(tokens) + 1, tenant, warms=True)
    write(memory, sequence, tokens[sequence.length :])
    memory.release(sequence)


def ask(memory: PagePool, tokens: list[int], tenant: str | None = None) -> PagedSequence:
    sequence = memory.open(tokens, len(tokens), tenant)
    write(memory, sequence, tokens[sequence.length :])
    memory.release(sequence)
    return sequence


def known(memory: PagePool, tokens: list[int]) -> int:
    """How many tokens of a text are remembered."""
    sequence = memory.open([*tokens, 0], 1, warms=True)
    memory.release(sequence)
    return sequence.length


def test_three_long_texts_that_are_warmed_push_no_chat_out() -> None:
    """110 pages are 1,760 tokens, and 41 are a chat of 656."""
    memory = pool(340, cached=170)
    ask(memory, text_of(1, 41))
    for client in (2, 3, 4):
        warm(memory, text_of(client, 110))
    assert known(memory, text_of(1, 41)) == 656
    assert known(memory, text_of(4, 110)) == 110 * PAGE  # and the last one is there too


def test_what_is_warmed_is_kept_from_its_start_in_what_room_is_left() -> None:
    memory = pool(300, cached=100)
    ask(memory, text_of(1, 41))
    warm(memory, text_of(2, 110))
    assert known(memory, text_of(2, 110)) == 59 * PAGE
    assert memory.bytes_cached == 100 * BYTES


def test_what_was_warmed_and_then_asked_for_is_protected() -> None:
    memory = pool(100, cached=50)
    warm(memory, text_of(1, 30))
    ask(memory, text_of(1, 20))
    for client in (2, 3, 4):
        warm(memory, text_of(client, 40))
    assert known(memory, text_of(1, 30)) == 20 * PAGE


def test_warming_the_next_turn_of_a_chat_leaves_the_chat_protected() -> None:
    memory = pool(100, cached=50)
    ask(memory, text_of(1, 20))
    warm(memory, text_of(1, 30))
    for client in (2, 3, 4):
        warm(memory, text_of(client, 40))
    assert known(memory, text_of(1, 30)) == 20 * PAGE


def test_of_two_clients_texts_that_are_warmed_the_older_goes_first() -> None:
    memory = pool(100, cached=40)
    for client in (1, 2, 1, 3):
        warm(memory, text_of(client, 15))
    assert known(memory, text_of(1, 15)) == 15 * PAGE
    assert known(memory, text_of(3, 15)) == 15 * PAGE
    assert known(memory, text_of(2, 15)) == 10 * PAGE


def test_a_text_that_finds_room_only_where_others_are_kept_is_not_warmed() -> None:
    memory = pool(50, cached=40)
    ask(memory, text_of(1, 40))
    with pytest.raises(OutOfMemory):
        memory.open(text_of(2, 11), 11 * PAGE, warms=True)
    warm(memory, text_of(2, 9))
    assert known(memory, text_of(1, 40)) == 40 * PAGE
    assert known(memory, text_of(2, 9)) == 0  # there was room to read it, and none to keep it


def test_whoever_asks_takes_the_room_of_what_was_warmed_first() -> None:
    memory = pool(60, cached=60)
    ask(memory, text_of(1, 20))
    warm(memory, text_of(2, 39))
    ask(memory, text_of(3, 40))
    assert known(memory, text_of(1, 20)) == 20 * PAGE
    assert known(memory, text_of(3, 40)) == 40 * PAGE


def test_a_tenant_is_told_of_its_own_pages_only() -> None:
    memory, start = pool(20), list(range(2 * PAGE))
    assert ask(memory, [*start, 1], "a").cached_for_tenant == 0
    other = ask(memory, [*start, 2], "b")
    assert (other.cached_for_tenant, other.length) == (0, 2 * PAGE + 1)
    assert ask(memory, [*start, 3], "b").cached_for_tenant == 2 * PAGE
    warm(memory, [*start, *range(100, 100 + PAGE), 1], "a")
    longer = [*start, *range(100, 100 + PAGE), 2]
    assert ask(memory, longer, "b").cached_for_tenant == 2 * PAGE
    assert ask(memory, longer, "a").cached_for_tenant == 3 * PAGE
    assert ask(memory, longer, None).cached_for_tenant == 0


def test_what_is_forgotten_is_forgotten_for_every_tenant() -> None:
    memory = pool(4, cached=4)
    ask(memory, text_of(1, 3), "a")
    ask(memory, text_of(2, 4), "b")
    ask(memory, text_of(1, 3), "b")
    assert ask(memory, text_of(1, 3), "a").cached_for_tenant == 0


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 14), st.integers(0, 14))
def test_what_is_warmed_takes_nothing_from_what_was_asked_for(
    seed: int, pages: int, cached: int
) -> None:
    """One request at a time, as the scheduler has it where something is warmed."""
    chance, memory = random.Random(seed), pool(pages, cached)
    texts = [[chance.randrange(2) for _ in range(90)] for _ in range(4)]
    read: dict[str, set[tuple[int, ...]]] = {"a": set(), "b": set()}  # by whom, in whole pages
    for _ in range(60):
        text = chance.choice(texts)[: chance.randrange(1, 90)]
        tenant, warms = chance.choice("ab"), chance.random() < 0.5
        before = set(memory._asked) & set(memory._kept)
        try:
            sequence = memory.open(text, len(text), tenant, warms=warms)
        except OutOfMemory:
            assert warms or len(text) > pages * PAGE
            continue
        starts = [tuple(text[: (at + 1) * PAGE]) for at in range(len(text) // PAGE)]
        assert sequence.cached_for_tenant <= sequence.length
        assert all(start in read[tenant] for start in starts[: sequence.cached_for_tenant // PAGE])
        write(memory, sequence, text[sequence.length :])
        memory.release(sequence)
        read[tenant].update(starts)
        if warms:
            assert before <= set(memory._kept), "it took the place of what was asked for"
        assert not set(memory._kept) & set(memory._warmed)
        assert set(memory._kept) <= memory._asked
        assert not set(memory._warmed) & memory._asked
        assert set(memory._readers) == set(memory._keys) == set(memory._numbers)
        assert memory.bytes_cached <= min(cached, pages) * BYTES
        assert memory.bytes_used == 0
        assert memory.tokens_free == pages * PAGE
