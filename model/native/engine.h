/* An engine's threads and buffers; made once, so that a step allocates nothing. */
#ifndef ENGINE_H
#define ENGINE_H

#include "file.h"
#include "kernels.h"
#include "pool.h"

struct bloom_engine {
    const struct bloom_file *file;
    const struct bloom_header *header;
    const struct kernels *kernels;
    struct pool pool;
    int plain;                   /* weights, activations, keys and values as floats */
    size_t max_tokens, slots;
    size_t wide, qkv_wide, mid_wide; /* hidden, 3 hidden, 4 hidden, filled up to 16 */
    float *x, *normed, *qkv, *mid;   /* [max_tokens][...] */
    struct activations activations;  /* of max_tokens, up to 4 hidden columns */
    float *slopes;               /* [heads] */
    float *scores;               /* [threads][context], of attention */
    size_t context;              /* max_context, filled up to 16 */
    size_t *first;               /* [max_tokens] the first row of each work */

    /* The output head; a slot holds the scores of one sequence's last token. */
    size_t vocab;                /* rows of the embedding, filled up to 64 */
    float *hidden;               /* [slots][wide], after the last norm */
    struct activations slot_x;   /* [slots] */
    float *slot_norm;            /* [slots] of what slot_x stands for */
    float *logits;               /* [slots][vocab]: of the upper plane alone, until made exact */
    uint64_t *exact;             /* [slots][vocab / 64] which are */
    uint64_t *skip;              /* [vocab / 64] ids left out by the call at hand */
    float *peaks;                /* [vocab / 64] the largest logits of 64 ids, in the call at hand */
    float *norm_peaks;           /* [vocab / 64] and of their lower planes' norms */
    struct candidate *best;      /* [vocab] */
    double *partial;             /* [chunks of the vocabulary] */
    size_t filled;               /* slots in use */
    _Atomic uint64_t rescored;

    void *owned[24];             /* every buffer, to be freed */
    size_t buffers;
    int lacking;                 /* memory, for one of them */
};

struct candidate { float logit; uint32_t id; };

/* head.c: prepare; fill the first `count` slots' scores from `hidden`. */
void head_open(struct bloom_engine *engine);
void head_run(struct bloom_engine *engine, size_t count);
/* engine.c */
void run_matmul(struct bloom_engine *engine, const struct matmul *task);
const uint8_t *tensor_of(const struct bloom_engine *engine, size_t layer, enum bloom_kind kind);

#endif
