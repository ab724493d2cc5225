"""Memory for keys and values: pages of 16 tokens within one budget, and a cache of prefixes.

A full page is identified by its tokens and all tokens before it, so a prompt that starts like an
earlier one, as a chat's next turn does, finds its keys and values there (Kwon et al. 2023, vLLM).
Pages that no sequence uses stay cached until their memory is needed; the least recently used page
goes first. Pages that were only warmed (read ahead for a request that may never come) go before
pages of real requests, and never take their place.
"""

import ctypes
import mmap
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count, takewhile

from model.engine.contract import OutOfMemory

PAGE = 16  # tokens: BLOOM_PAGE

_Key = tuple[int, bytes]  # the number of the page before, and the tokens of this one
_ROOT = 0


class PagedSequence:
    """One sequence's tokens, and the pages that hold their keys and values."""

    def __init__(self, reserved: int, tenant: str | None = None, *, warms: bool = False) -> None:
        self.tenant = tenant  # whose request it is
        self.warms = warms  # whether it only reads ahead
        self.cached_for_tenant = 0  # first tokens that were cached, and read by the same tenant
        self.tokens = array("I")
        self.pages: list[int] = []
        self.reserved = reserved  # pages that it may hold in all
        self.pointers = (ctypes.c_void_p * reserved)()
        self.number = _ROOT  # of its last full page
        self.closed = False

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return len(self.tokens)


