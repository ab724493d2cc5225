/* The output head, and the logits of the sequences of a step. */
#ifndef HEAD_H
#define HEAD_H

#include <stdatomic.h>

#include "buffers.h"
#include "file.h"
#include "kernels/kernels.h"
#include "pool.h"

struct candidate {
    float logit;
    uint32_t id;
};

/* A slot keeps the logits of one token. Bitmaps and maxima have one entry for a block of 64 ids. */
struct head {
    const struct bloom_file *file;
    const struct kernels *kernels;
    struct pool *pool;
    const uint8_t *high; /* the planes of the matrix, or `f32` floats in `high` */
    const uint8_t *low;  /* NULL for floats */
    size_t low_size;     /* of a row of it, in bytes */
    float (*low_dot)(const uint8_t *row, const struct activations *x);
    const float *low_norms; /* of the lower plane's rows; NULL for floats */
    int f32;                /* the matrix is floats, and all logits are exact */
    size_t slots;           /* there are */
    size_t used;            /* slots of the last step */
    size_t hidden_stride;   /* hidden, padded */
    size_t vocab;           /* rows of the matrix, rounded up to a multiple of 64 */
    float *hidden;          /* [slots][hidden_stride], after the last layer norm */
    struct activations x;   /* [slots], the same quantised */
    float *x_norm;          /* [slots] */
    float *logits;          /* [slots][vocab], of the upper plane alone until they are made exact */
    uint64_t *exact;        /* [slots][vocab / 64], which are */
    uint64_t *excluded;     /* [vocab / 64], the ids that the current call leaves out */
    float *block_max;       /* [vocab / 64], the largest logit, in the current call */
    float *block_norm_max;  /* [vocab / 64], the largest norm of the lower plane's rows */
    struct candidate *best; /* [vocab] */
    double *partial;        /* [vocab / 64], sums of the chunks of a phase */
    _Atomic uint64_t rescored;
};

/* Prepare for at most `slots` sequences; `buffers` tells whether memory was lacking. */
void head_open(struct head *head, const struct bloom_file *file, const struct kernels *kernels, struct pool *pool,
               struct buffers *buffers, size_t slots);
/* Compute the logits of the first `slots` slots from `hidden`. */
void head_run(struct head *head, size_t slots);

/* As bloom_top, bloom_at, bloom_logits, bloom_logsumexp and bloom_rescored in bloom.h; `index` is the number of a slot. */
int64_t head_top(struct head *head, int32_t index, uint32_t count, const uint32_t *excluded, uint32_t excluded_count,
                 uint32_t *ids, float *logits);
void head_at(struct head *head, int32_t index, const uint32_t *ids, uint32_t count, float *logits);
int head_all(struct head *head, int32_t index, float *logits);
double head_logsumexp(struct head *head, int32_t index, double temperature, const uint32_t *excluded,
                      uint32_t excluded_count);
uint64_t head_rescored(const struct head *head);

#endif
