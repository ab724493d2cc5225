/* One step of a BLOOM: tokens in, logits out.
 *
 * The threads share each phase of a step: norms and quantising by token, matrices by rows, attention by
 * sequence and head. Between two phases they wait for each other (pool.c).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "file.h"
#include "head.h"
#include "kernels/kernels.h"
#include "matmul.h"
#include "pool.h"

enum { MAX_THREADS = 256, MAX_TOKENS = 1 << 16, MAX_SLOTS = 1024 };

/* The activations of a step's tokens: [max_tokens][stride], of which `cols` are used. */
struct matrix {
    float *at;
    size_t cols, stride;
};

struct bloom_engine {
    const struct bloom_file *file;
    const struct bloom_header *header;
    const struct kernels *kernels;
    struct pool pool;
    int f32; /* weights, activations, keys and values are floats */
    size_t max_tokens;
    struct matrix x;              /* hidden wide: the residual stream */
    struct matrix normed;         /* hidden wide: after a layer norm, or attention */
    struct matrix qkv;            /* 3 hidden wide */
    struct matrix mlp;            /* 4 hidden wide */
    struct activations quantised; /* of max_tokens, for matrices of up to 4 hidden columns */
    float *slopes;                /* [heads], of ALiBi */
    float *scores;                /* [threads][context], of attention */
    size_t context;               /* max_context, padded */
    size_t *first_row;            /* [max_tokens], of each work in the matrices */
    struct head head;
    struct buffers buffers;
};

static float *row_of(const struct matrix *matrix, size_t row) { return matrix->at + row * matrix->stride; }

static void layer_norm(const struct bloom_engine *engine, size_t layer, enum bloom_kind norm, const float *x,
                       float *out) {
    engine->kernels->layer_norm(x, vector_of(engine->file, layer, norm), vector_of(engine->file, layer, norm + 1),
                                engine->header->hidden, engine->header->epsilon, out);
}

/* Prepare the input of a matrix, token by token: normalise, quantise, or both. */
struct input_phase {
    struct bloom_engine *engine;
    size_t layer;
    enum bloom_kind norm; /* BLOOM_KINDS for none */
    const struct matrix *x;
};

static void input_chunk(void *context, size_t token, size_t thread) {
    (void)thread;
    const struct input_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    const float *x = row_of(phase->x, token);
    if (phase->norm != BLOOM_KINDS) {
        float *normed = row_of(&engine->normed, token);
        layer_norm(engine, phase->layer, phase->norm, x, normed);
        x = normed;
    }
    if (engine->f32) return;
    const struct activations *to = &engine->quantised;
    size_t groups = groups_of(phase->x->cols);
    engine->kernels->quantise(x, phase->x->cols, to->q + token * groups * BLOOM_GROUP, to->scale + token * groups,
                              to->sum + token * groups);
}

/* out = epilogue(weights . norm(x) + bias); without the norm where `norm` is BLOOM_KINDS. */
static void linear(struct bloom_engine *engine, size_t layer, enum bloom_kind weights, enum bloom_kind norm,
                   const struct matrix *x, const struct matrix *out, size_t tokens, enum epilogue epilogue) {
    int has_norm = norm != BLOOM_KINDS;
    struct input_phase input = {engine, layer, norm, x};
    if (has_norm || !engine->f32) pool_run(&engine->pool, input_chunk, &input, tokens);
    const struct matrix *normed = has_norm ? &engine->normed : x;
    struct matmul task = {
        .format = entry_of(engine->file, layer, weights)->format,
        .weights = tensor_of(engine->file, layer, weights),
        .bias = vector_of(engine->file, layer, weights + 1),
        .rows = out->cols,
        .cols = x->cols,
        .x = engine->quantised,
        .x_f32 = normed->at,
        .x_f32_stride = normed->stride,
        .out = out->at,
        .out_stride = out->stride,
        .tokens = tokens,
        .epilogue = epilogue,
    };
    task.x.groups = groups_of(x->cols);
    matmul_run(&engine->pool, engine->kernels, &task);
}

struct attention_phase {
    struct bloom_engine *engine;
    const struct bloom_work *works;
    size_t layer;
};

static void attention_chunk(void *context, size_t chunk, size_t thread) {
    const struct attention_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    size_t heads = engine->header->heads, head = chunk % heads, row = engine->first_row[chunk / heads];
    const struct bloom_work *work = &phase->works[chunk / heads];
    struct attention task = {
        .qkv = row_of(&engine->qkv, row),
        .out = row_of(&engine->normed, row),
        .stride = engine->qkv.stride,
        .out_stride = engine->normed.stride,
        .pages = work->pages,
        .layer = phase->layer,
        .heads = heads,
        .head = head,
        .head_size = engine->header->hidden / heads,
        .start = work->start,
        .tokens = work->count,
        .slope = engine->slopes[head],
        .kv_f32 = engine->f32,
    };
    engine->kernels->attend(&task, engine->scores + thread * engine->context);
}

