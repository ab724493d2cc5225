/* Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) with the results of `tokenizers`.
 *
 * A text is cut at the added tokens: first at those that are searched for before the text is normalised, then at the
 * others (no BLOOM normalises). What lies between them is cut into pieces by BLOOM's pattern
 *      ?[^(\s|[.,!?…。，、।۔،])]+
 * that is, at most one space, then characters that are not in the set; what lies between such pieces is a piece too.
 * Within a piece, pairs are merged by rank, and those of equal rank from left to right. With a heap, this takes
 * n log n steps.
 */
#include "tokenizer.h"

#include "words.h"

#include <stdlib.h>
#include <string.h>

static const struct tokenizer_header *header_of(const uint8_t *tokenizer) { return (const void *)tokenizer; }

/* Whether a table of `count` entries of `each` bytes lies behind the header and within `size` bytes. */
static int holds(uint64_t at, uint64_t count, uint64_t each, uint64_t size) {
    return at % 4 == 0 && at >= sizeof(struct tokenizer_header) && at <= size && count <= (size - at) / each;
}

const char *bloom_tokenizer_check(const uint8_t *tokenizer, uint64_t size) {
    const struct tokenizer_header *h = header_of(tokenizer);
    if (size < sizeof *h || memcmp(h->magic, "BTOK", 4)) return "it holds no tokenizer";
    if (h->version != TOKENIZER_VERSION) return "its tokenizer is of another version; bake it again";
    if (h->size < 1 || h->size > 1 << 24 || !h->buckets || h->buckets & (h->buckets - 1) ||
        !holds(h->starts_at, (uint64_t)h->size + 1, 4, size) || !holds(h->bytes_at, h->bytes_size, 1, size) ||
        !holds(h->merges_at, h->merges, sizeof(struct merge), size) || !holds(h->buckets_at, h->buckets, 4, size) ||
        !holds(h->added_at, (uint64_t)h->added + h->normalized, sizeof(struct added), size) ||
        !holds(h->around_at, (uint64_t)h->before + h->after, 4, size))
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

/* The merge of a pair, or -1. The table is never full; if it is damaged, the search still ends. */
static int32_t merge_of(const uint8_t *tokenizer, uint32_t left, uint32_t right) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const struct merge *merges = (const void *)(tokenizer + h->merges_at);
    const int32_t *buckets = (const void *)(tokenizer + h->buckets_at);
    uint64_t key = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    uint32_t mask = h->buckets - 1, bucket = (uint32_t)(key >> 32) & mask;
    for (uint32_t tried = 0; tried < h->buckets; tried++, bucket = (bucket + 1) & mask) {
        int32_t merge = buckets[bucket];
        if (merge < 0 || (uint32_t)merge >= h->merges) return -1;
        if (merges[merge].left == left && merges[merge].right == right) return merge;
    }
    return -1;
}

/* The UTF-8 character at the start of a text; a byte that starts none counts as a character. */
static uint32_t character(const uint8_t *text, uint64_t left, uint32_t *length) {
    uint32_t lead = text[0], more = lead < 0xc0 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    *length = 1;
    if (more == 0 || more >= left) return lead;
    uint32_t code = lead & (0x3fu >> more);
    for (uint32_t i = 1; i <= more; i++) code = code << 6 | (text[i] & 0x3f);
    *length = more + 1;
    return code;
}

/* Whether a character is in the pattern's set: Unicode's white space, and some marks. */
static int separates(uint32_t c) {
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13) || c == '(' || c == ')' || c == '|' || c == '.' || c == ',' ||
               c == '!' || c == '?';
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000 || c == 0x2026 /* … */ || c == 0x3002 /* 。 */ ||
           c == 0xff0c /* ， */ || c == 0x3001 /* 、 */ || c == 0x0964 /* । */ || c == 0x06d4 /* ۔ */ ||
           c == 0x060c /* ، */;
}

/* The bytes of the piece that a text starts with. */
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

static int is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int is_word(uint32_t c) {
    size_t first = 0, end = sizeof word_ranges / sizeof *word_ranges;
    while (first < end) {
        size_t middle = (first + end) / 2;
        if (c > word_ranges[middle][1]) first = middle + 1;
        else end = middle;
    }
    return first < sizeof word_ranges / sizeof *word_ranges && c >= word_ranges[first][0];
}

/* The character that ends before `at`, no earlier than `first`. */
static uint32_t character_before(const uint8_t *text, uint64_t first, uint64_t at, uint32_t *length) {
    uint64_t start = at - 1;
    while (start > first && at - start < 4 && (text[start] & 0xc0) == 0x80) start--;
    uint32_t code = character(text + start, at - start, length);
    if (*length == at - start) return code;
    *length = 1; /* not UTF-8 */
    return text[at - 1];
}

