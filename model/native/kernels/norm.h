/* Layer norm (Ba et al. 2016). */
#ifndef NORM_H
#define NORM_H

#include "simd.h"

/* The first `count` lanes, and zeros in the others. */
static vec16 first_lanes(vec16 all, size_t count) {
    float each[VECTOR];
    store(each, &all);
    for (size_t i = count; i < VECTOR; i++) each[i] = 0;
    return load(each);
}

static void layer_norm(const float *x, const float *weight, const float *bias, size_t size, float epsilon, float *out) {
    vec16 sum = {0}, square = {0};
    size_t full = padded(size);
    for (size_t i = 0; i < full; i += VECTOR) {
        vec16 part = load(x + i);
        EACH sum.part[p] += part.part[p];
    }
    float mean = sum_of(&sum) / (float)size;
    for (size_t i = 0; i < full; i += VECTOR) {
        vec16 part = load(x + i);
        EACH part.part[p] -= splat(mean);
        if (i + VECTOR > size) part = first_lanes(part, size - i);
        EACH square.part[p] += part.part[p] * part.part[p];
    }
    float factor = 1 / sqrtf(sum_of(&square) / (float)size + epsilon);
    for (size_t i = 0; i < full; i += VECTOR) {
        vec16 part = load(x + i), w = load(weight + i), b = load(bias + i);
        EACH part.part[p] = (part.part[p] - splat(mean)) * splat(factor) * w.part[p] + b.part[p];
        store(out + i, &part);
    }
}

#endif