/* Write a token's row of the word embedding, put together from its two planes. */
static void embed(const struct bloom_engine *engine, uint32_t token, float *out) {
    size_t cols = engine->x.cols, stride = engine->x.stride, groups = groups_of(cols);
    if (engine->f32) {
        memcpy(out, vector_of(engine->file, 0, BLOOM_EMBED_F32) + token * stride, stride * sizeof *out);
        return;
    }
    const uint8_t *block = tensor_of(engine->file, 0, BLOOM_EMBED_HIGH) + token / BLOOM_ROWS * block_size_w4(groups);
    const uint8_t *tiles = block + scales_size(groups);
    int two = entry_of(engine->file, 0, BLOOM_EMBED_LOW)->format == BLOOM_LOW2, step = two ? 4 : 16;
    size_t low_size = two ? low2_row_size(groups) : low_row_size(groups);
    size_t scales_at = two ? low2_scales_at(groups) : low_scales_at(groups);
    const uint8_t *low = tensor_of(engine->file, 0, BLOOM_EMBED_LOW) + token * low_size;
    for (size_t i = 0; i < cols; i++) {
        size_t g = i / BLOOM_GROUP, col = i % BLOOM_GROUP;
        int lower = two ? low2_get(low, g, col) : low_get(low, g, col);
        int value = step * w4_get(tiles + g * TILE_W4, token % BLOOM_ROWS, col) + lower;
        out[i] = half_to_float(half_at(low + scales_at + g * 2)) * (float)value;
    }
    memset(out + cols, 0, (stride - cols) * sizeof *out);
}

struct embed_phase {
    struct bloom_engine *engine;
    const struct bloom_work *works;
};

static void embed_chunk(void *context, size_t index, size_t thread) {
    (void)thread;
    const struct embed_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    const struct bloom_work *work = &phase->works[index];
    for (size_t i = 0; i < work->count; i++) {
        size_t row = engine->first_row[index] + i;
        embed(engine, work->tokens[i], row_of(&engine->normed, row));
        layer_norm(engine, 0, BLOOM_EMBED_LN_WEIGHT, row_of(&engine->normed, row), row_of(&engine->x, row));
    }
}

/* Check a step and set first_row; returns the number of its tokens, or -1. */
static int check_works(struct bloom_engine *engine, const struct bloom_work *works, uint32_t count) {
    const struct bloom_header *h = engine->header;
    size_t tokens = 0;
    size_t slots = 0;
    if (count < 1 || count > engine->max_tokens) return -1;
    for (uint32_t i = 0; i < count; i++) {
        const struct bloom_work *work = &works[i];
        if (work->count < 1 || work->count > engine->max_tokens || work->start > h->max_context ||
            work->count > h->max_context - work->start)
            return -1;
        engine->first_row[i] = tokens;
        tokens += work->count;
        if (tokens > engine->max_tokens) return -1;
        if (work->slot >= 0) {
            if (work->places < 1 || work->places > work->count || (size_t)work->slot != slots) return -1;
            slots += work->places;
            if (slots > engine->head.slots) return -1;
        }
        for (uint32_t t = 0; t < work->count; t++)
            if (work->tokens[t] >= h->vocab_rows) return -1;
    }
    return (int)tokens;
}

int bloom_forward(struct bloom_engine *engine, const struct bloom_work *works, uint32_t count) {
    const struct bloom_header *h = engine->header;
    engine->head.used = 0;
    int checked = check_works(engine, works, count);
    if (checked < 0) return -1;
    size_t tokens = (size_t)checked;
    struct matrix *x = &engine->x;
    struct embed_phase embedding = {engine, works};
    pool_run(&engine->pool, embed_chunk, &embedding, count);
    for (size_t layer = 1; layer <= h->layers; layer++) {
        linear(engine, layer, BLOOM_QKV_WEIGHT, BLOOM_LN1_WEIGHT, x, &engine->qkv, tokens, STORE);
        struct attention_phase attention = {engine, works, layer - 1};
        pool_run(&engine->pool, attention_chunk, &attention, count * h->heads);
        linear(engine, layer, BLOOM_DENSE_WEIGHT, BLOOM_KINDS, &engine->normed, x, tokens, ADD);
        linear(engine, layer, BLOOM_UP_WEIGHT, BLOOM_LN2_WEIGHT, x, &engine->mlp, tokens, GELU);
        linear(engine, layer, BLOOM_DOWN_WEIGHT, BLOOM_KINDS, &engine->mlp, x, tokens, ADD);
    }
    size_t slots = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (works[i].slot < 0) continue;
        size_t end = engine->first_row[i] + works[i].count;
        for (size_t row = end - works[i].places; row < end; row++)
            layer_norm(engine, 0, BLOOM_LNF_WEIGHT, row_of(x, row),
                       engine->head.hidden + slots++ * engine->head.hidden_stride);
    }
    if (slots) head_run(&engine->head, slots);
    return 0;
}