/* One of the two parts of the added tokens, sorted by their bytes. */
struct added_part {
    const uint8_t *tokenizer;
    const struct added *tokens;
    uint32_t count;
    uint8_t starts[256]; /* whether one of them starts with a byte */
};

/* An added token's text; its length is 0 where the place of the text is damaged. */
static const uint8_t *text_of(const uint8_t *tokenizer, const struct added *token, uint32_t *length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    int sound = token->text_at <= h->bytes_size && token->text_size <= h->bytes_size - token->text_at;
    *length = sound ? token->text_size : 0;
    return tokenizer + h->bytes_at + (sound ? token->text_at : 0);
}

static struct added_part added_part(const uint8_t *tokenizer, int normalized) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const struct added *all = (const void *)(tokenizer + h->added_at);
    struct added_part part = {tokenizer, normalized ? all + h->added : all, normalized ? h->normalized : h->added, {0}};
    for (uint32_t i = 0, length; i < part.count; i++) {
        const uint8_t *text = text_of(tokenizer, &part.tokens[i], &length);
        if (length) part.starts[text[0]] = 1;
    }
    return part;
}

/* Among tokens `first` to `end` - 1, whose first `depth` bytes are the same: the first whose next byte is `byte` or
 * more. */
static uint32_t lower_bound(const struct added_part *part, uint32_t first, uint32_t end, uint32_t depth, int byte) {
    while (first < end) {
        uint32_t middle = first + (end - first) / 2, length;
        const uint8_t *text = text_of(part->tokenizer, &part->tokens[middle], &length);
        if (length <= depth || text[depth] < byte) first = middle + 1;
        else end = middle;
    }
    return first;
}

/* The longest added token that a text starts with, or NULL. Tokens with the same first bytes stand side by side, so each
 * further byte of the text narrows the range. */
static const struct added *added_here(const struct added_part *part, const uint8_t *text, uint64_t left) {
    const struct added *found = NULL;
    uint32_t first = 0, end = part->count, length;
    if (!part->starts[text[0]]) return NULL;
    for (uint32_t depth = 0; first < end; depth++) {
        text_of(part->tokenizer, &part->tokens[first], &length);
        if (length == depth && depth) found = &part->tokens[first]; /* the shortest of the range comes first */
        if (depth >= left) break;
        first = lower_bound(part, first, end, depth, text[depth]);
        end = lower_bound(part, first, end, depth, text[depth] + 1);
    }
    return found;
}

/* The tokens of a piece, as a linked list: merging two of them moves no others. */
struct symbol {
    uint32_t id;
    int32_t before, next; /* indices, or -1 */
    uint32_t length;      /* bytes; 0 once it was merged into the one before */
};

/* Two neighbours that can be merged, `at` the index of the left one. */
struct pair {
    int32_t merge, at;
};

/* Working memory, with room for the longest piece. */
struct scratch {
    struct symbol *symbols;
    struct pair *heap;
    size_t heap_size;
};

static int sooner(struct pair a, struct pair b) { return a.merge < b.merge || (a.merge == b.merge && a.at < b.at); }

static void push(struct scratch *s, struct pair pair) {
    size_t at = s->heap_size++;
    for (; at && sooner(pair, s->heap[(at - 1) / 2]); at = (at - 1) / 2) s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = pair;
}

static struct pair pop(struct scratch *s) {
    struct pair top = s->heap[0], last = s->heap[--s->heap_size];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < s->heap_size) {
        if (child + 1 < s->heap_size && sooner(s->heap[child + 1], s->heap[child])) child++;
        if (!sooner(s->heap[child], last)) break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return top;
}

/* Put symbol `at` and the next one on the heap, if they can be merged. */
static void push_pair(const uint8_t *tokenizer, struct scratch *s, int32_t at) {
    int32_t next = at < 0 ? -1 : s->symbols[at].next;
    if (next < 0) return;
    int32_t merge = merge_of(tokenizer, s->symbols[at].id, s->symbols[next].id);
    if (merge >= 0) push(s, (struct pair){merge, at});
}

