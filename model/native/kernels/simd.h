/* Vectors of 16 floats, whatever the width of the registers: sums run over 16 lanes everywhere, so that
 * all instruction sets agree to the last bit.
 *
 * The file that includes this has defined LANES, the floats in one of its registers, and defines load_i8. */
#ifndef SIMD_H
#define SIMD_H

#include <math.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

#define PARTS (VECTOR / LANES)
typedef float vfloat __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct {
    vfloat part[PARTS];
} vec16;

#define EACH for (int p = 0; p < PARTS; p++)

/* Widen 16 bytes to floats. */
INLINE void load_i8(const int8_t *from, vec16 *out);

INLINE vec16 load(const float *from) {
    vec16 out;
    EACH out.part[p] = *(const vfloat *)(from + p * LANES);
    return out;
}
INLINE void store(float *to, const vec16 *from) {
    EACH *(vfloat *)(to + p * LANES) = from->part[p];
}
INLINE vfloat splat(float value) { return value - (vfloat){0}; }

/* Round to the nearest whole number, for floats and vectors of less than 2^22: beyond 1.5 * 2^23, floats
 * have no fraction. */
#define ROUND(x) (((x) + 12582912.0f) - 12582912.0f)

/* The sum of 16 lanes, always paired in the same way: the upper half is added to the lower one until one
 * lane is left. */
INLINE float sum_of(const vec16 *x) {
    float lanes[16];
    store(lanes, x);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

INLINE float sum_of_8(float *lanes) {
    for (int half = 4; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* One level of that pairing for two registers: lanes `h` apart, within runs of 2h, are added; the results
 * of `a` come before those of `b`. FIRST is the lane that result `l` takes its first term from. */
#define FIRST(l, h) ((l) / (h) * 2 * (h) + (l) % (h))
#if LANES == 16
#define PICK(h, up)                                                                                              \
    FIRST(0, h) + (up), FIRST(1, h) + (up), FIRST(2, h) + (up), FIRST(3, h) + (up), FIRST(4, h) + (up),          \
        FIRST(5, h) + (up), FIRST(6, h) + (up), FIRST(7, h) + (up), FIRST(8, h) + (up), FIRST(9, h) + (up),      \
        FIRST(10, h) + (up), FIRST(11, h) + (up), FIRST(12, h) + (up), FIRST(13, h) + (up), FIRST(14, h) + (up), \
        FIRST(15, h) + (up)
#elif LANES == 8
#define PICK(h, up)                                                                                     \
    FIRST(0, h) + (up), FIRST(1, h) + (up), FIRST(2, h) + (up), FIRST(3, h) + (up), FIRST(4, h) + (up), \
        FIRST(5, h) + (up), FIRST(6, h) + (up), FIRST(7, h) + (up)
#else
#define PICK(h, up) FIRST(0, h) + (up), FIRST(1, h) + (up), FIRST(2, h) + (up), FIRST(3, h) + (up)
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vint){__VA_ARGS__})
#endif
#define MERGE(a, b, h) (SHUFFLE(a, b, PICK(h, 0)) + SHUFFLE(a, b, PICK(h, h)))

/* sum_of each of 16 vectors at once, bit for bit; `x` is used up. */
INLINE void sums_of(vec16 *x, float *out) {
    vfloat level[16];
    for (int i = 0; i < 16; i++) {
        for (int half = PARTS / 2; half; half /= 2)
            for (int p = 0; p < half; p++) x[i].part[p] += x[i].part[p + half];
        level[i] = x[i].part[0];
    }
    /* Each level halves the registers. */
#if LANES == 16
    for (int i = 0; i < PARTS * 8; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 8);
#endif
#if LANES >= 8
    for (int i = 0; i < PARTS * 4; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 4);
#endif
    for (int i = 0; i < PARTS * 2; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 2);
    for (int i = 0; i < PARTS * 1; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 1);
    memcpy(out, level, 16 * sizeof *out);
}

#endif
