/* Quantising weights into the layouts that the kernels read.
 *
 * BLOOM_W8, BLOOM_W4: blocks of 16 rows. A block starts with its scales, fp16 [groups][16], filled
 * up to a cache line; then come its tiles [groups], each 16 rows x 64 columns. A tile holds quads:
 * 4 columns of row 0, 4 of row 1, ... 16 rows make one cache line at 8 bits, so that a 32-bit lane
 * of any vector unit is one row and four activations are broadcast to all lanes. At 4 bits a line
 * holds quad 2i in its lower nibbles and quad 2i+1 in its upper ones. value = scale * (nibble - 8).
 *
 * The word embedding is also the output head, 46% of BLOOM-560m. Its 8-bit values are kept as two
 * planes, w = 16 high + low with both in -8..7: `high` is a BLOOM_W4 matrix, and `low` is written
 * row after row (nibble pairs: column j of a group below column j + 32), so that single rows can be
 * made exact at the cost of their own bytes.
 */
#include <math.h>
#include <string.h>

#include "layout.h"

static uint16_t float_to_half(float value) {
    union { float f; uint32_t u; } in = {.f = value}, magic = {.u = ((127u - 15) + (23 - 10) + 1) << 23};
    uint32_t sign = in.u & 0x80000000u, out;
    in.u ^= sign;
    if (in.u >= (127u + 16) << 23) {
        out = in.u > 255u << 23 ? 0x7e00 : 0x7c00;
    } else if (in.u < 113u << 23) {
        in.f += magic.f;
        out = in.u - magic.u;
    } else {
        uint32_t odd = (in.u >> 13) & 1;
        in.u += ((uint32_t)(15 - 127) << 23) + 0xfff + odd;
        out = in.u >> 13;
    }
    return (uint16_t)(out | sign >> 16);
}

static int clamp(float value, int low, int high) {
    long rounded = lrintf(value);
    return rounded < low ? low : rounded > high ? high : (int)rounded;
}

/* No weight of a BLOOM comes near; the squares of larger ones could overflow in a norm. */
static const float LARGEST = 1e15f;
/* A scale of fewer units than these, 2^-24 each, moves by more than 1/128 when it is rounded. */
enum { FINE = 64, SUBNORMAL = 1024 };

struct group {
    uint16_t scale;
    int q[BLOOM_GROUP];
    double lost; /* squared error beyond that of a scale that is not rounded */
};

static double error_of(const float *values, float scale, int low, int high) {
    double error = 0;
    float inverse = scale != 0 ? 1 / scale : 0;
    for (int i = 0; i < BLOOM_GROUP; i++) {
        float q = rintf(values[i] * inverse);
        q = q < (float)low ? (float)low : q > (float)high ? (float)high : q;
        error += (double)((values[i] - scale * q) * (values[i] - scale * q));
    }
    return error;
}

/* As error_of, exact for values of any size. */
static double exact_error_of(const float *values, double scale, int low, int high) {
    double error = 0;
    for (int i = 0; i < BLOOM_GROUP && scale != 0; i++) {
        double q = rint(values[i] / scale), rest;
        q = q < low ? low : q > high ? high : q;
        rest = values[i] - scale * q;
        error += rest * rest;
    }
    return error;
}

/* Round a scale to fp16: to the nearest, or where fp16 is coarse to the neighbour that fits the
 * values better. The nearest one below could clip a large part of them, or be zero. */
static uint16_t round_scale(const float *values, float scale, int low, int high) {
    uint16_t nearest = float_to_half(scale), sign = nearest & 0x8000;
    if ((nearest & 0x7fff) >= FINE || scale == 0) return nearest;
    uint16_t below = (uint16_t)(fabsf(scale) * 0x1p24f), above = (uint16_t)(below + 1);
    if (!below) return above | sign;
    double error_below = exact_error_of(values, half_to_float(below | sign), low, high);
    double error_above = exact_error_of(values, half_to_float(above | sign), low, high);
    return (error_below < error_above ? below : above) | sign;
}

/* Quantise 64 values to whole numbers in low..high times a scale that fp16 can hold; the scale is
 * infinite when they are too large for that. */
