/* Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) as `tokenizers` does it.
 *
 * A text is cut at the added tokens, then into pieces by BLOOM's pattern
 *      ?[^(\s|[.,!?…。，、।۔،])]+
 * (a space at most, then characters that are none of its set; what lies between such pieces is a
 * piece too), and within each piece the pair that was merged first in training is merged first,
 * the leftmost of equal ones before the others. A heap keeps that n log n.
 */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

static const struct tokenizer_header *header_of(const uint8_t *tokenizer) { return (const void *)tokenizer; }

static int holds(uint64_t at, uint64_t count, uint64_t each, uint64_t size) {
    return at % 4 == 0 && at >= sizeof(struct tokenizer_header) && at <= size && count <= (size - at) / each;
}

const char *bloom_tokenizer_check(const uint8_t *tokenizer, uint64_t size) {
    const struct tokenizer_header *h = header_of(tokenizer);
    if (size < sizeof *h || memcmp(h->magic, "BTOK", 4)) return "it holds no tokenizer";
    if (h->version != TOKENIZER_VERSION) return "its tokenizer is of another version";
    if (h->size < 1 || h->size > 1 << 24 || !h->slots || h->slots & (h->slots - 1) ||
        !holds(h->starts_at, (uint64_t)h->size + 1, 4, size) || !holds(h->bytes_at, h->bytes_size, 1, size) ||
        !holds(h->merges_at, h->merges, sizeof(struct merge), size) || !holds(h->slots_at, h->slots, 4, size) ||
        !holds(h->added_at, h->added, 4, size))
        return "its tokenizer is damaged";
    return NULL;
}

const uint8_t *bloom_token(const uint8_t *tokenizer, uint32_t id, uint32_t *length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const uint32_t *starts = (const void *)(tokenizer + h->starts_at);
    *length = 0;
    if (id >= h->size || starts[id] > starts[id + 1] || starts[id + 1] > h->bytes_size) return NULL;
    *length = starts[id + 1] - starts[id];
    return tokenizer + h->bytes_at + starts[id];
}

/* The merge of a pair, or -1. The table is never full; if damage made it so, the search still ends. */
static int32_t merge_of(const uint8_t *tokenizer, uint32_t left, uint32_t right) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const struct merge *merges = (const void *)(tokenizer + h->merges_at);
    const int32_t *slots = (const void *)(tokenizer + h->slots_at);
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    uint32_t mask = h->slots - 1, slot = (uint32_t)(key >> 32) & mask;
    for (uint32_t tried = 0; tried < h->slots; tried++, slot = (slot + 1) & mask) {
        int32_t merge = slots[slot];
        if (merge < 0 || (uint32_t)merge >= h->merges) return -1;
        if (merges[merge].left == left && merges[merge].right == right) return merge;
    }
    return -1;
}

/* One UTF-8 character; a byte that starts none counts as one by itself. */
static uint32_t character(const uint8_t *text, uint64_t left, uint32_t *length) {
    uint32_t lead = text[0], more = lead < 0xc0 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    *length = 1;
    if (more == 0 || more >= left) return lead;
    uint32_t code = lead & (0x3fu >> more);
    for (uint32_t i = 1; i <= more; i++) code = code << 6 | (text[i] & 0x3f);
    *length = more + 1;
    return code;
}

/* Whether the pattern's set leaves a character out: white space as Unicode has it, and its marks. */
static int separates(uint32_t c) {
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || c == '(' || c == ')' || c == '|' || c == '.' || c == ',' ||
               c == '!' || c == '?';
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000 || c == 0x2026 /* … */ || c == 0x3002 /* 。 */ ||
           c == 0xff0c /* ， */ || c == 0x3001 /* 、 */ || c == 0x0964 /* । */ || c == 0x06d4 /* ۔ */ ||
           c == 0x060c /* ، */;
}

