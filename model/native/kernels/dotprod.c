/* ARMv8.2 with dot products (Cortex-A76 of a Raspberry Pi 5, and later). */
#define LANES 4
#include "arm.h"

enum { PREFETCH = 1024 }; /* bytes ahead */

INLINE void block_w8(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    size_t groups = task->x.groups;
    const int8_t *tiles = (const int8_t *)block + scales_size(groups);
    float32x4_t rows[4][4];
    for (int c = 0; c < count; c++)
        for (int r = 0; r < 4; r++) rows[c][r] = vdupq_n_f32(0);
    for (size_t g = 0; g < groups; g++) {
        const int8_t *tile = tiles + g * TILE_W8;
        int32x4_t sums[4][4];
        for (int c = 0; c < count; c++)
            for (int r = 0; r < 4; r++) sums[c][r] = vdupq_n_s32(0);
        for (int i = 0; i < LINES_W8; i++) {
            __builtin_prefetch(tile + PREFETCH + i * CACHE_LINE);
            for (int r = 0; r < 4; r++) {
                int8x16_t w = vld1q_s8(tile + i * CACHE_LINE + r * 16);
                for (int c = 0; c < count; c++) {
                    int8x16_t x = quad(task->x.q + ((token + (size_t)c) * groups + g) * BLOOM_GROUP + i * QUAD);
                    sums[c][r] = vdotq_s32(sums[c][r], w, x);
                }
            }
        }
        for (int c = 0; c < count; c++) add_group(task, block, g, token + (size_t)c, sums[c], rows[c]);
    }
    for (int c = 0; c < count; c++) store_token(task, token + (size_t)c, row, rows[c]);
}

INLINE void block_nibbles(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count,
                          int five) {
    size_t groups = task->x.groups, tile_size = five ? TILE_W5 : TILE_W4;
    const uint8_t *tiles = block + scales_size(groups);
    float32x4_t rows[4][4];
    for (int c = 0; c < count; c++)
        for (int r = 0; r < 4; r++) rows[c][r] = vdupq_n_f32(0);
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * tile_size;
        int32x4_t sums[4][4];
        uint8x16_t negative[4];
        for (int c = 0; c < count; c++)
            for (int r = 0; r < 4; r++)
                sums[c][r] = vdupq_n_s32(five ? 0 : -W4_ZERO * task->x.sum[(token + (size_t)c) * groups + g]);
#pragma GCC unroll 8
        for (int i = 0; i < LINES_W4; i++) {
            __builtin_prefetch(tile + PREFETCH + i * CACHE_LINE);
            for (int r = 0; r < 4; r++) {
                uint8x16_t both = vld1q_u8(tile + i * CACHE_LINE + r * 16);
                if (five && i % LINES_OF_BITS == 0) negative[r] = negatives(tile, i, r);
                int8x16_t lower = five ? fives(both, negative[r], i % LINES_OF_BITS) : nibbles(both);
                int8x16_t upper = five ? fives(vshrq_n_u8(both, 4), negative[r], i % LINES_OF_BITS + 4)
                                       : vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
                for (int c = 0; c < count; c++) {
                    const int8_t *x = task->x.q + ((token + (size_t)c) * groups + g) * BLOOM_GROUP + i * 2 * QUAD;
                    sums[c][r] = vdotq_s32(sums[c][r], lower, quad(x));
                    sums[c][r] = vdotq_s32(sums[c][r], upper, quad(x + QUAD));
                }
            }
        }
        for (int c = 0; c < count; c++) add_group(task, block, g, token + (size_t)c, sums[c], rows[c]);
    }
    for (int c = 0; c < count; c++) store_token(task, token + (size_t)c, row, rows[c]);
}

INLINE void block_w4(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    block_nibbles(task, block, row, token, count, 0);
}
INLINE void block_w5(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    block_nibbles(task, block, row, token, count, 1);
}

#define TOKENS_AT_ONCE 2
#include "set.h"

KERNELS(dotprod);