static struct group quantise(const float *values, int low, int high) {
    struct group out = {0};
    float least = 0, most = 0;
    for (int i = 0; i < BLOOM_GROUP; i++) {
        least = fminf(least, values[i]);
        most = fmaxf(most, values[i]);
    }
    /* The range reaches further below zero than above: a negative scale turns the values round. */
    float upright = fmaxf(least / (float)low, most / (float)high);
    float turned = fmaxf(most / (float)-low, least / (float)-high);
    float scale = turned < upright ? -turned : upright;
    if (high - low < 32) {
        /* With few steps it pays to clip the largest: search, by the squared error. */
        double best = error_of(values, scale, low, high);
        float first = scale;
        for (int i = 1; i <= 10; i++) {
            for (int sign = -1; sign <= 1; sign += 2) {
                float tried = (float)sign * first * (1 - 0.03f * (float)i);
                double error = error_of(values, tried, low, high);
                if (error < best) {
                    best = error;
                    scale = tried;
                }
            }
        }
    }
    out.scale = round_scale(values, scale, low, high);
    float rounded = half_to_float(out.scale);
    if (isinf(rounded)) return out;
    for (int i = 0; i < BLOOM_GROUP; i++)
        out.q[i] = rounded == 0 ? 0 : clamp(values[i] / rounded, low, high);
    if ((out.scale & 0x7fff) < SUBNORMAL) {
        for (int i = 0; i < BLOOM_GROUP; i++) {
            double rest = values[i] - (double)rounded * out.q[i];
            out.lost += rest * rest;
        }
        out.lost = fmax(0, out.lost - exact_error_of(values, scale, low, high));
    }
    return out;
}

static int check(const float *values, size_t count) {
    int large = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) return BLOOM_NOT_FINITE;
        large |= fabsf(values[i]) > LARGEST;
    }
    return large ? BLOOM_TOO_LARGE : 0;
}

struct row { double squares, lost; };

static void account(const float *values, const struct group *group, size_t count, double *sums,
                    struct row *row) {
    float scale = half_to_float(group->scale);
    row->lost += group->lost;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)values[i] - (double)scale * group->q[i]);
        double square = (double)values[i] * values[i];
        sums[0] += error * error;
        sums[1] += square;
        row->squares += square;
        if (error > sums[2]) sums[2] = error;
    }
}

static void account_row(const struct row *row, double *sums) {
    sums[3] += row->lost;
    if (row->lost > sums[4] * row->squares) sums[4] = row->lost / row->squares;
}

/* Copy a row's group, filled up with zeros; returns how many columns are real. */
static size_t load(float *out, const float *row, size_t group, size_t cols) {
    size_t first = group * BLOOM_GROUP, count = cols - first < BLOOM_GROUP ? cols - first : BLOOM_GROUP;
    memset(out, 0, BLOOM_GROUP * sizeof *out);
    memcpy(out, row + first, count * sizeof *out);
    return count;
}

static void put_scale(uint8_t *at, uint16_t scale) {
    at[0] = (uint8_t)scale;
    at[1] = (uint8_t)(scale >> 8);
}

/* Where a tile keeps column `col` of row `row`: a line for each quad, or for each pair of quads. */
static void put_nibble(uint8_t *tile, int row, int col, int value) {
    int quad = col / 4;
    uint8_t *at = tile + quad / 2 * 64 + row * 4 + col % 4;
    *at = (uint8_t)(quad % 2 ? (*at & 0x0f) | (value + 8) << 4 : (*at & 0xf0) | (value + 8));
}

uint64_t bloom_format_size(uint32_t format, uint64_t rows, uint64_t cols) {
    size_t blocks = (rows + BLOOM_ROWS - 1) / BLOOM_ROWS, groups = groups_of(cols);
    switch (format) {
    case BLOOM_F32: return rows * round_up(cols, 16) * sizeof(float);
    case BLOOM_W8: return blocks * block_size_w8(groups);
    case BLOOM_W4: return blocks * block_size_w4(groups);
    case BLOOM_LOW: return rows * low_row_size(groups);
    default: return 0;
    }
}

