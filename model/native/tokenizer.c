/* Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) as `tokenizers` does it.
 *
 * A text is cut at the added tokens (first at those that are looked for before a text is normalised, then at the
 * others, though no BLOOM normalises), then into pieces by BLOOM's pattern
 *      ?[^(\s|[.,!?…。，、।۔،])]+
 * (a space at most, then characters that are none of its set; what lies between such pieces is a
 * piece too), and within each piece the pair that was merged first in training is merged first,
 * the leftmost of equal ones before the others. A heap keeps that n log n.
 */
#include "tokenizer.h"

#include "words.h"

#include <stdlib.h>
#include <string.h>

static const struct tokenizer_header *header_of(const uint8_t *tokenizer) { return (const void *)tokenizer; }

static int holds(uint64_t at, uint64_t count, uint64_t each, uint64_t size) {
    return at % 4 == 0 && at >= sizeof(struct tokenizer_header) && at <= size && count <= (size - at) / each;
}

const char *bloom_tokenizer_check(const uint8_t *tokenizer, uint64_t size) {
    const struct tokenizer_header *h = header_of(tokenizer);
    if (size < sizeof *h || memcmp(h->magic, "BTOK", 4)) return "it holds no tokenizer";
    if (h->version != TOKENIZER_VERSION) return "its tokenizer is of another version; bake it again";
    if (h->size < 1 || h->size > 1 << 24 || !h->slots || h->slots & (h->slots - 1) ||
        !holds(h->starts_at, (uint64_t)h->size + 1, 4, size) || !holds(h->bytes_at, h->bytes_size, 1, size) ||
        !holds(h->merges_at, h->merges, sizeof(struct merge), size) || !holds(h->slots_at, h->slots, 4, size) ||
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

static int is_space(uint32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static int is_word(uint32_t c) {
    size_t low = 0, high = sizeof word_ranges / sizeof *word_ranges;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > word_ranges[middle][1]) low = middle + 1;
        else high = middle;
    }
    return low < sizeof word_ranges / sizeof *word_ranges && c >= word_ranges[low][0];
}

/* The character that ends before `at`, no earlier than `first`. */
static uint32_t character_before(const uint8_t *text, uint64_t first, uint64_t at, uint32_t *length) {
    uint64_t start = at - 1;
    while (start > first && at - start < 4 && (text[start] & 0xc0) == 0x80) start--;
    uint32_t code = character(text + start, at - start, length);
    if (*length == at - start) return code;
    *length = 1; /* no UTF-8 */
    return text[at - 1];
}

/* One of the two parts of the added tokens, sorted by their bytes. */
struct added_part {
    const uint8_t *tokenizer;
    const struct added *tokens;
    uint32_t count;
    uint8_t starts[256]; /* bytes that one of them starts with */
};

/* An added token's text; of length 0 where its place is damaged. */
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

/* The first of the tokens from `low` to `high`, which begin alike, whose next byte is `byte` or more. */
static uint32_t lower_bound(const struct added_part *part, uint32_t low, uint32_t high, uint32_t depth, int byte) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2, length;
        const uint8_t *text = text_of(part->tokenizer, &part->tokens[middle], &length);
        if (length <= depth || text[depth] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest added token that a text starts with, or NULL: the tokens that share the text's first bytes stand
 * side by side, so each further byte narrows them down. */
static const struct added *added_here(const struct added_part *part, const uint8_t *text, uint64_t left) {
    const struct added *found = NULL;
    uint32_t low = 0, high = part->count, length;
    if (!part->starts[text[0]]) return NULL;
    for (uint32_t depth = 0; low < high; depth++) {
        text_of(part->tokenizer, &part->tokens[low], &length);
        if (length == depth && depth) found = &part->tokens[low]; /* the shortest comes first */
        if (depth >= left) break;
        low = lower_bound(part, low, high, depth, text[depth]);
        high = lower_bound(part, low, high, depth, text[depth] + 1);
    }
    return found;
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

struct output { const uint8_t *tokenizer; uint32_t *ids, *starts, *ends; int64_t count; struct counter counter; };

/* Whether a character counts as a space when offsets are trimmed. `tokenizers` looks at the text of an added token,
 * but at stand-ins for bytes of the others, where only that of a space is one. */
static int is_trimmed(uint32_t c, int added) {
    return c == ' ' || (added && (is_space(c) || c == 0x120 /* Ġ, the stand-in */));
}

/* Take the spaces at a token's ends off the characters that it covers. */
static void trim(const struct output *out, int added, uint64_t first, uint64_t size, uint32_t *start, uint32_t *end) {
    const uint8_t *text = out->counter.text + first;
    uint32_t mode = header_of(out->tokenizer)->trim, length, before = 0, after = 0;
    if (mode == TRIM_NOT) return;
    for (uint64_t at = 0; at < size && is_trimmed(character(text + at, size - at, &length), added); at += length)
        before++;
    for (uint64_t at = size; at && is_trimmed(character_before(text, 0, at, &length), added); at -= length) after++;
    if (mode == TRIM_BUT_FIRST && before == 1 && *start == 0) before = 0; /* two are no prefix, it holds */
    *start = *end - *start > before ? *start + before : *end;
    if (*end >= after) *end = *end - *start > after ? *end - after : *start;
}

static void put(struct output *out, uint32_t id, int added, uint64_t first, uint64_t length) {
    out->ids[out->count] = id;
    if (out->starts) {
        /* A token that begins within a character counts it as its own, as do all that touch it. */
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
        put(out, s->symbols[at].id, 0, first, s->symbols[at].length);
        first += s->symbols[at].length;
    }
}

/* Room for the longest piece; a heap never holds more than each pair once and two for each merge. */
static int open_scratch(struct scratch *s, uint64_t longest) {
    s->symbols = malloc((longest + 1) * sizeof *s->symbols);
    s->heap = malloc((3 * longest + 1) * sizeof *s->heap);
    return s->symbols && s->heap;
}

/* A part of a text: an added token, or plain where there is none. */
struct part { const struct added *token; uint64_t first, end; };

/* Cuts the bytes from `first` to `end` of a text at the added tokens of one part. */
struct cutter {
    const struct added_part *added;
    const uint8_t *text;
    uint64_t first, end;
    uint64_t searched; /* tokens that begin before were found or turned down */
    uint64_t at;       /* what lies before was handed out */
    struct part held;  /* a token that comes after the plain part before it */
};

static struct cutter cut(const struct added_part *added, const uint8_t *text, uint64_t first, uint64_t end) {
    return (struct cutter){added, text, first, end, first, first, {0}};
}

/* Whether a token at these bytes may be taken: one that must be a word stands between other characters. */
static int stands(const struct cutter *c, const struct added *token, uint64_t first, uint64_t end) {
    uint32_t length;
    if (token->flags & ADDED_NEVER) return 0;
    if (!(token->flags & ADDED_SINGLE_WORD)) return 1;
    return (first == c->first || !is_word(character_before(c->text, c->first, first, &length))) &&
           (end == c->end || !is_word(character(c->text + end, c->end - end, &length)));
}

/* Find the next token, with the white space that it takes; 0 when there is no more. */
static int find(struct cutter *c, struct part *found) {
    uint32_t length;
    while (c->searched < c->end) {
        uint64_t first = c->searched++;
        const struct added *token = added_here(c->added, c->text + first, c->end - first);
        if (!token) continue;
        text_of(c->added->tokenizer, token, &length);
        uint64_t end = c->searched = first + length; /* one that is turned down hides what begins within it, too */
        if (!stands(c, token, first, end)) continue;
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

/* Go to the next part; 0 at the end. */
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

/* Walks over a text: added tokens, and pieces of what is plain between them. */
struct walk {
    const struct added_part *second;
    struct cutter outer, inner;
    struct part plain; /* what is left to be cut into pieces */
};

static struct walk walk_over(const struct added_part parts[2], const uint8_t *text, uint64_t length) {
    return (struct walk){&parts[1], cut(&parts[0], text, 0, length), cut(&parts[1], text, 0, 0), {0}};
}

/* Go to the next added token or piece; 0 at the end. */
static int next_piece(struct walk *walk, struct part *part) {
    while (walk->plain.first >= walk->plain.end) {
        while (!next_part(&walk->inner, part)) {
            if (!next_part(&walk->outer, part)) return 0;
            if (part->token) return 1;
            walk->inner = cut(walk->second, walk->outer.text, part->first, part->end);
        }
        if (part->token) return 1;
        walk->plain = *part;
    }
    uint64_t first = walk->plain.first;
    walk->plain.first += piece_length(walk->outer.text + first, walk->plain.end - first);
    *part = (struct part){NULL, first, walk->plain.first};
    return 1;
}

int64_t bloom_encode(const uint8_t *tokenizer, const uint8_t *text, uint64_t length, uint32_t *ids,
                     uint32_t *starts, uint32_t *ends) {
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
