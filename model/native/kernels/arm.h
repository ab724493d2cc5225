/* What both ARM sets share. A cache line of weights is four registers of 4 rows each. */
#ifndef ARM_H
#define ARM_H

#include <arm_neon.h>

#include "epilogue.h"

INLINE void load_i8(const int8_t *from, vec16 *out) {
    int8x16_t bytes = vld1q_s8(from);
    int16x8_t first = vmovl_s8(vget_low_s8(bytes)), second = vmovl_high_s8(bytes);
    out->part[0] = (vfloat)vcvtq_f32_s32(vmovl_s16(vget_low_s16(first)));
    out->part[1] = (vfloat)vcvtq_f32_s32(vmovl_high_s16(first));
    out->part[2] = (vfloat)vcvtq_f32_s32(vmovl_s16(vget_low_s16(second)));
    out->part[3] = (vfloat)vcvtq_f32_s32(vmovl_high_s16(second));
}

INLINE int8x16_t quad(const int8_t *from) { return vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)from)); }

INLINE int8x16_t nibbles(uint8x16_t both) { return vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))); }

/* The inverted fifth bits of BLOOM_W5, for line `i` of the nibbles and the three that follow: ones for values below 0. */
INLINE uint8x16_t negatives(const uint8_t *tile, int i, int r) {
    return vmvnq_u8(vld1q_u8(tile + TILE_W4 + i / LINES_OF_BITS * CACHE_LINE + r * 16));
}

/* The values of BLOOM_W5 of which `both` holds the lower 4 bits, and `negative` in bit `bit` whether they are below 0:
 * all upper bits are set then, which makes a signed number. */
INLINE int8x16_t fives(uint8x16_t both, uint8x16_t negative, int bit) {
    uint8x16_t mask = vtstq_u8(negative, vdupq_n_u8((uint8_t)(1 << bit)));
    return vreinterpretq_s8_u8(vsliq_n_u8(both, mask, 4));
}

/* rows += sums * (scales of the rows) * (scale of the activations) */
INLINE void add_group(const struct matmul *task, const uint8_t *block, size_t g, size_t token, const int32x4_t *sums,
                      float32x4_t *rows) {
    float x = task->x.scale[token * task->x.groups + g];
    for (int r = 0; r < 4; r++) {
        float16x4_t half = vreinterpret_f16_u8(vld1_u8(block + g * TILE_SCALES + r * 8));
        float32x4_t scale = vmulq_n_f32(vcvt_f32_f16(half), x);
        rows[r] = vfmaq_f32(rows[r], vcvtq_f32_s32(sums[r]), scale);
    }
}

INLINE void store_token(const struct matmul *task, size_t token, size_t row, const float32x4_t *rows) {
    vec16 value;
    for (int r = 0; r < 4; r++) value.part[r] = (vfloat)rows[r];
    store_rows(task, token, row, value);
}

/* Add the products of 16 columns of the one plane and 16 of the other to 4 lanes. */
INLINE int32x4_t low_products(int8x16_t lower, int8x16_t upper, const int8_t *q) {
    int8x16_t a = vld1q_s8(q), b = vld1q_s8(q + LOW_GROUP);
    int16x8_t first = vmull_s8(vget_low_s8(lower), vget_low_s8(a));
    int16x8_t second = vmull_high_s8(lower, a);
    first = vmlal_s8(first, vget_low_s8(upper), vget_low_s8(b));
    second = vmlal_high_s8(second, upper, b);
    return vpaddq_s32(vpaddlq_s16(first), vpaddlq_s16(second));
}

/* The scale of a group in a row of the lower plane times that of the activations. */
INLINE float32x4_t low_scale(const uint8_t *scales, const struct activations *x, size_t g) {
    float16x4_t half = vreinterpret_f16_u16(vld1_dup_u16((const uint16_t *)(const void *)scales + g));
    return vmulq_n_f32(vcvt_f32_f16(half), x->scale[g]);
}

INLINE int32x4_t in_lane_0(int32_t value) { return vsetq_lane_s32(value, vdupq_n_s32(0), 0); }

INLINE float sum_of_totals(const float32x4_t *totals) {
    float lanes[8];
    vst1q_f32(lanes, totals[0]);
    vst1q_f32(lanes + 4, totals[1]);
    return sum_of_8(lanes);
}

static float low_dot(const uint8_t *row, const struct activations *x) {
    float32x4_t totals[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t g = 0; g < x->groups; g++) {
        float32x4_t scale = low_scale(row + low_scales_at(x->groups), x, g);
        for (int i = 0; i < 2; i++) {
            uint8x16_t both = vld1q_u8(row + g * LOW_GROUP + i * 16);
            int8x16_t upper = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
            int32x4_t sums = low_products(nibbles(both), upper, x->q + g * BLOOM_GROUP + i * 16);
            if (i == 0) sums = vaddq_s32(sums, in_lane_0(-W4_ZERO * x->sum[g]));
            totals[i] = vfmaq_f32(totals[i], vcvtq_f32_s32(sums), scale);
        }
    }
    return sum_of_totals(totals);
}

static float low2_dot(const uint8_t *row, const struct activations *x) {
    const uint8x16_t two_bits = vdupq_n_u8(3);
    float32x4_t totals[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    for (size_t g = 0; g < x->groups; g++) {
        float32x4_t scale = low_scale(row + low2_scales_at(x->groups), x, g);
        uint8x16_t all = vld1q_u8(row + g * LOW2_GROUP);
        for (int i = 0; i < 2; i++) {
            int8x16_t lower = vreinterpretq_s8_u8(vandq_u8(all, two_bits));
            int8x16_t upper = vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(all, 4), two_bits));
            int32x4_t sums = low_products(lower, upper, x->q + g * BLOOM_GROUP + i * 16);
            if (i == 0) sums = vaddq_s32(sums, in_lane_0(-LOW2_ZERO * x->sum[g]));
            totals[i] = vfmaq_f32(totals[i], vcvtq_f32_s32(sums), scale);
            all = vshrq_n_u8(all, 2);
        }
    }
    return sum_of_totals(totals);
}

#endif
