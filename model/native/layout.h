/* Sizes that the writer of a file, its reader and the kernels agree on. */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "bloom.h"

static inline size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }
static inline size_t groups_of(size_t cols) { return (cols + BLOOM_GROUP - 1) / BLOOM_GROUP; }
/* Bytes of the fp16 scales before a block of 16 rows: a whole number of cache lines. */
static inline size_t scales_size(size_t groups) { return round_up(groups * BLOOM_ROWS * 2, 64); }
static inline size_t block_size_w8(size_t groups) {
    return scales_size(groups) + groups * BLOOM_GROUP * BLOOM_ROWS;
}
static inline size_t block_size_w4(size_t groups) {
    return scales_size(groups) + groups * BLOOM_GROUP * BLOOM_ROWS / 2;
}
/* A row of the lower plane: its nibbles, then its fp16 scales. */
static inline size_t low_row_size(size_t groups) { return round_up(groups * (BLOOM_GROUP / 2 + 2), 16); }

static inline float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    union { uint32_t u; float f; } magic = {.u = 113u << 23}, out = {.u = rest << 13};
    uint32_t exponent = out.u & (0x7c00u << 13);
    out.u += (127 - 15) << 23;
    if (exponent == 0x7c00u << 13) out.u += (128 - 16) << 23; /* infinity, NaN */
    else if (exponent == 0) { out.u += 1 << 23; out.f -= magic.f; } /* subnormal */
    out.u |= sign;
    return out.f;
}

#endif