int64_t bloom_top(struct bloom_engine *engine, int32_t slot, uint32_t count, const uint32_t *excluded,
                  uint32_t excluded_count, uint32_t *ids, float *logits) {
    return head_top(&engine->head, slot, count, excluded, excluded_count, ids, logits);
}

void bloom_at(struct bloom_engine *engine, int32_t slot, const uint32_t *ids, uint32_t count, float *logits) {
    head_at(&engine->head, slot, ids, count, logits);
}

int bloom_logits(struct bloom_engine *engine, int32_t slot, float *logits) {
    return head_all(&engine->head, slot, logits);
}

double bloom_logsumexp(struct bloom_engine *engine, int32_t slot, double temperature, const uint32_t *excluded,
                       uint32_t excluded_count) {
    return head_logsumexp(&engine->head, slot, temperature, excluded, excluded_count);
}

uint64_t bloom_rescored(const struct bloom_engine *engine) { return head_rescored(&engine->head); }

/* For n heads, a power of two, the slopes are the powers 1 to n of 2^(-8/n). Otherwise n is the largest power of two
 * below, and the heads beyond take the odd powers of 2^(-4/n) (Press et al. 2022, and as transformers does). */
static void set_slopes(float *slopes, uint32_t heads) {
    uint32_t power = 1;
    while (power * 2 <= heads) power *= 2;
    for (uint32_t i = 0; i < heads; i++)
        slopes[i] =
            i < power ? (float)pow(2, -8.0 / power * (i + 1)) : (float)pow(2, -4.0 / power * (2 * (i - power) + 1));
}

static struct matrix open_matrix(struct bloom_engine *engine, size_t cols) {
    size_t stride = padded(cols);
    return (struct matrix){zeros(&engine->buffers, engine->max_tokens * stride, sizeof(float)), cols, stride};
}

static void open_buffers(struct bloom_engine *engine, size_t threads) {
    const struct bloom_header *h = engine->header;
    struct buffers *buffers = &engine->buffers;
    size_t hidden = h->hidden, groups = groups_of(4 * hidden), tokens = engine->max_tokens;
    engine->x = open_matrix(engine, hidden);
    engine->normed = open_matrix(engine, hidden);
    engine->qkv = open_matrix(engine, 3 * hidden);
    engine->mlp = open_matrix(engine, 4 * hidden);
    engine->quantised = (struct activations){
        .q = zeros(buffers, tokens * groups, BLOOM_GROUP),
        .scale = zeros(buffers, tokens * groups, sizeof(float)),
        .sum = zeros(buffers, tokens * groups, sizeof(int32_t)),
        .groups = groups,
    };
    engine->slopes = zeros(buffers, h->heads, sizeof(float));
    engine->context = padded(h->max_context) + VECTOR; /* a cache line between those of two threads */
    engine->scores = zeros(buffers, threads * engine->context, sizeof(float));
    engine->first_row = zeros(buffers, tokens, sizeof(size_t));
}

struct bloom_engine *bloom_engine_new(const struct bloom_file *file, uint32_t threads, uint32_t max_tokens,
                                      uint32_t slots, const char *isa, char *error, size_t error_size) {
    const struct bloom_header *h = file->header;
    const struct kernels *kernels = kernels_find(isa);
    if (!kernels || !h->bits || threads < 1 || threads > MAX_THREADS || max_tokens < 1 || max_tokens > MAX_TOKENS ||
        slots < 1 || slots > MAX_SLOTS) {
        snprintf(error, error_size, "%s",
                 !kernels   ? "this processor lacks those instructions"
                 : !h->bits ? "the file holds only a tokenizer, and no weights"
                            : "the engine's sizes are out of range");
        return NULL;
    }
    struct bloom_engine *engine = calloc(1, sizeof *engine);
    if (engine) {
        engine->file = file;
        engine->header = h;
        engine->kernels = kernels;
        engine->f32 = h->bits == 32;
        engine->max_tokens = max_tokens;
        open_buffers(engine, threads);
        head_open(&engine->head, file, kernels, &engine->pool, &engine->buffers, slots);
    }
    if (!engine || engine->buffers.failed || pool_open(&engine->pool, threads)) {
        snprintf(error, error_size, "there is no memory for the engine's buffers");
        bloom_engine_free(engine);
        return NULL;
    }
    set_slopes(engine->slopes, h->heads);
    return engine;
}

void bloom_engine_free(struct bloom_engine *engine) {
    if (!engine) return;
    if (engine->pool.threads) pool_close(&engine->pool);
    buffers_free(&engine->buffers);
    free(engine);
}

const char *bloom_engine_isa(const struct bloom_engine *engine) { return engine->kernels->name; }

uint64_t bloom_progress(const struct bloom_engine *engine) { return pool_progress(&engine->pool); }

uint64_t bloom_engine_page_size(const struct bloom_engine *engine) {
    const struct bloom_header *h = engine->header;
    return page_size(h->layers, h->heads, h->hidden / h->heads, engine->f32);
}
