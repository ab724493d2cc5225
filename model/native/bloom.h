/* The native engine's interface to Python: a baked model, used where it is mapped, and BLOOM run on it.
 *
 * Three things are kept apart: the file (weights; shared and read-only), the engine (the threads and buffers
 * of one process), and the keys and values (pages that the caller owns). No memory is allocated between
 * two tokens.
 */
#ifndef BLOOM_H
#define BLOOM_H

#include <stddef.h>
#include <stdint.h>

#define BLOOM_API __attribute__((visibility("default")))

enum {
    BLOOM_VERSION = 3, /* of the file */
    BLOOM_GROUP = 64,  /* columns that share a scale */
    BLOOM_ROWS = 16,   /* rows of a block */
    BLOOM_PAGE = 16,   /* tokens of a page of keys and values */
};

/* How the numbers of a tensor are written; layout.h describes each. */
enum bloom_format {
    BLOOM_F32 = 0,  /* floats */
    BLOOM_W8 = 1,   /* 8 bits, in blocks of 16 rows, with a scale for each group of 64 columns */
    BLOOM_W4 = 2,   /* 4 bits, likewise; also the upper plane of the word embedding and the output head */
    BLOOM_LOW = 3,  /* the lower plane of the word embedding and the output head: 4 bits, row after row */
    BLOOM_W5 = 4,   /* 5 bits, as 4 and a plane of one bit */
    BLOOM_LOW2 = 5, /* the lower plane with 2 bits */
};

// clang-format off
enum bloom_kind {
    BLOOM_EMBED_HIGH, BLOOM_EMBED_LOW, BLOOM_EMBED_NORM, BLOOM_EMBED_F32,
    BLOOM_EMBED_LN_WEIGHT, BLOOM_EMBED_LN_BIAS,
    BLOOM_LN1_WEIGHT, BLOOM_LN1_BIAS, BLOOM_QKV_WEIGHT, BLOOM_QKV_BIAS,
    BLOOM_DENSE_WEIGHT, BLOOM_DENSE_BIAS, BLOOM_LN2_WEIGHT, BLOOM_LN2_BIAS,
    BLOOM_UP_WEIGHT, BLOOM_UP_BIAS, BLOOM_DOWN_WEIGHT, BLOOM_DOWN_BIAS,
    BLOOM_LNF_WEIGHT, BLOOM_LNF_BIAS,
    /* Only of a model whose output head is not its word embedding. */
    BLOOM_HEAD_HIGH, BLOOM_HEAD_LOW, BLOOM_HEAD_NORM, BLOOM_HEAD_F32,
    BLOOM_KINDS
};
// clang-format on

struct bloom_tensor {
    uint32_t kind, layer, format, rows, cols, reserved;
    uint64_t offset, size; /* bytes; the offset counts from the start of the file */
};

/* The first bytes of a file; `tensors` entries of struct bloom_tensor follow. Little endian. */
struct bloom_header {
    uint8_t magic[8];
    uint32_t version, byte_order;
    uint64_t file_size;
    uint8_t sha256[32];   /* of all bytes after header_size */
    uint32_t header_size; /* of this, the tensors' entries, and padding */
    uint32_t header_crc;  /* crc32 of header_size bytes, with 0 for this field */
    uint32_t vocab_rows;  /* rows of the word embedding, some of which may be padding */
    uint32_t n_vocab;     /* ids that the tokenizer knows: the first rows */
    uint32_t hidden, layers, heads, max_context, reserved;
    float epsilon; /* of the layer norms */
    uint32_t bits; /* of the layers' weights: 8, 4, or 32 for floats; 0 if the file holds only a tokenizer */
    uint32_t tensors;
    uint64_t tokenizer_offset, tokenizer_size, metadata_offset, metadata_size;
};

struct bloom_file;
struct bloom_engine;

