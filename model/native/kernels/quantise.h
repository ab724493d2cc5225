/* Quantising activations, keys and values to 8 bits: -127 to 127 times a scale. */
#ifndef QUANTISE_H
#define QUANTISE_H

#include "simd.h"

/* Beyond these a value counts as infinite, or all of them as zero. */
static const float LARGEST_ACTIVATION = 1e30f, LEAST_ACTIVATION = 1e-30f;

static void quantise(const float *x, size_t cols, int8_t *q, float *scale, int32_t *sum) {
    for (size_t g = 0; g * BLOOM_GROUP < cols; g++) {
        float part[BLOOM_GROUP] = {0};
        size_t count = cols - g * BLOOM_GROUP < BLOOM_GROUP ? cols - g * BLOOM_GROUP : BLOOM_GROUP;
        memcpy(part, x + g * BLOOM_GROUP, count * sizeof *part);
        float lane_largest[VECTOR] = {0}, largest = 0;
        int32_t lane_infinite[VECTOR] = {0}, infinite = 0;
        for (int i = 0; i < BLOOM_GROUP; i += VECTOR)
            for (int lane = 0; lane < VECTOR; lane++) {
                float size = fabsf(part[i + lane]);
                lane_infinite[lane] |= !(size < LARGEST_ACTIVATION);
                lane_largest[lane] = lane_largest[lane] > size ? lane_largest[lane] : size;
            }
        for (int lane = 0; lane < VECTOR; lane++) {
            largest = largest > lane_largest[lane] ? largest : lane_largest[lane];
            infinite |= lane_infinite[lane];
        }
        int8_t *to = q + g * BLOOM_GROUP;
        if (infinite) { /* NaN, so that the logits show it */
            memset(to, 0, BLOOM_GROUP);
            scale[g] = NAN;
            sum[g] = 0;
            continue;
        }
        scale[g] = largest / 127;
        float inverse = largest > LEAST_ACTIVATION ? 127 / largest : 0;
        int32_t all = 0;
        for (int i = 0; i < BLOOM_GROUP; i++) {
            int32_t value = (int32_t)ROUND(part[i] * inverse);
            to[i] = (int8_t)value;
            all += value;
        }
        sum[g] = all;
    }
}

/* Quantise one vector with a single scale, which is returned; `q` is padded with zeros. */
INLINE float quantise_vector(const float *x, size_t size, int8_t *q) {
    float largest = 0;
    int finite = 1;
    for (size_t i = 0; i < size; i++) {
        float value = fabsf(x[i]);
        finite &= value < LARGEST_ACTIVATION;
        largest = largest > value ? largest : value;
    }
    float inverse = finite && largest > LEAST_ACTIVATION ? 127 / largest : 0;
    for (size_t i = 0; i < padded(size); i++) {
        float value = i < size && finite ? x[i] * inverse : 0;
        q[i] = (int8_t)(int32_t)ROUND(value);
    }
    return finite ? largest / 127 : NAN;
}

#endif