class PagePool:
    """Hands out pages; where `OutOfMemory` is raised, nothing has changed."""

    def __init__(self, page_bytes: int, budget: int, cache_budget: int) -> None:
        """Reserve address space for `budget` bytes; memory is only taken for pages in use.

        `cache_budget` bounds the bytes of pages that no sequence uses.
        """
        # The kernel takes back whole memory pages only, so each of ours starts at one.
        self._stride = -(-page_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.page_bytes = self._stride
        self.total = max(1, budget // self._stride)
        self._cache_limit = min(cache_budget // self._stride, self.total)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, self.total * self._stride, flags=flags)
        self._view = (ctypes.c_char * len(self._memory)).from_buffer(self._memory)
        self._base = ctypes.addressof(self._view)
        self._free = list(range(self.total - 1, -1, -1))
        self._users = [0] * self.total
        self._known: dict[_Key, int] = {}  # full pages, in use or not
        self._keys: dict[int, _Key] = {}  # of known pages
        self._numbers: dict[int, int] = {}  # of known pages
        self._readers: dict[int, set[str | None]] = {}  # of known pages: the tenants that read them
        self._asked: set[int] = set()  # known pages that were not only warmed
        # Known pages without users, oldest first.
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._warmed: OrderedDict[int, None] = OrderedDict()
        self._promised = 0  # pages that sequences have reserved and not yet taken
        self._next_number = count(1)

    @property
    def tokens_total(self) -> int:
        """How many tokens fit into the budget."""
        return self.total * PAGE

    @property
    def tokens_free(self) -> int:
        """How many tokens a new sequence could reserve now."""
        return self._room() * PAGE

    @property
    def bytes_used(self) -> int:
        """Bytes of the pages that running sequences hold."""
        return (self.total - len(self._free) - self._unused) * self.page_bytes

    @property
    def bytes_cached(self) -> int:
        """Bytes of the cached pages that no sequence uses."""
        return self._unused * self.page_bytes

    def open(
        self,
        prompt: Sequence[int],
        capacity: int,
        tenant: str | None = None,
        *,
        warms: bool = False,
    ) -> PagedSequence:
        """Reserve pages for `capacity` tokens; cached pages of `prompt` are among them.

        The prompt's last token is never cached, since its logits have to be computed. A sequence
        that only warms gets no memory that caches real requests.
        """
        tokens = array("I", prompt)
        found, number = [], _ROOT
        for first in range(0, len(tokens) - PAGE, PAGE):
            page = self._known.get((number, tokens[first : first + PAGE].tobytes()))
            if page is None:
                break
            found.append(page)
            number = self._numbers[page]
        reserved = max(-(-capacity // PAGE), len(found))
        more = reserved - len(found)
        kept = sum(page in self._kept for page in found)
        warmed = sum(page in self._warmed for page in found)
        room = self._room()
        # Cached pages that this sequence takes are not free for it a second time.
        if more + kept + warmed > room or (warms and more + warmed > room - len(self._kept)):
            raise OutOfMemory(reserved * PAGE, max(0, room) * PAGE)
        sequence = PagedSequence(reserved, tenant, warms=warms)
        self._promised += more
        own = takewhile(lambda page: tenant in self._readers[page], found)
        sequence.cached_for_tenant = PAGE * sum(1 for _ in own)
        for page in found:
            self._use(page, sequence)
            self._append(sequence, page)
        sequence.tokens = tokens[: len(found) * PAGE]
        sequence.number = number
        return sequence

    def reserve(self, sequence: PagedSequence, length: int) -> None:
        """Make sure that the sequence may grow to `length` tokens."""
        more = -(-length // PAGE) - sequence.reserved
        if more <= 0:
            return
        room = self._room()
        if more > room:
            raise OutOfMemory(more * PAGE, max(0, room) * PAGE)
        self._promised += more
        sequence.reserved += more
        pointers = (ctypes.c_void_p * sequence.reserved)()
        ctypes.memmove(pointers, sequence.pointers, ctypes.sizeof(sequence.pointers))
        sequence.pointers = pointers

    def grow(self, sequence: PagedSequence, length: int) -> None:
        """Give a sequence its pages for `length` tokens, out of those that it has reserved."""
        while len(sequence.pages) * PAGE < length:
            page = self._free.pop() if self._free else self._evict()
            self._promised -= 1
            self._users[page] = 1
            self._append(sequence, page)

    def extend(self, sequence: PagedSequence, tokens: Sequence[int]) -> None:
        """Note the tokens whose keys and values were written; full pages enter the cache."""
        first = sequence.length // PAGE
        sequence.tokens.extend(tokens)
        for at in range(first, sequence.length // PAGE):
            key = (sequence.number, sequence.tokens[at * PAGE : (at + 1) * PAGE].tobytes())
            own, page = sequence.pages[at], self._known.get(key)
            if page is None:
                page = own
                self._known[key], self._keys[page] = page, key
                self._numbers[page] = next(self._next_number)
                self._readers[page] = set()
                self._note(page, sequence)
            else:  # the same page was written before: one copy is enough
                self._use(page, sequence)
                sequence.pages[at], sequence.pointers[at] = page, self._address(page)
                self._users[own] = 0
                self._forget(own)
            sequence.number = self._numbers[page]

    def release(self, sequence: PagedSequence) -> None:
        """Take back a sequence's pages; full ones stay cached while there is room."""
        if sequence.closed:
            return
        sequence.closed = True
        self._promised -= sequence.reserved - len(sequence.pages)
        for page in reversed(sequence.pages):  # so that a prefix stays longer than what follows it
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._keys:
                (self._kept if page in self._asked else self._warmed)[page] = None
            else:
                self._forget(page)
        while self._unused > self._cache_limit:
            self._forget(self._oldest())

    def close(self) -> None:
        """Give all memory back to the system."""
        del self._view
        self._memory.close()

    def _append(self, sequence: PagedSequence, page: int) -> None:
        sequence.pointers[len(sequence.pages)] = self._address(page)
        sequence.pages.append(page)

    def _address(self, page: int) -> int:
        return self._base + page * self._stride

    @property
    def _unused(self) -> int:
        return len(self._kept) + len(self._warmed)

    def _room(self) -> int:
        """How many pages can still be reserved."""
        return len(self._free) + self._unused - self._promised

    def _use(self, page: int, sequence: PagedSequence) -> None:
        self._kept.pop(page, None)
        self._warmed.pop(page, None)
        self._users[page] += 1
        self._note(page, sequence)

    def _note(self, page: int, sequence: PagedSequence) -> None:
        """Note which tenant reads a cached page, and whether a real request did."""
        self._readers[page].add(sequence.tenant)
        if not sequence.warms:
            self._asked.add(page)

    def _oldest(self) -> int:
        """Take the cached page that goes first out of the cache."""
        page, _ = (self._warmed or self._kept).popitem(last=False)
        return page

    def _evict(self) -> int:
        page = self._oldest()
        self._unname(page)
        return page

    def _forget(self, page: int) -> None:
        """Return a page, and its memory to the system."""
        self._unname(page)
        self._free.append(page)
        self._memory.madvise(mmap.MADV_DONTNEED, page * self._stride, self._stride)

    def _unname(self, page: int) -> None:
        if key := self._keys.pop(page, None):
            del self._known[key], self._numbers[page], self._readers[page]
            self._asked.discard(page)
