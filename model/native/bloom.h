/* The native engine's interface to Python: a baked model, opened in place, and BLOOM run on it.
 *
 * Three things are kept apart, as the field does: the file (weights, shared and read-only), the
 * engine (threads and buffers of one process), and the keys and values (pages that the caller
 * owns). Nothing is allocated between two tokens.
 */
#ifndef BLOOM_H
#define BLOOM_H

#include <stddef.h>
#include <stdint.h>

#define BLOOM_API __attribute__((visibility("default")))

enum { BLOOM_VERSION = 2, BLOOM_GROUP = 64, BLOOM_ROWS = 16, BLOOM_PAGE = 16 };

/* How the numbers of a tensor are written; see pack.c for the layouts. */
enum bloom_format {
    BLOOM_F32 = 0,  /* plain, row after row, each row filled up to 16 */
    BLOOM_W8 = 1,   /* 8 bits, 16 rows interleaved, a scale for each group of 64 */
    BLOOM_W4 = 2,   /* 4 bits, likewise; also the upper plane of the word embedding */
    BLOOM_LOW = 3,  /* lower plane of the word embedding: 4 bits, row after row */
};

enum bloom_kind {
    BLOOM_EMBED_HIGH, BLOOM_EMBED_LOW, BLOOM_EMBED_NORM, BLOOM_EMBED_F32,
    BLOOM_EMBED_LN_WEIGHT, BLOOM_EMBED_LN_BIAS,
    BLOOM_LN1_WEIGHT, BLOOM_LN1_BIAS, BLOOM_QKV_WEIGHT, BLOOM_QKV_BIAS,
    BLOOM_DENSE_WEIGHT, BLOOM_DENSE_BIAS, BLOOM_LN2_WEIGHT, BLOOM_LN2_BIAS,
    BLOOM_UP_WEIGHT, BLOOM_UP_BIAS, BLOOM_DOWN_WEIGHT, BLOOM_DOWN_BIAS,
    BLOOM_LNF_WEIGHT, BLOOM_LNF_BIAS,
    BLOOM_KINDS
};

struct bloom_tensor {
    uint32_t kind, layer, format, rows, cols, reserved;
    uint64_t offset, size; /* bytes from the start of the file */
};

/* The first bytes of a file; `tensors` of bloom_tensor follow at once. Little endian. */
struct bloom_header {
    uint8_t magic[8];
    uint32_t version, byte_order;
    uint64_t file_size;
    uint8_t sha256[32];              /* of all bytes from header_size on */
    uint32_t header_size, header_crc; /* crc32 of header_size bytes, this field taken as 0 */
    uint32_t vocab_rows, drawable;   /* rows of the embedding; ids that the tokenizer knows */
    uint32_t hidden, layers, heads, max_context, reserved;
    float epsilon;
    uint32_t bits;                   /* 8, 4, or 32 for plain floats; 0: a tokenizer alone */
    uint32_t tensors;
    uint64_t tokenizer_offset, tokenizer_size, metadata_offset, metadata_size;
};

struct bloom_file;
struct bloom_engine;

/* One sequence's part of a step. */
struct bloom_work {
    const uint32_t *tokens;
    uint32_t count;    /* tokens to append */
    uint32_t start;    /* tokens that the pages hold already */
    uint8_t **pages;   /* page i holds tokens 16 i to 16 i + 15; enough for start + count */
    int32_t slot;      /* where the last token's scores go, or -1 */
};

/* Map a file and check its header; NULL, and a sentence in `error`, when it cannot be used. */
BLOOM_API struct bloom_file *bloom_file_open(const char *path, char *error, size_t error_size);
BLOOM_API void bloom_file_close(struct bloom_file *file);
BLOOM_API const struct bloom_header *bloom_file_header(const struct bloom_file *file);

/* Bytes that a tensor of a format takes. */
BLOOM_API uint64_t bloom_format_size(uint32_t format, uint64_t rows, uint64_t cols);

/* Floats of `type`, as safetensors names it (F64, F32, F16, BF16); -1 for another. */
BLOOM_API int bloom_widen(const char *type, const void *values, uint64_t count, float *out);
/* Whether all of some floats are equal, one by one. */
BLOOM_API int bloom_same(const float *one, const float *other, uint64_t count);
/* Write `rows` rows (a multiple of 16, or the tensor's last ones) in a format; adds the squares of
 * the errors and of the values to sums[0] and [1], keeps the largest error in sums[2], and adds to
 * sums[3] the squares that are lost because the scales of tiny values cannot be kept as fp16; the
 * largest share of a row's squares that is lost so is kept in sums[4].
 * Returns 0, BLOOM_NOT_FINITE or BLOOM_TOO_LARGE: nothing is ever clipped to what can be kept. */
enum bloom_value { BLOOM_NOT_FINITE = -1, BLOOM_TOO_LARGE = -2 };
BLOOM_API int bloom_pack(uint32_t format, uint32_t rows, uint32_t cols, const float *values,
                         uint8_t *out, double *sums);
/* The word embedding's rows as two planes and, for each row, the norm of what `low` adds. */
BLOOM_API int bloom_pack_embedding(uint32_t rows, uint32_t cols, const float *values,
                                   uint8_t *high, uint8_t *low, float *norms, double *sums);

/* Make an engine; it starts no thread before its first step. `isa` is NULL for the best there is.
 * `max_tokens` bounds a step, `slots` the sequences whose scores are kept at once. */
BLOOM_API struct bloom_engine *bloom_engine_new(const struct bloom_file *file, uint32_t threads,
                                                uint32_t max_tokens, uint32_t slots,
                                                const char *isa, char *error, size_t error_size);
BLOOM_API void bloom_engine_free(struct bloom_engine *engine);
BLOOM_API const char *bloom_engine_isa(const struct bloom_engine *engine);
BLOOM_API uint64_t bloom_engine_page_size(const struct bloom_engine *engine);

/* A number that changes with each chunk of each phase of a step; from any thread. */
BLOOM_API uint64_t bloom_progress(const struct bloom_engine *engine);

/* Run one step; works' scores are valid until the next. 0, or -1 for an argument out of range. */
BLOOM_API int bloom_forward(struct bloom_engine *engine, const struct bloom_work *works,
                            uint32_t count);

/* The `count` largest of a slot's logits, `without` some ids (ascending order is not needed);
 * returns how many were found. Equal ones come by lowest id. */
BLOOM_API int64_t bloom_top(struct bloom_engine *engine, int32_t slot, uint32_t count,
                            const uint32_t *without, uint32_t withouts, uint32_t *ids,
                            float *logits);
/* The logits of some ids; -inf for ids that may not be drawn. */
BLOOM_API void bloom_at(struct bloom_engine *engine, int32_t slot, const uint32_t *ids,
                        uint32_t count, float *logits);
/* log of the sum of exp(logit / temperature) over all ids but `without`. */
BLOOM_API double bloom_logsumexp(struct bloom_engine *engine, int32_t slot, double temperature,
                                 const uint32_t *without, uint32_t withouts);
/* Rows of the embedding whose lower plane was read since the last step. */
BLOOM_API uint64_t bloom_rescored(const struct bloom_engine *engine);

#endif
