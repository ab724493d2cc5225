/* ARMv8.0, such as the Cortex-A72 of a Raspberry Pi 4. It has no dot products: pairs of products are summed
 * in 16 bits (smull, smlal), and the pairs' sums in 32 (sadalp). */
#define LANES 4
#include "arm.h"

enum { PREFETCH = 1024 }; /* bytes ahead */

/* Keeps a line in its register; without this, GCC loads each half again. */
INLINE int8x16_t held(int8x16_t line) {
    __asm__("" : "+w"(line));
    return line;
}

INLINE void block_w8(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    size_t groups = task->x.groups;
    const int8_t *tiles = (const int8_t *)block + scales_size(groups);
    float32x4_t rows[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t g = 0; g < groups; g++) {
        const int8_t *tile = tiles + g * TILE_W8, *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
        int32x4_t lower[4], upper[4], sums[4];
        for (int r = 0; r < 4; r++) lower[r] = upper[r] = vdupq_n_s32(0);
        for (int i = 0; i < LINES_W8; i += 2) {
            __builtin_prefetch(tile + PREFETCH + i * CACHE_LINE);
            __builtin_prefetch(tile + PREFETCH + i * CACHE_LINE + CACHE_LINE);
            int8x16_t a = quad(x + i * QUAD), b = quad(x + i * QUAD + QUAD);
            for (int r = 0; r < 4; r++) {
                int8x16_t v = held(vld1q_s8(tile + i * CACHE_LINE + r * 16));
                int8x16_t w = held(vld1q_s8(tile + i * CACHE_LINE + CACHE_LINE + r * 16));
                int16x8_t pairs = vmull_s8(vget_low_s8(v), vget_low_s8(a));
                lower[r] = vpadalq_s16(lower[r], vmlal_s8(pairs, vget_low_s8(w), vget_low_s8(b)));
                pairs = vmull_high_s8(v, a);
                upper[r] = vpadalq_s16(upper[r], vmlal_high_s8(pairs, w, b));
            }
        }
        for (int r = 0; r < 4; r++) sums[r] = vpaddq_s32(lower[r], upper[r]);
        add_group(task, block, g, token, sums, rows);
    }
    store_token(task, token, row, rows);
}

/* The sum of 16 products of a nibble and 8 bits fits into 16 bits (16 * 15 * 127 < 2^15), and that of signed 5 bits
 * (16 * 16 * 127 < 2^15). */
INLINE void block_nibbles(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int five) {
    size_t groups = task->x.groups, tile_size = five ? TILE_W5 : TILE_W4;
    const uint8_t *tiles = block + scales_size(groups);
    float32x4_t rows[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * tile_size;
        const int8_t *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
        int16x8_t lower[4], upper[4];
        int32x4_t sums[4], offset = vdupq_n_s32(five ? 0 : -W4_ZERO * task->x.sum[token * groups + g]);
        uint8x16_t negative[4];
        for (int r = 0; r < 4; r++) lower[r] = upper[r] = vdupq_n_s16(0);
#pragma GCC unroll 8
        for (int i = 0; i < LINES_W4; i++) {
            __builtin_prefetch(tile + PREFETCH + i * CACHE_LINE);
            int8x16_t a = quad(x + i * 2 * QUAD), b = quad(x + i * 2 * QUAD + QUAD);
            for (int r = 0; r < 4; r++) {
                uint8x16_t both = vld1q_u8(tile + i * CACHE_LINE + r * 16);
                if (five && i % LINES_OF_BITS == 0) negative[r] = negatives(tile, i, r);
                int8x16_t v = five ? fives(both, negative[r], i % LINES_OF_BITS) : nibbles(both);
                int8x16_t w = five ? fives(vshrq_n_u8(both, 4), negative[r], i % LINES_OF_BITS + 4)
                                   : vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
                lower[r] = vmlal_s8(lower[r], vget_low_s8(v), vget_low_s8(a));
                upper[r] = vmlal_high_s8(upper[r], v, a);
                lower[r] = vmlal_s8(lower[r], vget_low_s8(w), vget_low_s8(b));
                upper[r] = vmlal_high_s8(upper[r], w, b);
            }
        }
        for (int r = 0; r < 4; r++)
            sums[r] = vaddq_s32(vpaddq_s32(vpaddlq_s16(lower[r]), vpaddlq_s16(upper[r])), offset);
        add_group(task, block, g, token, sums, rows);
    }
    store_token(task, token, row, rows);
}

INLINE void block_w4(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    block_nibbles(task, block, row, token, 0);
}
INLINE void block_w5(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    block_nibbles(task, block, row, token, 1);
}

#define TOKENS_AT_ONCE 1
#include "set.h"

KERNELS(neon);
