/* BLOOM's tokenizer, on bytes that are used where they lie: part of a baked model, or in memory.
 *
 * Every number of the bytes is checked where it is used, so that opening them costs nothing and
 * damaged ones do no harm beyond wrong tokens.
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "bloom.h"

enum { TOKENIZER_VERSION = 3 };

/* What an added token asks for. */
enum { ADDED_SPECIAL = 1, ADDED_SINGLE_WORD = 2, ADDED_LSTRIP = 4, ADDED_RSTRIP = 8, ADDED_NEVER = 16 };

/* How a post-processor shortens a token's characters: by the spaces at both ends, except where a
 * single one begins the text. */
enum { TRIM_NOT, TRIM_SPACES, TRIM_BUT_FIRST };

/* Little endian; the tables follow, at offsets from the start. */
struct tokenizer_header {
    uint8_t magic[4];
    uint32_t version;
    uint32_t size;          /* entries of the vocabulary */
    uint32_t merges;
    uint32_t slots;         /* of the hash table, a power of two */
    uint32_t added;         /* added tokens: found in a text as they are, before all else */
    uint32_t normalized;    /* further ones, found in what the former leave */
    uint32_t before, after; /* tokens that a prompt begins and ends with */
    uint32_t trim;          /* TRIM_NOT … */
    uint32_t starts_at;     /* uint32_t [size + 1]: where each token's bytes start in `bytes` */
    uint32_t bytes_at, bytes_size;
    uint32_t merges_at;     /* struct merge [merges], the earlier the sooner */
    uint32_t slots_at;      /* int32_t [slots]: a merge, or -1 */
    uint32_t added_at;      /* struct added [added + normalized], each part in the order of its bytes */
    uint32_t around_at;     /* uint32_t [before + after] */
    uint32_t single[256];   /* the token of each byte */
};

struct merge { uint32_t left, right, result; };
struct added { uint32_t id, flags, text_at, text_size; }; /* its text is within `bytes` */

/* NULL, or what is wrong with the bytes. */
BLOOM_API const char *bloom_tokenizer_check(const uint8_t *tokenizer, uint64_t size);
/* Split UTF-8 text, without the tokens that a prompt begins and ends with; `ids`, and `starts` and `ends`
 * unless NULL, have room for `length` numbers. Starts and ends count characters. Returns the number of
 * tokens, or -1 without memory. */
BLOOM_API int64_t bloom_encode(const uint8_t *tokenizer, const uint8_t *text, uint64_t length,
                               uint32_t *ids, uint32_t *starts, uint32_t *ends);
/* A token's bytes, within the tokenizer's; NULL for an id that it lacks. */
BLOOM_API const uint8_t *bloom_token(const uint8_t *tokenizer, uint32_t id, uint32_t *length);

#endif
