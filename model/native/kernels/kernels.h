/* What each instruction set provides. All sets give the same bits, because they add in the same order:
 * a reply does not depend on the machine that writes it. */
#ifndef KERNELS_H
#define KERNELS_H

#include "layout.h"

/* Activations of some tokens, quantised to 8 bits with a scale for each group of 64 columns. */
struct activations {
    int8_t *q;    /* [tokens][groups * 64] */
    float *scale; /* [tokens][groups] */
    int32_t *sum; /* [tokens][groups], of q */
    size_t groups;
};

enum epilogue { STORE, GELU, ADD };

/* out[token][row] = epilogue(bias[row] + weights[row] . x[token]) */
struct matmul {
    enum bloom_format format;
    const uint8_t *weights; /* [rows][cols], as layout.h describes the format */
    const float *bias;      /* [rows], or NULL */
    size_t rows, cols;
    struct activations x; /* [tokens], for all formats but BLOOM_F32 */
    const float *x_f32;   /* [tokens][x_f32_stride], for BLOOM_F32 */
    size_t x_f32_stride;
    float *out; /* [tokens][out_stride]; ADD adds to what is there */
    size_t out_stride;
    size_t tokens;
    enum epilogue epilogue;
};

/* One head of one sequence's tokens in a step. */
struct attention {
    const float *qkv; /* [tokens][stride]: query, key and value of each head */
    float *out;       /* [tokens][out_stride] */
    size_t stride, out_stride;
    uint8_t **pages; /* the sequence's keys and values; see page_* below */
    size_t layer, heads, head, head_size;
    size_t start; /* tokens that the pages hold already */
    size_t tokens;
    float slope; /* of ALiBi; engine.c computes it */
    int kv_f32;  /* keys and values are floats, not 8 bits and a scale */
};

struct kernels {
    const char *name;
    /* The rows of blocks `first_block` to `last_block` - 1. */
    void (*matmul)(const struct matmul *task, size_t first_block, size_t last_block);
    /* Quantise `cols` floats to q [groups * 64], scale [groups] and sum [groups]. Floats that are not finite
     * give NaN as the scale of their group. */
    void (*quantise)(const float *x, size_t cols, int8_t *q, float *scale, int32_t *sum);
    /* x, weight, bias and out are padded to a multiple of 16, and x with zeros. */
    void (*layer_norm)(const float *x, const float *weight, const float *bias, size_t size, float epsilon, float *out);
    /* Append the keys and values, then attend; `scores` has room for start + tokens floats, padded. */
    void (*attend)(const struct attention *task, float *scores);
    /* The dot product of a row of the lower plane, of 4 bits or 2, and one token's activations. */
    float (*low_dot)(const uint8_t *row, const struct activations *x);
    float (*low2_dot)(const uint8_t *row, const struct activations *x);
    /* The sum of exp((x - largest) * factor). */
    double (*sum_exp)(const float *x, size_t count, float largest, float factor);
};

extern const struct kernels kernels_portable, kernels_avx2, kernels_avx512, kernels_neon, kernels_dotprod;

/* The set of that name, or the fastest for NULL; NULL if this processor cannot run it. */
const struct kernels *kernels_find(const char *name);

/* A page holds 16 tokens: [layers][keys | values][heads], and of each head the tokens' vectors [16], padded
 * to 16 numbers, then their scales [16] (floats; 1 where the vectors are floats themselves). Sizes in bytes. */
static inline size_t page_vector_size(size_t head_size, int kv_f32) {
    return padded(head_size) * (kv_f32 ? sizeof(float) : 1);
}
static inline size_t page_head_size(size_t head_size, int kv_f32) {
    return BLOOM_PAGE * (page_vector_size(head_size, kv_f32) + sizeof(float));
}
static inline size_t page_size(size_t layers, size_t heads, size_t head_size, int kv_f32) {
    return round_up(layers * 2 * heads * page_head_size(head_size, kv_f32), CACHE_LINE);
}

#endif
