/* One step of a BLOOM: tokens in, scores of the next ones out.
 *
 * Each phase is shared among the threads: norms and quantising by token, matrices by rows,
 * attention by head. Between two phases all wait for each other (pool.c).
 */
#include "engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* layer 0 is the model's own, and the layers count from 1. */
const uint8_t *tensor_of(const struct bloom_engine *engine, size_t layer, enum bloom_kind kind) {
    return engine->file->tensors[layer][kind];
}

static const float *vector_of(const struct bloom_engine *engine, size_t layer, enum bloom_kind kind) {
    return (const float *)(const void *)tensor_of(engine, layer, kind);
}

struct matmul_phase { const struct matmul *task; const struct kernels *kernels; size_t blocks, chunks; };

static void matmul_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct matmul_phase *phase = context;
    phase->kernels->matmul(phase->task, phase->blocks * chunk / phase->chunks,
                           phase->blocks * (chunk + 1) / phase->chunks);
}

void run_matmul(struct bloom_engine *engine, const struct matmul *task) {
    size_t blocks = (task->rows + BLOOM_ROWS - 1) / BLOOM_ROWS;
    /* Long runs of memory for each thread, but short enough that none is waited for long. */
    size_t chunks = engine->pool.size * 8;
    if (blocks > chunks * 64) chunks *= 4;
    if (chunks > blocks) chunks = blocks;
    struct matmul_phase phase = {task, engine->kernels, blocks, chunks};
    pool_run(&engine->pool, matmul_chunk, &phase, chunks);
}

/* Normalise and quantise, or only one of the two. */
struct input_phase {
    struct bloom_engine *engine;
    const float *x, *weight, *bias; /* weight NULL: no norm */
    size_t stride, cols;
};

static void input_chunk(void *context, size_t token, size_t thread) {
    (void)thread;
    const struct input_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    const float *x = phase->x + token * phase->stride;
    if (phase->weight) {
        float *normed = engine->normed + token * engine->wide;
        engine->kernels->layer_norm(x, phase->weight, phase->bias, engine->header->hidden,
                                    engine->header->epsilon, normed);
        x = normed;
    }
    if (engine->plain) return;
    const struct activations *to = &engine->activations;
    size_t groups = groups_of(phase->cols);
    engine->kernels->quantise(x, phase->cols, to->q + token * groups * BLOOM_GROUP,
                              to->scale + token * groups, to->sum + token * groups);
}

struct attention_phase { struct bloom_engine *engine; const struct bloom_work *works; size_t layer; };

static void attention_chunk(void *context, size_t chunk, size_t thread) {
    const struct attention_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    size_t heads = engine->header->heads, work = chunk / heads, head = chunk % heads;
    size_t row = engine->first[work];
    struct attention task = {
        .qkv = engine->qkv + row * engine->qkv_wide,
        .out = engine->normed + row * engine->wide,
        .stride = engine->qkv_wide,
        .out_stride = engine->wide,
        .pages = phase->works[work].pages,
        .layer = phase->layer,
        .heads = heads,
        .head = head,
        .head_size = engine->header->hidden / heads,
        .start = phase->works[work].start,
        .tokens = phase->works[work].count,
        .slope = engine->slopes[head],
        .plain = engine->plain,
    };
    engine->kernels->attend(&task, engine->scores + thread * engine->context);
}

/* out = epilogue(weights . norm(x) + bias) */
static void linear(struct bloom_engine *engine, size_t layer, enum bloom_kind weights, enum bloom_kind norm,
                   const float *x, size_t stride, size_t cols, float *out, size_t out_stride, size_t rows,
                   size_t tokens, enum epilogue epilogue) {
    int normed = norm != BLOOM_KINDS;
    struct input_phase input = {
        .engine = engine,
        .x = x,
        .weight = normed ? vector_of(engine, layer, norm) : NULL,
        .bias = normed ? vector_of(engine, layer, norm + 1) : NULL,
        .stride = stride,
        .cols = cols,
    };
    if (normed || !engine->plain) pool_run(&engine->pool, input_chunk, &input, tokens);
    struct matmul task = {
        .weights = tensor_of(engine, layer, weights),
        .bias = vector_of(engine, layer, weights + 1),
        .x = engine->activations,
        .plain = normed ? engine->normed : x,
        .plain_stride = normed ? engine->wide : stride,
        .cols = cols,
        .rows = rows,
        .out = out,
        .out_stride = out_stride,
        .tokens = tokens,
        .format = engine->plain ? BLOOM_F32 : engine->header->bits == 8 ? BLOOM_W8 : BLOOM_W4,
        .epilogue = epilogue,
    };
    task.x.groups = groups_of(cols);
    run_matmul(engine, &task);
}