/* One sequence's part of a step. */
struct bloom_work {
    const uint32_t *tokens;
    uint32_t count;  /* tokens to append */
    uint32_t start;  /* tokens that the pages hold already */
    uint8_t **pages; /* page i holds tokens 16 i to 16 i + 15; there are enough for start + count */
    int32_t slot;    /* the first of the slots that keep logits, or -1 */
    uint32_t places; /* how many of the last tokens have their logits kept, in slots that follow each other */
};

_Static_assert(sizeof(struct bloom_tensor) == 40, "the file format, and model/baked/format.py");
_Static_assert(sizeof(struct bloom_header) == 136, "the file format, and model/baked/format.py");
_Static_assert(sizeof(struct bloom_work) == 32, "model/engine/native.py");

/* The size of a structure that Python declares too, by its name; 0 for another name. */
BLOOM_API uint64_t bloom_struct_size(const char *name);

/* Map a file and check its header; NULL, and a sentence in `error`, when it cannot be used. */
BLOOM_API struct bloom_file *bloom_file_open(const char *path, char *error, size_t error_size);
BLOOM_API void bloom_file_close(struct bloom_file *file);
BLOOM_API const struct bloom_header *bloom_file_header(const struct bloom_file *file);

/* The size of a tensor in bytes; 0 for an unknown format. */
BLOOM_API uint64_t bloom_format_size(uint32_t format, uint64_t rows, uint64_t cols);

/* Convert numbers of a type that safetensors names (F64, F32, F16, BF16) to floats; -1 for another type. */
BLOOM_API int bloom_widen(const char *type, const void *values, uint64_t count, float *out);
/* Whether each float equals the other one in its place. */
BLOOM_API int bloom_same(const float *one, const float *other, uint64_t count);
/* Adds scale * b [rows][rank] a [rank][cols] to w [rows][cols]. */
BLOOM_API void bloom_add_product(uint64_t rows, uint64_t cols, uint64_t rank, const float *b, const float *a,
                                 float scale, float *w);

/* Gives each row of w [rows][cols] the length that is asked for; a row of zeros stays one. */
BLOOM_API void bloom_scale_rows(uint64_t rows, uint64_t cols, const float *lengths, float *w);

/* A matrix as GPTQ packs it: weight [row][col] = scale (code - zero), where scale and zero are those of the row and of
 * the column's group. Each zero is stored less `zero_offset`. */
struct bloom_gptq {
    uint64_t rows, cols, groups;
    uint64_t group_size;         /* columns of a group, where group_of_col does not tell */
    uint32_t bits;               /* of a code: 2, 4 or 8 */
    uint32_t zero_offset;        /* 0 or 1 */
    const uint8_t *qweight;      /* 32-bit words [cols / codes of a word][rows] */
    const uint8_t *qzeros;       /* 32-bit words [groups][rows / codes of a word] */
    const float *scales;         /* [groups][rows] */
    const uint8_t *group_of_col; /* int32 [cols], or NULL */
};
_Static_assert(sizeof(struct bloom_gptq) == 72, "model/checkpoint/weights.py");

/* Whether the matrix can be read: 0, or BLOOM_GPTQ_ASYMMETRIC where it can and zeros are not all half of the range; less
 * than 0 for a scale that is not finite, a column of a group that is not there, or a zero that is 2^bits. */
enum bloom_gptq_problem {
    BLOOM_GPTQ_ASYMMETRIC = 1,
    BLOOM_GPTQ_SCALE = -1,
    BLOOM_GPTQ_GROUP = -2,
    BLOOM_GPTQ_ZERO = -3
};
BLOOM_API int bloom_gptq_check(const struct bloom_gptq *matrix);
/* Rows of a matrix that was checked: their values, and the scale of the first column of each BLOOM_GROUP columns. */
BLOOM_API void bloom_gptq_rows(const struct bloom_gptq *matrix, uint64_t first, uint64_t count, float *values,
                               float *scales);

