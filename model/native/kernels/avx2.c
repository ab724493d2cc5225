/* x86 with AVX2: a cache line of weights is two registers, for rows 0-7 and 8-15. */
#define LANES 8
#include "x86.h"

enum { PREFETCH = 2048 }; /* bytes ahead */

INLINE void load_i8(const int8_t *from, vec16 *out) {
    for (int p = 0; p < 2; p++) {
        __m128i bytes = _mm_loadl_epi64((const __m128i *)(from + p * 8));
        out->part[p] = (vfloat)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
}

INLINE __m256i quad(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return _mm256_set1_epi32(four);
}

INLINE __m256i line(const uint8_t *from, int half) { return _mm256_loadu_si256((const __m256i *)from + half); }

/* For each of `count` tokens: rows[c] += sums[c] * (scales of the rows) * (scale of token c's activations) */
INLINE void add_group(const struct matmul *task, const uint8_t *block, size_t g, size_t token, int count,
                      __m256i sums[][2], __m256 rows[][2]) {
    for (int half = 0; half < 2; half++) {
        __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(block + g * TILE_SCALES) + half));
        for (int c = 0; c < count; c++) {
            __m256 x = _mm256_set1_ps(task->x.scale[(token + (size_t)c) * task->x.groups + g]);
            rows[c][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[c][half]), _mm256_mul_ps(scale, x), rows[c][half]);
        }
    }
}

INLINE void store_tokens(const struct matmul *task, size_t token, int count, size_t row, __m256 rows[][2]) {
    for (int c = 0; c < count; c++) {
        vec16 value = {{(vfloat)rows[c][0], (vfloat)rows[c][1]}};
        store_rows(task, token + (size_t)c, row, value);
    }
}

/* maddubs multiplies unsigned by signed bytes and adds pairs of products in 16 bits. |w| times x with w's
 * sign is the same product, and no sum overflows: neither side is beyond 127. */
INLINE void block_w8(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    size_t groups = task->x.groups;
    const uint8_t *tiles = block + scales_size(groups);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 rows[4][2];
    for (int c = 0; c < count; c++) rows[c][0] = rows[c][1] = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * TILE_W8;
        __m256i sums[4][2];
        for (int c = 0; c < count; c++) sums[c][0] = sums[c][1] = _mm256_setzero_si256();
        for (int i = 0; i < LINES_W8; i++) {
            _mm_prefetch((const char *)tile + PREFETCH + i * CACHE_LINE, _MM_HINT_T0);
            for (int half = 0; half < 2; half++) {
                __m256i w = line(tile + i * CACHE_LINE, half), size = _mm256_abs_epi8(w);
                for (int c = 0; c < count; c++) {
                    __m256i x = quad(task->x.q + ((token + (size_t)c) * groups + g) * BLOOM_GROUP + i * QUAD);
                    __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
                    sums[c][half] = _mm256_add_epi32(sums[c][half], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        add_group(task, block, g, token, count, sums, rows);
    }
    store_tokens(task, token, count, row, rows);
}

/* The fifth bits of a line's lower or upper nibbles, as 16 or 0: bit `bit` of each byte. */
INLINE __m256i fifth(__m256i bits, int bit) {
    __m256i moved = bit < 4 ? _mm256_slli_epi16(bits, 4 - bit) : _mm256_srli_epi16(bits, bit - 4);
    return _mm256_and_si256(moved, _mm256_set1_epi8(16));
}

/* Codes are unsigned. The sum of 8 pairs of products of 4 bits fits into 16 bits (8 * 2 * 15 * 127 < 2^15), and of
 * 4 pairs of products of 5 bits (4 * 2 * 31 * 127 < 2^15). */
INLINE void block_nibbles(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count,
                          int five) {
    size_t groups = task->x.groups, tile_size = five ? TILE_W5 : TILE_W4;
    const uint8_t *tiles = block + scales_size(groups);
    const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(15);
    const int lines = five ? 2 : 4, zero = five ? W5_ZERO : W4_ZERO;
    __m256 rows[4][2];
    for (int c = 0; c < count; c++) rows[c][0] = rows[c][1] = _mm256_setzero_ps();
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * tile_size;
        __m256i sums[4][2];
        for (int c = 0; c < count; c++)
            sums[c][0] = sums[c][1] = _mm256_set1_epi32(-zero * task->x.sum[(token + (size_t)c) * groups + g]);
#pragma GCC unroll 4
        for (int first = 0; first < LINES_W4; first += lines) {
            __m256i pairs[4][2];
            for (int c = 0; c < count; c++) pairs[c][0] = pairs[c][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
            for (int i = first; i < first + lines; i++) {
                _mm_prefetch((const char *)tile + PREFETCH + i * CACHE_LINE, _MM_HINT_T0);
                for (int half = 0; half < 2; half++) {
                    __m256i both = line(tile + i * CACHE_LINE, half);
                    __m256i lower = _mm256_and_si256(both, nibble);
                    __m256i upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
                    if (five) {
                        __m256i bits = line(tile + TILE_W4 + i / LINES_OF_BITS * CACHE_LINE, half);
                        lower = _mm256_or_si256(lower, fifth(bits, i % LINES_OF_BITS));
                        upper = _mm256_or_si256(upper, fifth(bits, i % LINES_OF_BITS + 4));
                    }
                    for (int c = 0; c < count; c++) {
                        const int8_t *x = task->x.q + ((token + (size_t)c) * groups + g) * BLOOM_GROUP + i * 2 * QUAD;
                        __m256i two = _mm256_add_epi16(_mm256_maddubs_epi16(lower, quad(x)),
                                                       _mm256_maddubs_epi16(upper, quad(x + QUAD)));
                        pairs[c][half] = _mm256_add_epi16(pairs[c][half], two);
                    }
                }
            }
            for (int c = 0; c < count; c++)
                for (int half = 0; half < 2; half++)
                    sums[c][half] = _mm256_add_epi32(sums[c][half], _mm256_madd_epi16(pairs[c][half], ones));
        }
        add_group(task, block, g, token, count, sums, rows);
    }
    store_tokens(task, token, count, row, rows);
}

INLINE void block_w4(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    block_nibbles(task, block, row, token, count, 0);
}
INLINE void block_w5(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    block_nibbles(task, block, row, token, count, 1);
}

INLINE __m256i add_low_products(__m256i sums, __m256i lower, __m256i upper, const __m256i *q) {
    __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(lower, _mm256_loadu_si256(q)),
                                     _mm256_maddubs_epi16(upper, _mm256_loadu_si256(q + 1)));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#define TOKENS_AT_ONCE 2
#include "set.h"

KERNELS(avx2);
