/* What both x86 sets share. */
#ifndef X86_H
#define X86_H

#include "epilogue.h"

#include <immintrin.h>

/* Add to each of 8 lanes the products of 4 columns of the lower nibbles and 4 of the upper ones. */
INLINE __m256i add_low_products(__m256i sums, __m256i lower, __m256i upper, const __m256i *q);

/* The codes of a group of the lower plane, of 4 bits or `two`: those of columns 0 to 31, and of 32 to 63. */
INLINE void load_low(const uint8_t *row, size_t g, int two, __m256i *lower, __m256i *upper) {
    if (two) {
        const __m256i by_0_2 = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
        const __m256i by_4_6 = _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6);
        __m128i four = _mm_loadu_si128((const __m128i *)(const void *)(row + g * LOW2_GROUP));
        __m256i all = _mm256_broadcastsi128_si256(four), two_bits = _mm256_set1_epi8(3);
        *lower = _mm256_and_si256(_mm256_srlv_epi32(all, by_0_2), two_bits);
        *upper = _mm256_and_si256(_mm256_srlv_epi32(all, by_4_6), two_bits);
    } else {
        const __m256i nibble = _mm256_set1_epi8(15);
        __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(row + g * LOW_GROUP));
        *lower = _mm256_and_si256(both, nibble);
        *upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
    }
}

INLINE float dot_of_low(const uint8_t *row, const struct activations *x, int two) {
    const uint8_t *scales_at = row + (two ? low2_scales_at(x->groups) : low_scales_at(x->groups));
    const uint16_t *scales = (const uint16_t *)(const void *)scales_at;
    const int zero = two ? LOW2_ZERO : W4_ZERO;
    __m256 total = _mm256_setzero_ps();
    for (size_t g = 0; g < x->groups; g++) {
        __m256i lower, upper;
        load_low(row, g, two, &lower, &upper);
        __m256i sums = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-zero * x->sum[g]));
        sums = add_low_products(sums, lower, upper, (const __m256i *)(const void *)(x->q + g * BLOOM_GROUP));
        __m256 scale = _mm256_set1_ps(_cvtsh_ss(scales[g]) * x->scale[g]);
        total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, total);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, total);
    return sum_of_8(lanes);
}

static float low_dot(const uint8_t *row, const struct activations *x) { return dot_of_low(row, x, 0); }
static float low2_dot(const uint8_t *row, const struct activations *x) { return dot_of_low(row, x, 1); }

#endif
