/* Plain C: the definition of what all other sets compute. */
#define LANES 4
#include "epilogue.h"

INLINE void load_i8(const int8_t *from, vec16 *out) {
    float lanes[VECTOR];
    for (int i = 0; i < VECTOR; i++) lanes[i] = (float)from[i];
    *out = load(lanes);
}

/* rows[r] += sums[r] * (scale of row r) * (scale of the activations) */
static void add_group(const struct matmul *task, const uint8_t *block, size_t g, size_t token, const int32_t *sums,
                      float *rows) {
    for (size_t row = 0; row < BLOOM_ROWS; row++) {
        float scale = half_to_float(half_at(block + g * TILE_SCALES + row * 2));
        rows[row] = fmaf((float)sums[row], scale * task->x.scale[token * task->x.groups + g], rows[row]);
    }
}

/* The products of a group are summed as whole numbers, which is exact, and then scaled. */
static void block_w8(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    size_t groups = task->x.groups;
    const int8_t *tiles = (const int8_t *)block + scales_size(groups);
    float rows[BLOOM_ROWS] = {0};
    for (size_t g = 0; g < groups; g++) {
        const int8_t *tile = tiles + g * TILE_W8, *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
        int32_t sums[BLOOM_ROWS] = {0};
        for (size_t lane = 0; lane < BLOOM_ROWS; lane++)
            for (size_t i = 0; i < BLOOM_GROUP; i++) sums[lane] += x[i] * tile[w8_byte(lane, i)];
        add_group(task, block, g, token, sums, rows);
    }
    store_rows(task, token, row, load(rows));
}

INLINE void block_nibbles(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int five) {
    size_t groups = task->x.groups, tile_size = five ? TILE_W5 : TILE_W4;
    const uint8_t *tiles = block + scales_size(groups);
    float rows[BLOOM_ROWS] = {0};
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *tile = tiles + g * tile_size;
        const int8_t *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
        int32_t sums[BLOOM_ROWS] = {0};
        for (size_t lane = 0; lane < BLOOM_ROWS; lane++)
            for (size_t i = 0; i < BLOOM_GROUP; i++)
                sums[lane] += x[i] * (five ? w5_get(tile, lane, i) : w4_get(tile, lane, i));
        add_group(task, block, g, token, sums, rows);
    }
    store_rows(task, token, row, load(rows));
}

static void block_w4(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    block_nibbles(task, block, row, token, 0);
}
static void block_w5(const struct matmul *task, const uint8_t *block, size_t row, size_t token, int count) {
    (void)count;
    block_nibbles(task, block, row, token, 1);
}

/* Eight lanes: lane l sums columns 4l to 4l + 3 and 4l + 32 to 4l + 35. That a nibble stands for its value
 * plus 8 is made up for in lane 0. */
static float low_dot(const uint8_t *row, const struct activations *x) {
    const uint8_t *scales = row + low_scales_at(x->groups);
    float lanes[8] = {0};
    for (size_t g = 0; g < x->groups; g++) {
        const uint8_t *pairs = row + g * LOW_GROUP;
        const int8_t *q = x->q + g * BLOOM_GROUP;
        int32_t sums[8] = {-W4_ZERO * x->sum[g]};
        for (size_t i = 0; i < LOW_GROUP; i++)
            sums[i / 4] += (pairs[i] & 15) * q[i] + (pairs[i] >> 4) * q[i + LOW_GROUP];
        float scale = half_to_float(half_at(scales + g * 2)) * x->scale[g];
        for (int lane = 0; lane < 8; lane++) lanes[lane] = fmaf((float)sums[lane], scale, lanes[lane]);
    }
    return sum_of_8(lanes);
}

/* The same lanes as in low_dot, and again lane 0 makes up for what stands for 0. */
static float low2_dot(const uint8_t *row, const struct activations *x) {
    const uint8_t *scales = row + low2_scales_at(x->groups);
    float lanes[8] = {0};
    for (size_t g = 0; g < x->groups; g++) {
        const int8_t *q = x->q + g * BLOOM_GROUP;
        int32_t sums[8] = {-LOW2_ZERO * x->sum[g]};
        for (size_t i = 0; i < BLOOM_GROUP; i++) sums[i % 32 / 4] += (low2_get(row, g, i) + LOW2_ZERO) * q[i];
        float scale = half_to_float(half_at(scales + g * 2)) * x->scale[g];
        for (int lane = 0; lane < 8; lane++) lanes[lane] = fmaf((float)sums[lane], scale, lanes[lane]);
    }
    return sum_of_8(lanes);
}

#define TOKENS_AT_ONCE 1
#include "set.h"

KERNELS(portable);