/* Read a token's row of the embedding out of its two planes. */
static void embed(const struct bloom_engine *engine, uint32_t token, float *out) {
    size_t cols = engine->header->hidden, groups = groups_of(cols);
    if (engine->plain) {
        memcpy(out, tensor_of(engine, 0, BLOOM_EMBED_F32) + token * engine->wide * sizeof *out,
               engine->wide * sizeof *out);
        return;
    }
    const uint8_t *block = tensor_of(engine, 0, BLOOM_EMBED_HIGH) + token / BLOOM_ROWS * block_size_w4(groups);
    const uint8_t *tiles = block + scales_size(groups), *row;
    row = tensor_of(engine, 0, BLOOM_EMBED_LOW) + token * low_row_size(groups);
    const uint8_t *scales = row + groups * BLOOM_GROUP / 2;
    size_t lane = token % BLOOM_ROWS;
    for (size_t i = 0; i < cols; i++) {
        size_t group = i / BLOOM_GROUP, at = i % BLOOM_GROUP;
        uint8_t upper = tiles[group * 512 + at / 8 * 64 + lane * 4 + at % 4];
        uint8_t lower = row[group * 32 + at % 32];
        int high = (at / 4 % 2 ? upper >> 4 : upper & 15) - 8, low = (at < 32 ? lower & 15 : lower >> 4) - 8;
        uint16_t scale = (uint16_t)(scales[group * 2] | scales[group * 2 + 1] << 8);
        out[i] = half_to_float(scale) * (float)(16 * high + low);
    }
    memset(out + cols, 0, (engine->wide - cols) * sizeof *out);
}

struct embed_phase { struct bloom_engine *engine; const struct bloom_work *works; size_t count; };

static void embed_chunk(void *context, size_t index, size_t thread) {
    (void)thread;
    const struct embed_phase *phase = context;
    struct bloom_engine *engine = phase->engine;
    const struct bloom_work *work = &phase->works[index];
    for (size_t i = 0; i < work->count; i++) {
        float *x = engine->x + (engine->first[index] + i) * engine->wide;
        embed(engine, work->tokens[i], engine->normed + (engine->first[index] + i) * engine->wide);
        engine->kernels->layer_norm(engine->normed + (engine->first[index] + i) * engine->wide,
                                    vector_of(engine, 0, BLOOM_EMBED_LN_WEIGHT),
                                    vector_of(engine, 0, BLOOM_EMBED_LN_BIAS), engine->header->hidden,
                                    engine->header->epsilon, x);
    }
}

static int check_works(struct bloom_engine *engine, const struct bloom_work *works, uint32_t count) {
    const struct bloom_header *h = engine->header;
    size_t tokens = 0;
    int32_t slots = 0;
    if (count < 1 || count > engine->max_tokens) return -1;
    for (uint32_t i = 0; i < count; i++) {
        const struct bloom_work *work = &works[i];
        if (work->count < 1 || work->count > engine->max_tokens || work->start > h->max_context ||
            work->count > h->max_context - work->start)
            return -1;
        engine->first[i] = tokens;
        tokens += work->count;
        if (tokens > engine->max_tokens) return -1;
        if (work->slot >= 0 && (work->slot != slots++ || (size_t)slots > engine->slots)) return -1;
        for (uint32_t t = 0; t < work->count; t++)
            if (work->tokens[t] >= h->vocab_rows) return -1;
    }
    return (int)tokens;
}

int bloom_forward(struct bloom_engine *engine, const struct bloom_work *works, uint32_t count) {
    const struct bloom_header *h = engine->header;
    engine->filled = 0;
    int checked = check_works(engine, works, count);
    if (checked < 0) return -1;
    size_t tokens = (size_t)checked, hidden = h->hidden;
    struct embed_phase embedding = {engine, works, count};
    pool_run(&engine->pool, embed_chunk, &embedding, count);
    for (size_t layer = 1; layer <= h->layers; layer++) {
        linear(engine, layer, BLOOM_QKV_WEIGHT, BLOOM_LN1_WEIGHT, engine->x, engine->wide, hidden, engine->qkv,
               engine->qkv_wide, 3 * hidden, tokens, STORE);
        struct attention_phase attention = {engine, works, layer - 1};
        pool_run(&engine->pool, attention_chunk, &attention, count * h->heads);
        linear(engine, layer, BLOOM_DENSE_WEIGHT, BLOOM_KINDS, engine->normed, engine->wide, hidden, engine->x,
               engine->wide, hidden, tokens, ADD);
        linear(engine, layer, BLOOM_UP_WEIGHT, BLOOM_LN2_WEIGHT, engine->x, engine->wide, hidden, engine->mid,
               engine->mid_wide, 4 * hidden, tokens, GELU);
        linear(engine, layer, BLOOM_DOWN_WEIGHT, BLOOM_KINDS, engine->mid, engine->mid_wide, 4 * hidden,
               engine->x, engine->wide, hidden, tokens, ADD);
    }
    size_t slots = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (works[i].slot < 0) continue;
        size_t last = engine->first[i] + works[i].count - 1;
        engine->kernels->layer_norm(engine->x + last * engine->wide, vector_of(engine, 0, BLOOM_LNF_WEIGHT),
                                    vector_of(engine, 0, BLOOM_LNF_BIAS), hidden, h->epsilon,
                                    engine->hidden + slots++ * engine->wide);
    }
    if (slots) head_run(engine, slots);
    return 0;
}