/* Bytes of the piece that a text starts with. */
static uint64_t piece_length(const uint8_t *text, uint64_t length) {
    uint32_t size, after;
    uint64_t at = 0;
    int word = !separates(character(text, length, &size)) ||
               (text[0] == ' ' && length > 1 && !separates(character(text + 1, length - 1, &after)));
    if (word && text[0] == ' ') at = 1;
    while (at < length) {
        int separator = separates(character(text + at, length - at, &size));
        if (word ? separator
                 : !separator || (text[at] == ' ' && at + 1 < length &&
                                  !separates(character(text + at + 1, length - at - 1, &after))))
            break;
        at += size;
    }
    return at;
}

/* The added token that a text starts with, or -1. */
static int64_t added_at(const uint8_t *tokenizer, const uint8_t *text, uint64_t left, uint32_t *length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const uint32_t *added = (const void *)(tokenizer + h->added_at);
    for (uint32_t i = 0; i < h->added; i++) {
        const uint8_t *bytes = bloom_token(tokenizer, added[i], length);
        if (bytes && *length && *length <= left && text[0] == bytes[0] && !memcmp(text, bytes, *length))
            return added[i];
    }
    return -1;
}

/* A piece's tokens as a list, linked so that merging moves nothing. */
struct symbol { uint32_t id; int32_t before, next; uint32_t length; };
struct pair { int32_t merge, at; };

struct scratch {
    struct symbol *symbols;
    struct pair *heap;
    size_t heaped;
};

static int sooner(struct pair a, struct pair b) { return a.merge < b.merge || (a.merge == b.merge && a.at < b.at); }

static void push(struct scratch *s, struct pair pair) {
    size_t at = s->heaped++;
    for (; at && sooner(pair, s->heap[(at - 1) / 2]); at = (at - 1) / 2) s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = pair;
}

static struct pair pop(struct scratch *s) {
    struct pair top = s->heap[0], last = s->heap[--s->heaped];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < s->heaped) {
        if (child + 1 < s->heaped && sooner(s->heap[child + 1], s->heap[child])) child++;
        if (!sooner(s->heap[child], last)) break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return top;
}

static void consider(const uint8_t *tokenizer, struct scratch *s, int32_t at) {
    int32_t next = at < 0 ? -1 : s->symbols[at].next;
    if (next < 0) return;
    int32_t merge = merge_of(tokenizer, s->symbols[at].id, s->symbols[next].id);
    if (merge >= 0) push(s, (struct pair){merge, at});
}

/* Merge a piece down to its tokens; they stay linked from symbol 0. */
static void merge_piece(const uint8_t *tokenizer, struct scratch *s, const uint8_t *piece, size_t length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const struct merge *merges = (const void *)(tokenizer + h->merges_at);
    s->heaped = 0;
    for (size_t i = 0; i < length; i++)
        s->symbols[i] = (struct symbol){h->single[piece[i]], (int32_t)i - 1, i + 1 < length ? (int32_t)i + 1 : -1, 1};
    for (size_t i = 0; i + 1 < length; i++) consider(tokenizer, s, (int32_t)i);
    while (s->heaped) {
        struct pair pair = pop(s);
        struct symbol *left = &s->symbols[pair.at];
        if (!left->length || left->next < 0) continue; /* it was merged into another since */
        struct symbol *right = &s->symbols[left->next];
        int32_t now = merge_of(tokenizer, left->id, right->id);
        if (now < 0 || merges[now].result != merges[pair.merge].result) continue;
        left->id = merges[pair.merge].result;
        left->length += right->length;
        right->length = 0;
        left->next = right->next;
        if (left->next >= 0) s->symbols[left->next].before = pair.at;
        consider(tokenizer, s, left->before);
        consider(tokenizer, s, pair.at);
    }
}

/* Counts characters while walking on: `at` and `seen` tell how far. */
struct counter { const uint8_t *text; uint64_t at; uint32_t seen; };

/* Characters that start before a byte. */
static uint32_t count_to(struct counter *counter, uint64_t byte) {
    for (; counter->at < byte; counter->at++) counter->seen += (counter->text[counter->at] & 0xc0) != 0x80;
    return counter->seen;
}