/* Split a piece into tokens: the list that starts at symbol 0. */
static void merge_piece(const uint8_t *tokenizer, struct scratch *s, const uint8_t *piece, size_t length) {
    const struct tokenizer_header *h = header_of(tokenizer);
    const struct merge *merges = (const void *)(tokenizer + h->merges_at);
    s->heap_size = 0;
    for (size_t i = 0; i < length; i++) /* NOLINTNEXTLINE(clang-analyzer-security.ArrayBound): no piece is longer */
        s->symbols[i] = (struct symbol){h->single[piece[i]], (int32_t)i - 1, i + 1 < length ? (int32_t)i + 1 : -1, 1};
    for (size_t i = 0; i + 1 < length; i++) push_pair(tokenizer, s, (int32_t)i);
    while (s->heap_size) {
        struct pair pair = pop(s);
        struct symbol *left = &s->symbols[pair.at];
        if (!left->length || left->next < 0) continue; /* it has been merged meanwhile */
        struct symbol *right = &s->symbols[left->next];
        int32_t now = merge_of(tokenizer, left->id, right->id);
        if (now < 0 || merges[now].result != merges[pair.merge].result) continue;
        left->id = merges[pair.merge].result;
        left->length += right->length;
        right->length = 0;
        left->next = right->next;
        if (left->next >= 0) s->symbols[left->next].before = pair.at;
        push_pair(tokenizer, s, left->before);
        push_pair(tokenizer, s, pair.at);
    }
}

/* Counts characters from left to right. */
struct counter {
    const uint8_t *text;
    uint64_t at;   /* bytes that are counted */
    uint32_t seen; /* characters that start in them */
};

/* How many characters start before a byte, which must not be before the last one asked for. */
static uint32_t count_to(struct counter *counter, uint64_t byte) {
    for (; counter->at < byte; counter->at++) counter->seen += (counter->text[counter->at] & 0xc0) != 0x80;
    return counter->seen;
}

struct output {
    const uint8_t *tokenizer;
    uint32_t *ids, *starts, *ends;
    int64_t count;
    struct counter counter;
};

/* Whether a character counts as a space when offsets are trimmed. `tokenizers` looks at the text of added tokens, but at
 * GPT-2's stand-ins for the bytes of other tokens, of which only that of the space counts. */
static int is_trimmed(uint32_t c, int added) {
    return c == ' ' || (added && (is_space(c) || c == 0x120 /* Ġ, the stand-in for a space */));
}

/* Leave out the spaces at both ends of a token's characters. */
static void trim(const struct output *out, int added, uint64_t first, uint64_t size, uint32_t *start, uint32_t *end) {
    const uint8_t *text = out->counter.text + first;
    uint32_t mode = header_of(out->tokenizer)->trim, length, before = 0, after = 0;
    if (mode == TRIM_NOT) return;
    for (uint64_t at = 0; at < size && is_trimmed(character(text + at, size - at, &length), added); at += length)
        before++;
    for (uint64_t at = size; at && is_trimmed(character_before(text, 0, at, &length), added); at -= length) after++;
    if (mode == TRIM_BUT_FIRST && before == 1 && *start == 0) before = 0;
    *start = *end - *start > before ? *start + before : *end;
    if (*end >= after) *end = *end - *start > after ? *end - after : *start;
}

static void put(struct output *out, uint32_t id, int added, uint64_t first, uint64_t length) {
    out->ids[out->count] = id;
    if (out->starts) {
        /* A character belongs to every token that holds some of its bytes. */
        uint32_t start = count_to(&out->counter, first + 1) - 1, end = count_to(&out->counter, first + length);
        trim(out, added, first, length, &start, &end);
        out->starts[out->count] = start;
        out->ends[out->count] = end;
    }
    out->count++;
}

static void put_piece(struct scratch *s, struct output *out, uint64_t first, uint64_t length) {
    merge_piece(out->tokenizer, s, out->counter.text + first, length);
    for (int32_t at = 0; at >= 0; at = s->symbols[at].next) {
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): no piece is empty, so symbol 0 is set */
        put(out, s->symbols[at].id, 0, first, s->symbols[at].length);
        first += s->symbols[at].length;
    }
}

/* Make room for the longest piece. The heap never holds more than all pairs of neighbours and two for each merge. */
static int open_scratch(struct scratch *s, uint64_t longest) {
    s->symbols = malloc((longest + 1) * sizeof *s->symbols);
    s->heap = malloc((3 * longest + 1) * sizeof *s->heap);
    return s->symbols && s->heap;
}

/* A part of a text, by its bytes: an added token, or text between them. */
struct part {
    const struct added *token; /* NULL: text */
    uint64_t first, end;
};

