/* What both x86 sets share. */
#ifndef X86_H
#define X86_H

#include "epilogue.h"

#include <immintrin.h>

/* Add to each of 8 lanes the products of 4 columns of the lower nibbles and 4 of the upper ones. */
INLINE __m256i add_low_products(__m256i sums, __m256i lower, __m256i upper, const __m256i *q);

static float low_dot(const uint8_t *row, const struct activations *x) {
    const uint16_t *scales = (const uint16_t *)(row + low_scales_at(x->groups));
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256 total = _mm256_setzero_ps();
    for (size_t g = 0; g < x->groups; g++) {
        __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(row + g * LOW_GROUP));
        __m256i lower = _mm256_and_si256(both, nibble);
        __m256i upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
        __m256i sums = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-W4_ZERO * x->sum[g]));
        sums = add_low_products(sums, lower, upper, (const __m256i *)(const void *)(x->q + g * BLOOM_GROUP));
        __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[g]) * x->scale[g]);
        total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, total);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, total);
    return sum_of_8(lanes);
}

static float low2_dot(const uint8_t *row, const struct activations *x) {
    const uint16_t *scales = (const uint16_t *)(row + low2_scales_at(x->groups));
    const __m256i two_bits = _mm256_set1_epi8(3);
    const __m256i by_0_2 = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2),
                  by_4_6 = _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6);
    __m256 total = _mm256_setzero_ps();
    for (size_t g = 0; g < x->groups; g++) {
        __m128i four = _mm_loadu_si128((const __m128i *)(const void *)(row + g * LOW2_GROUP));
        __m256i all = _mm256_broadcastsi128_si256(four);
        __m256i lower = _mm256_and_si256(_mm256_srlv_epi32(all, by_0_2), two_bits);
        __m256i upper = _mm256_and_si256(_mm256_srlv_epi32(all, by_4_6), two_bits);
        __m256i sums = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-LOW2_ZERO * x->sum[g]));
        sums = add_low_products(sums, lower, upper, (const __m256i *)(const void *)(x->q + g * BLOOM_GROUP));
        __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[g]) * x->scale[g]);
        total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, total);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, total);
    return sum_of_8(lanes);
}

#endif