struct output { uint32_t *ids, *starts, *ends; int64_t count; struct counter counter; };

static void put(struct output *out, uint32_t id, uint64_t first, uint64_t length) {
    out->ids[out->count] = id;
    if (out->starts) {
        /* A token that begins within a character counts it as its own, as do all that touch it. */
        uint32_t start = count_to(&out->counter, first + 1) - 1;
        out->starts[out->count] = start;
        out->ends[out->count] = count_to(&out->counter, first + length);
    }
    out->count++;
}

static void put_piece(const uint8_t *tokenizer, struct scratch *s, struct output *out, const uint8_t *text,
                      uint64_t first, uint64_t length) {
    merge_piece(tokenizer, s, text + first, length);
    for (int32_t at = 0; at >= 0; at = s->symbols[at].next) {
        put(out, s->symbols[at].id, first, s->symbols[at].length);
        first += s->symbols[at].length;
    }
}

/* Room for the longest piece; a heap never holds more than each pair once and two for each merge. */
static int open_scratch(struct scratch *s, uint64_t longest) {
    s->symbols = malloc((longest + 1) * sizeof *s->symbols);
    s->heap = malloc((3 * longest + 1) * sizeof *s->heap);
    return s->symbols && s->heap;
}

/* Walks over the parts of a text: added tokens, and pieces of what is plain between them. */
struct walk {
    const uint8_t *tokenizer, *text;
    uint64_t length, at, plain_end;
    uint8_t starts_added[256]; /* bytes that an added token starts with */
};

static struct walk walk_over(const uint8_t *tokenizer, const uint8_t *text, uint64_t length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const uint32_t *added = (const void *)(tokenizer + h->added_at);
    struct walk walk = {tokenizer, text, length, 0, 0, {0}};
    for (uint32_t i = 0, size; i < h->added; i++) {
        const uint8_t *bytes = bloom_token(tokenizer, added[i], &size);
        if (bytes && size) walk.starts_added[bytes[0]] = 1;
    }
    return walk;
}

static int64_t added_here(const struct walk *walk, uint64_t at, uint32_t *size) {
    if (!walk->starts_added[walk->text[at]]) return -1;
    return added_at(walk->tokenizer, walk->text + at, walk->length - at, size);
}

/* Go to the next part and return its bytes, 0 at the end; `id` is the added token that it is, or -1. */
static uint64_t next_part(struct walk *walk, int64_t *id) {
    uint32_t size;
    *id = -1;
    if (walk->at >= walk->length) return 0;
    if (walk->at >= walk->plain_end) {
        if ((*id = added_here(walk, walk->at, &size)) >= 0) {
            walk->at += size;
            return size;
        }
        for (walk->plain_end = walk->at + 1; walk->plain_end < walk->length; walk->plain_end++)
            if (added_here(walk, walk->plain_end, &size) >= 0) break;
    }
    uint64_t length = piece_length(walk->text + walk->at, walk->plain_end - walk->at);
    walk->at += length;
    return length;
}

int64_t bloom_encode(const uint8_t *tokenizer, const uint8_t *text, uint64_t length, uint32_t *ids,
                     uint32_t *starts, uint32_t *ends) {
    struct scratch scratch = {0};
    struct output out = {ids, starts, ends, 0, {text, 0, 0}};
    uint64_t longest = 0, size;
    int64_t id;
    if (length >= INT32_MAX) return -1;
    for (struct walk walk = walk_over(tokenizer, text, length); (size = next_part(&walk, &id));)
        if (id < 0 && size > longest) longest = size;
    if (open_scratch(&scratch, longest)) {
        for (struct walk walk = walk_over(tokenizer, text, length); (size = next_part(&walk, &id));) {
            if (id >= 0) put(&out, (uint32_t)id, walk.at - size, size);
            else put_piece(tokenizer, &scratch, &out, text, walk.at - size, size);
        }
    } else {
        out.count = -1;
    }
    free(scratch.symbols);
    free(scratch.heap);
    return out.count;
}
