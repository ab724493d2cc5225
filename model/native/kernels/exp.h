/* The exponential function and what is made of it. */
#ifndef EXP_H
#define EXP_H

#include "simd.h"

/* exp, to about 2 units in the last place (the polynomial of Cephes' expf); 0 below -87.3, and for
 * 88 and more exp(88), about 2^127. */
INLINE vfloat exp_of(vfloat x) {
    const vfloat least = splat(-87.3f), most = splat(88.0f);
    vint under = x < least;
    vint over = x > most;
    x = (vfloat)(((vint)x & ~over) | ((vint)most & over));
    x = (vfloat)(((vint)x & ~under) | ((vint)least & under));
    vfloat n = ROUND(x * splat(1.44269504f));
    vfloat r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
    vfloat y = splat(1.9875691500e-4f);
    y = y * r + splat(1.3981999507e-3f);
    y = y * r + splat(8.3334519073e-3f);
    y = y * r + splat(4.1665795894e-2f);
    y = y * r + splat(1.6666665459e-1f);
    y = y * r + splat(5.0000001201e-1f);
    y = y * r * r + r + splat(1.0f);
    vint power = (__builtin_convertvector(n, vint) + 127) << 23;
    y = y * (vfloat)power;
    return (vfloat)((vint)y & ~under);
}

/* BLOOM's GELU, the approximation by tanh (Hendrycks and Gimpel 2016): x / 2 (1 + tanh(u)) is
 * x / (1 + exp(-2u)). */
INLINE vfloat gelu(vfloat x) {
    vfloat u = splat(0.79788456f) * x * (splat(1.0f) + splat(0.044715f) * x * x);
    return x / (splat(1.0f) + exp_of(splat(-2.0f) * u));
}

static double sum_exp(const float *x, size_t count, float largest, float factor) {
    double total = 0;
    for (size_t i = 0; i < count; i += VECTOR) {
        float part[VECTOR];
        for (size_t lane = 0; lane < VECTOR; lane++) part[lane] = i + lane < count ? x[i + lane] : -INFINITY;
        vec16 terms = load(part);
        EACH terms.part[p] = exp_of((terms.part[p] - splat(largest)) * splat(factor));
        total += (double)sum_of(&terms);
    }
    return total;
}

#endif