/* Cuts the bytes from `first` to `end` of a text at the added tokens of one part. */
struct cutter {
    const struct added_part *added;
    const uint8_t *text;
    uint64_t first, end;
    uint64_t searched; /* no further token begins before this byte */
    uint64_t at;       /* parts up to this byte were returned */
    struct part held;  /* a token that was found already, while the text before it is returned */
};

static struct cutter cut(const struct added_part *added, const uint8_t *text, uint64_t first, uint64_t end) {
    return (struct cutter){added, text, first, end, first, first, {0}};
}

/* Whether a token counts at these bytes: a single word must not touch other characters of words. */
static int is_allowed(const struct cutter *c, const struct added *token, uint64_t first, uint64_t end) {
    uint32_t length;
    if (token->flags & ADDED_NEVER) return 0;
    if (!(token->flags & ADDED_SINGLE_WORD)) return 1;
    return (first == c->first || !is_word(character_before(c->text, c->first, first, &length))) &&
           (end == c->end || !is_word(character(c->text + end, c->end - end, &length)));
}

/* Find the next token, and the white space around it that it includes; 0 when there are no more. */
static int find(struct cutter *c, struct part *found) {
    uint32_t length;
    while (c->searched < c->end) {
        uint64_t first = c->searched++;
        const struct added *token = added_here(c->added, c->text + first, c->end - first);
        if (!token) continue;
        text_of(c->added->tokenizer, token, &length);
        uint64_t end = c->searched = first + length; /* no other token may begin within it, even if it is not allowed */
        if (!is_allowed(c, token, first, end)) continue;
        if (token->flags & ADDED_LSTRIP)
            while (first > c->at && is_space(character_before(c->text, c->at, first, &length))) first -= length;
        if (token->flags & ADDED_RSTRIP)
            while (end < c->end && is_space(character(c->text + end, c->end - end, &length))) end += length;
        c->searched = end;
        *found = (struct part){token, first, end};
        return 1;
    }
    return 0;
}

/* Return the next part; 0 at the end. */
static int next_part(struct cutter *c, struct part *part) {
    if (c->held.token) {
        *part = c->held;
        c->held.token = NULL;
    } else if (find(c, part)) {
        if (c->at < part->first) {
            c->held = *part;
            *part = (struct part){NULL, c->at, part->first};
        }
    } else if (c->at < c->end) {
        *part = (struct part){NULL, c->at, c->end};
    } else {
        return 0;
    }
    c->at = part->end;
    return 1;
}

/* Walks over a text: added tokens, and the pieces of the text between them. */
struct walk {
    const struct added_part *second;
    struct cutter outer, inner;
    struct part rest; /* text that is not yet cut into pieces */
};

static struct walk walk_over(const struct added_part parts[2], const uint8_t *text, uint64_t length) {
    return (struct walk){&parts[1], cut(&parts[0], text, 0, length), cut(&parts[1], text, 0, 0), {0}};
}

/* Return the next added token or piece; 0 at the end. */
static int next_piece(struct walk *walk, struct part *part) {
    while (walk->rest.first >= walk->rest.end) {
        while (!next_part(&walk->inner, part)) {
            if (!next_part(&walk->outer, part)) return 0;
            if (part->token) return 1;
            walk->inner = cut(walk->second, walk->outer.text, part->first, part->end);
        }
        if (part->token) return 1;
        walk->rest = *part;
    }
    uint64_t first = walk->rest.first;
    walk->rest.first += piece_length(walk->outer.text + first, walk->rest.end - first);
    *part = (struct part){NULL, first, walk->rest.first};
    return 1;
}

int64_t bloom_encode(const uint8_t *tokenizer, const uint8_t *text, uint64_t length, uint32_t *ids, uint32_t *starts,
                     uint32_t *ends) {
    struct scratch scratch = {0};
    struct output out = {tokenizer, ids, starts, ends, 0, {text, 0, 0}};
    struct added_part added[2] = {added_part(tokenizer, 0), added_part(tokenizer, 1)};
    struct part part;
    uint64_t longest = 0;
    if (length >= INT32_MAX) return -1;
    for (struct walk walk = walk_over(added, text, length); next_piece(&walk, &part);)
        if (!part.token && part.end - part.first > longest) longest = part.end - part.first;
    if (open_scratch(&scratch, longest)) {
        for (struct walk walk = walk_over(added, text, length); next_piece(&walk, &part);) {
            if (part.token) put(&out, part.token->id, 1, part.first, part.end - part.first);
            else put_piece(&scratch, &out, part.first, part.end - part.first);
        }
    } else {
        out.count = -1;
    }
    free(scratch.symbols);
    free(scratch.heap);
    return out.count;
}
