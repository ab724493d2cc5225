/* Attention with ALiBi (Press et al. 2022) over pages of keys and values. */
#ifndef ATTENTION_H
#define ATTENTION_H

#include "exp.h"
#include "quantise.h"

enum { PAGES_AHEAD = 4 }; /* that are prefetched */

enum page_part { KEYS, VALUES };

/* Where a page keeps the keys or values of the task's head. */
INLINE uint8_t *page_at(const struct attention *task, size_t page, enum page_part part) {
    size_t index = (task->layer * 2 + part) * task->heads + task->head;
    return task->pages[page] + index * page_head_size(task->head_size, task->kv_f32);
}

/* A head's vectors in one page lie far from those in the next: the processor does not foresee them. */
INLINE void prefetch(const struct attention *task, size_t page, enum page_part part, size_t pages) {
    if (page >= pages) return;
    const uint8_t *next = page_at(task, page, part);
    for (size_t line = 0; line < page_head_size(task->head_size, task->kv_f32); line += CACHE_LINE)
        __builtin_prefetch(next + line);
}

/* Load numbers 16 i to 16 i + 15 of a key or value. */
INLINE void load_vector(const uint8_t *vector, size_t i, int kv_f32, vec16 *out) {
    if (kv_f32) *out = load((const float *)vector + i * VECTOR);
    else load_i8((const int8_t *)vector + i * VECTOR, out);
}

/* Write one token's key or value into its page. */
INLINE void append(const struct attention *task, size_t position, enum page_part part, const float *vector) {
    size_t size = page_vector_size(task->head_size, task->kv_f32), at = position % BLOOM_PAGE;
    uint8_t *head = page_at(task, position / BLOOM_PAGE, part), *to = head + at * size;
    float *scale = (float *)(head + BLOOM_PAGE * size) + at;
    if (task->kv_f32) {
        memset(to, 0, size);
        memcpy(to, vector, task->head_size * sizeof *vector);
        *scale = 1;
    } else {
        *scale = quantise_vector(vector, task->head_size, (int8_t *)to);
    }
}

/* Tokens of a page among the first `length`. */
INLINE size_t tokens_in(size_t page, size_t length) {
    size_t left = length - page * BLOOM_PAGE;
    return left < BLOOM_PAGE ? left : BLOOM_PAGE;
}

/* scores[i] = query . key i - slope * (its distance); returns the largest. The query is scaled and padded. */
INLINE float score_keys(const struct attention *task, const float *query, size_t length, size_t vectors,
                        float *scores) {
    size_t size = page_vector_size(task->head_size, task->kv_f32), pages = (length + BLOOM_PAGE - 1) / BLOOM_PAGE;
    float largest = -INFINITY;
    for (size_t page = 0; page < pages; page++) {
        prefetch(task, page + PAGES_AHEAD, KEYS, pages);
        const uint8_t *keys = page_at(task, page, KEYS);
        const float *scales = (const float *)(keys + BLOOM_PAGE * size);
        size_t first = page * BLOOM_PAGE, count = tokens_in(page, length);
        /* All 16 dot products are computed. Beyond the last key they are made of old bytes, and not used. */
        vec16 sums[BLOOM_PAGE], key;
        float dots[BLOOM_PAGE];
        for (size_t i = 0; i < BLOOM_PAGE; i++) {
            sums[i] = (vec16){0};
            for (size_t v = 0; v < vectors; v++) {
                load_vector(keys + i * size, v, task->kv_f32, &key);
                vec16 q = load(query + v * VECTOR);
                EACH sums[i].part[p] += q.part[p] * key.part[p];
            }
        }
        sums_of(sums, dots);
        for (size_t i = 0; i < count; i++) {
            /* ALiBi counts from the first token. Counting from the query shifts all scores alike, which
             * softmax does not see. */
            float bias = task->slope * (float)(ptrdiff_t)(first + i + 1 - length);
            float score = dots[i] * scales[i] + bias;
            scores[first + i] = score;
            largest = largest > score ? largest : score;
        }
    }
    return largest;
}

/* scores[i] = exp(scores[i] - largest); returns their sum. `scores` is padded. */
INLINE float exponentiate(float *scores, size_t length, float largest) {
    size_t full = padded(length);
    for (size_t i = length; i < full; i++) scores[i] = -INFINITY;
    vec16 total = {0};
    for (size_t i = 0; i < full; i += VECTOR) {
        vec16 part = load(scores + i);
        EACH part.part[p] = exp_of(part.part[p] - splat(largest));
        EACH total.part[p] += part.part[p];
        store(scores + i, &part);
    }
    return sum_of(&total);
}

/* out += scores[i] * value i, over all i. */
INLINE void add_values(const struct attention *task, const float *scores, size_t length, size_t vectors, vec16 *out) {
    size_t size = page_vector_size(task->head_size, task->kv_f32), pages = (length + BLOOM_PAGE - 1) / BLOOM_PAGE;
    for (size_t page = 0; page < pages; page++) {
        prefetch(task, page + PAGES_AHEAD, VALUES, pages);
        const uint8_t *values = page_at(task, page, VALUES);
        const float *scales = (const float *)(values + BLOOM_PAGE * size);
        size_t first = page * BLOOM_PAGE, count = tokens_in(page, length);
        for (size_t i = 0; i < count; i++) {
            vfloat weight = splat(scores[first + i] * scales[i]);
            vec16 value;
            for (size_t v = 0; v < vectors; v++) {
                load_vector(values + i * size, v, task->kv_f32, &value);
                EACH out[v].part[p] += weight * value.part[p];
            }
        }
    }
}

/* One token's query against all keys up to its own; `vectors` is the padded head size / 16. */
INLINE void attend_one(const struct attention *task, size_t token, float *scores, size_t vectors) {
    size_t length = task->start + token + 1;
    const float *query = task->qkv + token * task->stride + task->head * 3 * task->head_size;
    float scaled[vectors * VECTOR], factor = 1 / sqrtf((float)task->head_size);
    memset(scaled, 0, sizeof scaled);
    for (size_t i = 0; i < task->head_size; i++) scaled[i] = query[i] * factor;

    float largest = score_keys(task, scaled, length, vectors, scores);
    float inverse = 1 / exponentiate(scores, length, largest);
    vec16 sums[vectors];
    memset(sums, 0, sizeof sums);
    add_values(task, scores, length, vectors, sums);
    float *out = task->out + token * task->out_stride + task->head * task->head_size;
    for (size_t v = 0; v < vectors; v++) EACH sums[v].part[p] *= splat(inverse);
    memcpy(out, sums, task->head_size * sizeof *out);
}

static void attend(const struct attention *task, float *scores) {
    for (size_t token = 0; token < task->tokens; token++) {
        const float *key = task->qkv + token * task->stride + (task->head * 3 + 1) * task->head_size;
        append(task, task->start + token, KEYS, key);
        append(task, task->start + token, VALUES, key + task->head_size);
    }
    size_t vectors = padded(task->head_size) / VECTOR;
    for (size_t token = 0; token < task->tokens; token++) {
        /* With a constant the compiler keeps a head of the published models' sizes in registers. */
        if (vectors == 4) attend_one(task, token, scores, 4);
        else if (vectors == 8) attend_one(task, token, scores, 8);
        else attend_one(task, token, scores, vectors);
    }
}

#endif