/* What quantising cost a tensor; starts as zeros. */
struct bloom_pack_stats {
    double squared_error; /* the sum of the squared errors */
    double squares;       /* the sum of the squared values */
    double largest_error; /* of one value */
    double lost;          /* the part of squared_error that comes of scales too small for fp16 */
    double lost_of_row;   /* the largest share of a row's squares that is lost in that way */
};
_Static_assert(sizeof(struct bloom_pack_stats) == 40, "model/baked/format.py");

/* Quantise `rows` rows (a multiple of 16, or the last rows of the tensor) to a format, and add to the stats. `scales`
 * [rows][groups of BLOOM_GROUP columns], or NULL: where the values of a group are whole multiples of its scale, by
 * numbers that the format has, that scale is taken and nothing is rounded. Returns 0,
 * BLOOM_NOT_FINITE or BLOOM_TOO_LARGE; values that are out of range are never clipped. */
enum bloom_value { BLOOM_NOT_FINITE = -1, BLOOM_TOO_LARGE = -2 };
BLOOM_API int bloom_pack(uint32_t format, uint32_t rows, uint32_t cols, const float *values, const float *scales,
                         uint8_t *out, struct bloom_pack_stats *stats);
/* The same for rows of the word embedding, as two planes, and the norm of each row of the lower plane, whose format is
 * BLOOM_LOW or BLOOM_LOW2. */
BLOOM_API int bloom_pack_embedding(uint32_t low_format, uint32_t rows, uint32_t cols, const float *values,
                                   uint8_t *high, uint8_t *low, float *norms, struct bloom_pack_stats *stats);

/* Make an engine, of at most `max_tokens` in a step, and logits for at most `slots` sequences. `isa` names the
 * instruction set; NULL takes the fastest. Threads start with the first step, so that a process may fork before.
 * NULL, and a sentence in `error`, when it cannot be made. */
BLOOM_API struct bloom_engine *bloom_engine_new(const struct bloom_file *file, uint32_t threads, uint32_t max_tokens,
                                                uint32_t slots, const char *isa, char *error, size_t error_size);
BLOOM_API void bloom_engine_free(struct bloom_engine *engine);
BLOOM_API const char *bloom_engine_isa(const struct bloom_engine *engine);
BLOOM_API uint64_t bloom_engine_page_size(const struct bloom_engine *engine);

/* A number that changes while a step makes progress; may be read by any thread. */
BLOOM_API uint64_t bloom_progress(const struct bloom_engine *engine);

/* Run one step. Works with a slot use slots 0, 1, ... in order, one for each place; their logits are valid until the
 * next step. Returns 0, or -1 for an argument out of range. */
BLOOM_API int bloom_forward(struct bloom_engine *engine, const struct bloom_work *works, uint32_t count);

/* The `count` largest logits of a slot but those of the excluded ids, largest first, equal ones by lowest id;
 * returns how many there are, or -1 for an argument out of range. */
BLOOM_API int64_t bloom_top(struct bloom_engine *engine, int32_t slot, uint32_t count, const uint32_t *excluded,
                            uint32_t excluded_count, uint32_t *ids, float *logits);
/* The logits of some ids; -inf for ids that are not in the vocabulary. */
BLOOM_API void bloom_at(struct bloom_engine *engine, int32_t slot, const uint32_t *ids, uint32_t count, float *logits);
/* The logits [n_vocab] of all ids; -1 for an argument out of range. */
BLOOM_API int bloom_logits(struct bloom_engine *engine, int32_t slot, float *logits);
/* log of the sum of exp(logit / temperature) over all ids but the excluded ones. */
BLOOM_API double bloom_logsumexp(struct bloom_engine *engine, int32_t slot, double temperature,
                                 const uint32_t *excluded, uint32_t excluded_count);
/* The Kullback-Leibler divergence of softmax(q) from softmax(p), of `count` logits each, in nats. */
BLOOM_API double bloom_divergence(const float *p, const float *q, uint64_t count);
/* Rows of the word embedding whose lower plane was read since the last step. */
BLOOM_API uint64_t bloom_rescored(const struct bloom_engine *engine);

#endif
