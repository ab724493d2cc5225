/* BLOOM's tokenizer. It works on bytes that model/text/vocabulary.py compiles, where they lie: in a mapped baked model,
 * or in memory.
 *
 * Every number in them is checked where it is used. So opening them costs nothing, and damaged ones do no harm beyond
 * wrong tokens.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "bloom.h"

enum { TOKENIZER_VERSION = 3 };

/* The flags of an added token. ADDED_NEVER: it is not searched for. */
enum { ADDED_SPECIAL = 1, ADDED_SINGLE_WORD = 2, ADDED_LSTRIP = 4, ADDED_RSTRIP = 8, ADDED_NEVER = 16 };

/* How a token's offsets are shortened: not at all, by the spaces at both ends, or likewise but for a single space at
 * the start of the text. */
enum { TRIM_NOT, TRIM_SPACES, TRIM_BUT_FIRST };

/* Little endian. The tables follow; `*_at` are their offsets from the start, in bytes. */
struct tokenizer_header {
    uint8_t magic[4];
    uint32_t version;
    uint32_t size; /* tokens of the vocabulary */
    uint32_t merges;
    uint32_t buckets;       /* of the hash table, a power of two */
    uint32_t added;         /* added tokens that are searched for first, in the text as it is */
    uint32_t normalized;    /* added tokens that are searched for in what those leave */
    uint32_t before, after; /* tokens that a prompt begins and ends with */
    uint32_t trim;          /* TRIM_NOT, TRIM_SPACES or TRIM_BUT_FIRST */
    uint32_t starts_at;     /* uint32_t [size + 1]: where each token's bytes start in `bytes` */
    uint32_t bytes_at, bytes_size;
    uint32_t merges_at;   /* struct merge [merges], by their rank */
    uint32_t buckets_at;  /* int32_t [buckets]: a merge, or -1; linear probing */
    uint32_t added_at;    /* struct added [added + normalized], each part sorted by its bytes */
    uint32_t around_at;   /* uint32_t [before + after] */
    uint32_t single[256]; /* the token of each byte */
};

struct merge {
    uint32_t left, right, result;
};
struct added {
    uint32_t id, flags, text_at, text_size; /* the text is within `bytes` */
};

_Static_assert(sizeof(struct tokenizer_header) == 1092, "model/text/compiled.py");
_Static_assert(sizeof(struct merge) == 12, "model/text/compiled.py");
_Static_assert(sizeof(struct added) == 16, "model/text/compiled.py");

/* NULL, or a sentence that says what is wrong with the bytes. */
BLOOM_API const char *bloom_tokenizer_check(const uint8_t *tokenizer, uint64_t size);
/* Split UTF-8 text of `length` bytes, without the tokens that a prompt begins and ends with. ids, starts and ends are
 * [length]; starts and ends, which count characters, may be NULL. Returns the number of tokens, or -1 without
 * memory. */
BLOOM_API int64_t bloom_encode(const uint8_t *tokenizer, const uint8_t *text, uint64_t length, uint32_t *ids,
                               uint32_t *starts, uint32_t *ends);
/* A token's bytes, within the tokenizer's; NULL for an id that is not in the vocabulary. */
BLOOM_API const uint8_t *bloom_token(const uint8_t *tokenizer, uint32_t id, uint32_t *length);

#endif
