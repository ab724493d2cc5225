/* What each instruction set provides. All give the same bits: sums are taken in the same order
 * everywhere, so that a reply does not depend on the machine that drew it. */
#ifndef KERNELS_H
#define KERNELS_H

#include "layout.h"

/* Activations of some tokens, quantised: 8 bits, a scale and a sum for each group of 64. */
struct activations {
    int8_t *q;    /* [tokens][groups * 64] */
    float *scale; /* [tokens][groups] */
    int32_t *sum; /* [tokens][groups], of q */
    size_t groups;
};

enum epilogue { STORE, GELU, ADD };

/* out[token][row] = epilogue(bias[row] + weights[row] . x[token]) */
struct matmul {
    const uint8_t *weights;
    const float *bias; /* [rows], or NULL */
    struct activations x;
    const float *plain; /* for BLOOM_F32: x as it is, [tokens][stride] */
    size_t plain_stride, cols, rows;
    float *out;        /* [tokens][out_stride]; ADD adds to what is there */
    size_t out_stride;
    size_t tokens;
    enum bloom_format format;
    enum epilogue epilogue;
};

/* One head of one sequence's tokens in a step. */
struct attention {
    const float *qkv;  /* [tokens][stride]: of each head its query, key, value */
    float *out;        /* [tokens][out_stride] */
    size_t stride, out_stride;
    uint8_t **pages;   /* each [layer][keys | values][heads][16 tokens], see page_* below */
    size_t layer, heads, head, head_size, start, tokens;
    float slope;       /* of ALiBi */
    int plain;         /* keys and values as floats, not as 8 bits and a scale */
};

struct kernels {
    const char *name;
    /* Rows first to last - 1, in blocks of 16. */
    void (*matmul)(const struct matmul *task, size_t first_block, size_t last_block);
    void (*quantise)(const float *x, size_t cols, int8_t *q, float *scale, int32_t *sum);
    void (*layer_norm)(const float *x, const float *weight, const float *bias, size_t size,
                       float epsilon, float *out);
    /* Append the keys and values, then attend; scores has room for start + tokens floats. */
    void (*attend)(const struct attention *task, float *scores);
    /* What the lower plane adds to a row's logit. */
    float (*low)(const uint8_t *row, const struct activations *x);
    /* Sum of exp((x - most) * factor). */
    double (*sum_exp)(const float *x, size_t count, float most, float factor);
};

extern const struct kernels kernels_portable, kernels_avx2, kernels_avx512, kernels_neon, kernels_dotprod;

/* The best set that this processor runs, or the one of that name; NULL if it cannot run it. */
const struct kernels *kernels_find(const char *name);

/* A page's layout: head sizes are filled up to 16, and a scale follows each head's vectors. */
static inline size_t page_vector(size_t head_size, int plain) {
    return round_up(head_size, 16) * (plain ? sizeof(float) : 1);
}
static inline size_t page_head(size_t head_size, int plain) {
    return BLOOM_PAGE * (page_vector(head_size, plain) + sizeof(float));
}
static inline size_t page_size(size_t layers, size_t heads, size_t head_size, int plain) {
    return round_up(layers * 2 * heads * page_head(head_size, plain), 64);
}

#endif