/* Powers of 2^(-8/n) for n heads, the largest power of two within; the heads beyond it take the
 * odd powers of the next finer series (Press et al. 2022, as transformers computes it). */
static void set_slopes(float *slopes, uint32_t heads) {
    uint32_t power = 1;
    while (power * 2 <= heads) power *= 2;
    for (uint32_t i = 0; i < heads; i++)
        slopes[i] = i < power ? (float)pow(2, -8.0 / power * (i + 1))
                              : (float)pow(2, -4.0 / power * (2 * (i - power) + 1));
}

/* Zeros, aligned to a cache line, that take up memory only where they are written. */
static void *zeros(struct bloom_engine *engine, size_t count, size_t size) {
    char *memory = calloc(count * size + 64, 1);
    if (!memory) {
        engine->lacking = 1;
        return NULL;
    }
    engine->owned[engine->buffers++] = memory;
    return memory + (64 - (uintptr_t)memory % 64);
}

static struct activations open_activations(struct bloom_engine *engine, size_t tokens, size_t cols) {
    size_t groups = groups_of(cols);
    return (struct activations){
        .q = zeros(engine, tokens * groups, BLOOM_GROUP),
        .scale = zeros(engine, tokens * groups, sizeof(float)),
        .sum = zeros(engine, tokens * groups, sizeof(int32_t)),
        .groups = groups,
    };
}

struct bloom_engine *bloom_engine_new(const struct bloom_file *file, uint32_t threads, uint32_t max_tokens,
                                      uint32_t slots, const char *isa, char *error, size_t error_size) {
    const struct bloom_header *h = file->header;
    const struct kernels *kernels = kernels_find(isa);
    if (!kernels || !h->bits || threads < 1 || threads > 256 || max_tokens < 1 || max_tokens > 1 << 16 ||
        slots < 1 || slots > 1024) {
        snprintf(error, error_size, "%s", !kernels ? "this processor lacks those instructions"
                                          : !h->bits ? "the file holds only a tokenizer, and no weights"
                                                     : "the engine's sizes are out of range");
        return NULL;
    }
    struct bloom_engine *engine = calloc(1, sizeof *engine);
    if (!engine) return NULL;
    engine->file = file;
    engine->header = h;
    engine->kernels = kernels;
    engine->plain = h->bits == 32;
    engine->max_tokens = max_tokens;
    engine->slots = slots;
    engine->wide = round_up(h->hidden, 16);
    engine->qkv_wide = round_up(3 * (size_t)h->hidden, 16);
    engine->mid_wide = round_up(4 * (size_t)h->hidden, 16);
    engine->context = round_up(h->max_context, 16) + 16;
    engine->vocab = round_up(h->vocab_rows, 64);
    engine->x = zeros(engine, max_tokens * engine->wide, sizeof(float));
    engine->normed = zeros(engine, max_tokens * engine->wide, sizeof(float));
    engine->qkv = zeros(engine, max_tokens * engine->qkv_wide, sizeof(float));
    engine->mid = zeros(engine, max_tokens * engine->mid_wide, sizeof(float));
    engine->activations = open_activations(engine, max_tokens, 4 * (size_t)h->hidden);
    engine->slopes = zeros(engine, h->heads, sizeof(float));
    engine->scores = zeros(engine, threads * engine->context, sizeof(float));
    engine->first = zeros(engine, max_tokens, sizeof(size_t));
    engine->hidden = zeros(engine, slots * engine->wide, sizeof(float));
    engine->slot_x = open_activations(engine, slots, h->hidden);
    engine->slot_norm = zeros(engine, slots, sizeof(float));
    engine->logits = zeros(engine, slots * engine->vocab, sizeof(float));
    engine->exact = zeros(engine, slots * engine->vocab / 64, sizeof(uint64_t));
    engine->skip = zeros(engine, engine->vocab / 64, sizeof(uint64_t));
    engine->peaks = zeros(engine, engine->vocab / 64, sizeof(float));
    engine->norm_peaks = zeros(engine, engine->vocab / 64, sizeof(float));
    engine->best = zeros(engine, engine->vocab, sizeof *engine->best);
    engine->partial = zeros(engine, engine->vocab / 64, sizeof(double));
    if (engine->lacking || pool_open(&engine->pool, threads)) {
        snprintf(error, error_size, "there is no memory for the engine's buffers");
        bloom_engine_free(engine);
        return NULL;
    }
    set_slopes(engine->slopes, h->heads);
    head_open(engine);
    return engine;
}

void bloom_engine_free(struct bloom_engine *engine) {
    if (!engine) return;
    if (engine->pool.threads) pool_close(&engine->pool);
    for (size_t i = 0; i < engine->buffers; i++) free(engine->owned[i]);
    free(engine);
}

const char *bloom_engine_isa(const struct bloom_engine *engine) { return engine->kernels->name; }

uint64_t bloom_progress(const struct bloom_engine *engine) { return pool_progress(&engine->pool); }

uint64_t bloom_engine_page_size(const struct bloom_engine *engine) {
    const struct bloom_header *h = engine->header;
    return page_size(h->layers, h->heads, h->hidden / h->heads, engine->plain);
}
