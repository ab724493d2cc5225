/* x86 with AVX-512 and VNNI: a cache line of weights is one register. */
#define LANES 16
#include "x86.h"

enum { PREFETCH = 4096 }; /* bytes ahead */

INLINE void load_i8(const int8_t *from, vec16 *out) {
    __m512 x = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
    out->part[0] = (vfloat)x;
}

INLINE __m512i quad(const int8_t *from) {
    int32_t four;
    memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}

/* For each of `count` tokens: rows[c] += sums[c] * (scales of the rows) * (scale of token c's activations) */
INLINE void add_group(const struct matmul *task, const uint8_t *block, size_t g, size_t token, int count,
                      const __m512i *sums, __m512 *rows) {
    __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(block + g * TILE_SCALES)));
    for (int c = 0; c < count; c++) {
        __m512 x = _mm512_set1_ps(task->x.scale[(token + (size_t)c) * task->x.groups + g]);
        rows[c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[c]), _mm512_mul_ps(scale, x), rows[c]);
    }
}

INLINE void store_tokens(const struct matmul *task, size_t token, int count, size_t row, const __m512 *rows) {
    for (int c = 0; c < count; c++) {
        vec16 value = {{(vfloat)rows[c]}};
        store_rows(task, token + (size_t)c, row, value);
    }
}

/* vpdpbusd multiplies unsigned by signed bytes: w + 128 takes the place of w, and 128 times the sum of x is
 * taken off. For a single token, two sums are kept so that not every instruction waits for the one before. */
INLINE void block_w8(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    size_t groups = task->x.groups;
    const uint8_t *tiles = block + scales_size(groups);
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const int8_t *x[8];
    __m512 rows[8];
    for (int c = 0; c < count; c++) {
        x[c] = task->x.q + (token + (size_t)c) * groups * BLOOM_GROUP;
        rows[c] = _mm512_setzero_ps();
    }
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * TILE_W8;
        __m512i sums[8], others = _mm512_setzero_si512();
        for (int c = 0; c < count; c++)
            sums[c] = _mm512_set1_epi32(-128 * task->x.sum[(token + (size_t)c) * groups + g]);
#pragma GCC unroll 16
        for (int i = 0; i < LINES_W8; i++) {
            _mm_prefetch((const char *)tile + PREFETCH + i * CACHE_LINE, _MM_HINT_T0);
            __m512i w = _mm512_xor_si512(_mm512_loadu_si512(tile + i * CACHE_LINE), flip);
            for (int c = 0; c < count; c++) {
                __m512i four = quad(x[c] + g * BLOOM_GROUP + i * QUAD);
                if (count == 1 && i % 2) others = _mm512_dpbusd_epi32(others, w, four);
                else sums[c] = _mm512_dpbusd_epi32(sums[c], w, four);
            }
        }
        if (count == 1) sums[0] = _mm512_add_epi32(sums[0], others);
        add_group(task, block, g, token, count, sums, rows);
    }
    store_tokens(task, token, count, row, rows);
}

/* The fifth bits of a line's lower or upper nibbles, as 16 or 0: bit `bit` of each byte. */
INLINE __m512i fifth(__m512i bits, int bit) {
    __m512i moved =
        bit < 4 ? _mm512_slli_epi16(bits, (unsigned)(4 - bit)) : _mm512_srli_epi16(bits, (unsigned)(bit - 4));
    return _mm512_and_si512(moved, _mm512_set1_epi8(16));
}

INLINE void block_nibbles(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count,
                          int five) {
    size_t groups = task->x.groups, tile_size = five ? TILE_W5 : TILE_W4;
    const uint8_t *tiles = block + scales_size(groups);
    const __m512i nibble = _mm512_set1_epi8(15);
    const int zero = five ? W5_ZERO : W4_ZERO;
    const int8_t *x[8];
    __m512 rows[8];
    for (int c = 0; c < count; c++) {
        x[c] = task->x.q + (token + (size_t)c) * groups * BLOOM_GROUP;
        rows[c] = _mm512_setzero_ps();
    }
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * tile_size;
        __m512i sums[8], others = _mm512_setzero_si512();
        for (int c = 0; c < count; c++)
            sums[c] = _mm512_set1_epi32(-zero * task->x.sum[(token + (size_t)c) * groups + g]);
#pragma GCC unroll 8
        for (int i = 0; i < LINES_W4; i++) {
            _mm_prefetch((const char *)tile + PREFETCH + i * CACHE_LINE, _MM_HINT_T0);
            __m512i both = _mm512_loadu_si512(tile + i * CACHE_LINE);
            __m512i lower = _mm512_and_si512(both, nibble);
            __m512i upper = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
            if (five) {
                __m512i bits = _mm512_loadu_si512(tile + TILE_W4 + i / LINES_OF_BITS * CACHE_LINE);
                lower = _mm512_or_si512(lower, fifth(bits, i % LINES_OF_BITS));
                upper = _mm512_or_si512(upper, fifth(bits, i % LINES_OF_BITS + 4));
            }
            for (int c = 0; c < count; c++) {
                const int8_t *eight = x[c] + g * BLOOM_GROUP + i * 2 * QUAD;
                sums[c] = _mm512_dpbusd_epi32(sums[c], lower, quad(eight));
                if (count == 1) others = _mm512_dpbusd_epi32(others, upper, quad(eight + QUAD));
                else sums[c] = _mm512_dpbusd_epi32(sums[c], upper, quad(eight + QUAD));
            }
        }
        if (count == 1) sums[0] = _mm512_add_epi32(sums[0], others);
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
    sums = _mm256_dpbusd_epi32(sums, lower, _mm256_loadu_si256(q));
    return _mm256_dpbusd_epi32(sums, upper, _mm256_loadu_si256(q + 1));
}

#define TOKENS_AT_ONCE 8
#include "set.h"

KERNELS(avx512);