int bloom_pack(uint32_t format, uint32_t rows, uint32_t cols, const float *values, uint8_t *out,
               double *sums) {
    int problem = check(values, (size_t)rows * cols);
    if (problem) return problem;
    memset(out, 0, bloom_format_size(format, rows, cols));
    if (format == BLOOM_F32) {
        size_t stride = round_up(cols, 16) * sizeof(float);
        for (size_t row = 0; row < rows; row++)
            memcpy(out + row * stride, values + row * cols, cols * sizeof(float));
        return 0;
    }
    size_t groups = groups_of(cols), blocks = (rows + BLOOM_ROWS - 1) / BLOOM_ROWS;
    size_t size = format == BLOOM_W8 ? block_size_w8(groups) : block_size_w4(groups);
    size_t tile_size = BLOOM_GROUP * BLOOM_ROWS / (format == BLOOM_W8 ? 1 : 2);
    if (format == BLOOM_W4) /* rows and columns that only fill up are zeros too */
        for (size_t b = 0; b < blocks; b++)
            memset(out + b * size + scales_size(groups), 0x88, groups * tile_size);
    for (size_t row = 0; row < rows; row++) {
        uint8_t *block = out + row / BLOOM_ROWS * size;
        int lane = (int)(row % BLOOM_ROWS);
        struct row whole = {0};
        for (size_t g = 0; g < groups; g++) {
            float part[BLOOM_GROUP];
            size_t count = load(part, values + row * cols, g, cols);
            struct group group = format == BLOOM_W8 ? quantise(part, -127, 127) : quantise(part, -8, 7);
            if (isinf(half_to_float(group.scale))) return BLOOM_TOO_LARGE;
            account(part, &group, count, sums, &whole);
            put_scale(block + (g * BLOOM_ROWS + (size_t)lane) * 2, group.scale);
            uint8_t *tile = block + scales_size(groups) + g * tile_size;
            for (int i = 0; i < BLOOM_GROUP; i++) {
                if (format == BLOOM_W8) tile[i / 4 * 64 + lane * 4 + i % 4] = (uint8_t)group.q[i];
                else put_nibble(tile, lane, i, group.q[i]);
            }
        }
        account_row(&whole, sums);
    }
    return 0;
}

int bloom_pack_embedding(uint32_t rows, uint32_t cols, const float *values, uint8_t *high,
                         uint8_t *low, float *norms, double *sums) {
    int problem = check(values, (size_t)rows * cols);
    if (problem) return problem;
    size_t groups = groups_of(cols), blocks = (rows + BLOOM_ROWS - 1) / BLOOM_ROWS;
    size_t size = block_size_w4(groups), low_size = low_row_size(groups);
    memset(high, 0, blocks * size);
    memset(low, 0, rows * low_size);
    for (size_t b = 0; b < blocks; b++)
        memset(high + b * size + scales_size(groups), 0x88, size - scales_size(groups));
    for (size_t row = 0; row < rows; row++) {
        uint8_t *block = high + row / BLOOM_ROWS * size, *line = low + row * low_size;
        int lane = (int)(row % BLOOM_ROWS);
        struct row whole = {0};
        double square = 0;
        for (size_t g = 0; g < groups; g++) {
            float part[BLOOM_GROUP];
            size_t count = load(part, values + row * cols, g, cols);
            struct group group = quantise(part, -128, 119); /* 16 * 7 + 7 is the most */
            /* The upper plane's scale is 16 times this one: it must not overflow fp16. */
            if (fabsf(half_to_float(group.scale)) > 4000) return BLOOM_TOO_LARGE;
            account(part, &group, count, sums, &whole);
            float scale = half_to_float(group.scale);
            put_scale(block + (g * BLOOM_ROWS + (size_t)lane) * 2, float_to_half(scale * 16));
            put_scale(line + groups * BLOOM_GROUP / 2 + g * 2, group.scale);
            uint8_t *tile = block + scales_size(groups) + g * BLOOM_GROUP * BLOOM_ROWS / 2;
            for (int i = 0; i < BLOOM_GROUP; i++) {
                int upper = (group.q[i] + 8 + 256) / 16 - 16, lower = group.q[i] - 16 * upper;
                put_nibble(tile, lane, i, upper);
                line[g * 32 + (size_t)(i % 32)] |= (uint8_t)((lower + 8) << (i < 32 ? 0 : 4));
                square += (double)scale * lower * scale * lower;
            }
        }
        account_row(&whole, sums);
        norms[row] = nextafterf((float)sqrt(square), INFINITY);
    }
    return 0;
}

/* What lies at any address, aligned or not. */
static inline uint16_t half_at(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return half;
}

int bloom_widen(const char *type, const void *values, uint64_t count, float *out) {
    const uint8_t *at = values;
    if (!strcmp(type, "F32")) memcpy(out, values, count * sizeof *out);
    else if (!strcmp(type, "F64"))
        for (uint64_t i = 0; i < count; i++) {
            double wide;
            memcpy(&wide, at + i * sizeof wide, sizeof wide);
            out[i] = (float)wide;
        }
    else if (!strcmp(type, "F16"))
        for (uint64_t i = 0; i < count; i++) out[i] = half_to_float(half_at(at + i * 2));
    else if (!strcmp(type, "BF16"))
        for (uint64_t i = 0; i < count; i++) {
            union { uint32_t u; float f; } wide = {.u = (uint32_t)half_at(at + i * 2) << 16};
            out[i] = wide.f;
        }
    else return -1;
    return 0;
}

int bloom_same(const float *one, const float *other, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (!(one[i] == other[i])) return 0;
    return 1;
}
