/* Quantising weights into the layouts of layout.h.
 *
 * The word embedding is also the output head, and 46% of BLOOM-560m. Its values of 8 bits are kept as two planes of
 * 4 bits, value = 16 high + low with both in -8..7; those of 6 bits as 4 bits and 2, value = 4 high + low with low in
 * -2..1. The upper plane is a BLOOM_W4 matrix, and the lower one is written row after row, so that single rows can be
 * made exact at the cost of their own bytes (head.c).
 */
#include <math.h>
#include <string.h>

#include "layout.h"

/* fp32 to fp16, rounded to the nearest, ties to even (after F. Giesen's float_to_half_fast3_rtne). */
static uint16_t float_to_half(float value) {
    uint32_t sign = bits_of(value) & 0x80000000u, bits = bits_of(value) ^ sign, half;
    if (bits >= (127u + 16) << 23) {
        half = bits > 255u << 23 ? 0x7e00 : 0x7c00; /* NaN, infinity */
    } else if (bits < 113u << 23) {                 /* zero, subnormal: adding a power of two shifts and rounds */
        uint32_t magic = ((127u - 15) + (23 - 10) + 1) << 23;
        half = bits_of(float_of(bits) + float_of(magic)) - magic;
    } else {
        uint32_t odd = bits >> 13 & 1;
        half = (bits + ((uint32_t)(15 - 127) << 23) + 0xfff + odd) >> 13;
    }
    return (uint16_t)(half | sign >> 16);
}

/* Round to a whole number within `least` and `most`. */
static int clamp(float value, int least, int most) {
    long rounded = lrintf(value);
    return rounded < least ? least : rounded > most ? most : (int)rounded;
}

/* No weight of a BLOOM comes near this. The squares of larger ones could overflow in a layer norm. */
static const float LARGEST_WEIGHT = 1e15f;

enum {
    SUBNORMAL = 1024, /* fp16 numbers below, as bits, are multiples of 2^-24 */
    COARSE = 64,      /* scales below may move by more than 1/128 when they are rounded */
};

struct group {
    uint16_t scale; /* fp16 */
    int q[BLOOM_GROUP];
    double lost; /* the squared error that comes of rounding the scale to fp16, where fp16 is coarse */
};

/* The squared error of a group that is quantised with a scale to whole numbers within `least` and `most`. */
static double error_of(const float *values, float scale, int least, int most) {
    double error = 0;
    float inverse = scale != 0 ? 1 / scale : 0, lower = (float)least, upper = (float)most;
    for (int i = 0; i < BLOOM_GROUP; i++) {
        float q = rintf(values[i] * inverse);
        q = q < lower ? lower : q > upper ? upper : q;
        error += (double)((values[i] - scale * q) * (values[i] - scale * q));
    }
    return error;
}

/* The same in double precision, which the squares of tiny values need. */
static double exact_error_of(const float *values, double scale, int least, int most) {
    double error = 0;
    for (int i = 0; i < BLOOM_GROUP && scale != 0; i++) {
        double q = rint(values[i] / scale), rest;
        q = q < least ? least : q > most ? most : q;
        rest = values[i] - scale * q;
        error += rest * rest;
    }
    return error;
}

/* Round a scale to fp16: to the nearest, or where fp16 is coarse to the neighbour with the smaller error. There, the
 * nearest could be so small that many values are clipped, or be zero. */
static uint16_t round_scale(const float *values, float scale, int least, int most) {
    uint16_t nearest = float_to_half(scale), sign = nearest & 0x8000;
    if ((nearest & 0x7fff) >= COARSE || scale == 0) return nearest;
    uint16_t below = (uint16_t)(fabsf(scale) * 0x1p24f), above = (uint16_t)(below + 1);
    if (!below) return above | sign;
    double error_below = exact_error_of(values, half_to_float(below | sign), least, most);
    double error_above = exact_error_of(values, half_to_float(above | sign), least, most);
    return (error_below < error_above ? below : above) | sign;
}

/* The scale of the smallest size that clips none of 64 values. Below zero there is more room than above, so a negative
 * scale, which swaps the two sides, may be smaller. */
static float covering_scale(const float *values, int least, int most) {
    float smallest = 0, largest = 0;
    for (int i = 0; i < BLOOM_GROUP; i++) {
        smallest = fminf(smallest, values[i]);
        largest = fmaxf(largest, values[i]);
    }
    float upright = fmaxf(smallest / (float)least, largest / (float)most);
    float swapped = fmaxf(largest / (float)-least, smallest / (float)-most);
    return swapped < upright ? -swapped : upright;
}

/* Quantise 64 values to whole numbers within `least` and `most`, times a scale that is kept as fp16. The scale is
 * infinite when the values are too large for fp16. */
static struct group quantise(const float *values, int least, int most) {
    struct group out = {0};
    float scale = covering_scale(values, least, most);
    if (most - least < 64) {
        /* With few steps, a smaller scale that clips the largest values can have a smaller error: try some. */
        double best = error_of(values, scale, least, most);
        float first = scale;
        for (int i = 1; i <= 16; i++) {
            for (int sign = -1; sign <= 1; sign += 2) {
                float tried = (float)sign * first * (1 - 0.02f * (float)i);
                double error = error_of(values, tried, least, most);
                if (error < best) {
                    best = error;
                    scale = tried;
                }
            }
        }
    }
    out.scale = round_scale(values, scale, least, most);
    float rounded = half_to_float(out.scale);
    if (isinf(rounded)) return out;
    for (int i = 0; i < BLOOM_GROUP; i++) out.q[i] = rounded == 0 ? 0 : clamp(values[i] / rounded, least, most);
    if ((out.scale & 0x7fff) < SUBNORMAL) {
        for (int i = 0; i < BLOOM_GROUP; i++) {
            double rest = values[i] - (double)rounded * out.q[i];
            out.lost += rest * rest;
        }
        out.lost = fmax(0, out.lost - exact_error_of(values, scale, least, most));
    }
    return out;
}

/* Quantise 64 values by a scale that is given; returns 0 where that would round anything. */
static int keep(const float *values, float scale, int least, int most, struct group *out) {
    *out = (struct group){.scale = float_to_half(scale)};
    if (scale == 0 || half_to_float(out->scale) != scale) return 0;
    for (int i = 0; i < BLOOM_GROUP; i++) {
        out->q[i] = clamp(values[i] / scale, least, most);
        if ((float)out->q[i] * scale != values[i]) return 0;
    }
    return 1;
}

static int check_values(const float *values, size_t count) {
    int large = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) return BLOOM_NOT_FINITE;
        large |= fabsf(values[i]) > LARGEST_WEIGHT;
    }
    return large ? BLOOM_TOO_LARGE : 0;
}

/* The sums of one row, as in bloom_pack_stats. */
struct row {
    double squares, lost;
};

static void add_group(const float *values, const struct group *group, size_t count, struct bloom_pack_stats *stats,
                      struct row *row) {
    float scale = half_to_float(group->scale);
    row->lost += group->lost;
    for (size_t i = 0; i < count; i++) {
        double error = fabs((double)values[i] - (double)scale * group->q[i]);
        double square = (double)values[i] * values[i];
        stats->squared_error += error * error;
        stats->squares += square;
        row->squares += square;
        if (error > stats->largest_error) stats->largest_error = error;
    }
}

static void add_row(const struct row *row, struct bloom_pack_stats *stats) {
    stats->lost += row->lost;
    if (row->lost > stats->lost_of_row * row->squares) stats->lost_of_row = row->lost / row->squares;
}

/* Copy a group of a row, padded with zeros; returns how many of its columns the row has. */
static size_t load(float *out, const float *row, size_t group, size_t cols) {
    size_t first = group * BLOOM_GROUP, count = cols - first < BLOOM_GROUP ? cols - first : BLOOM_GROUP;
    memset(out, 0, BLOOM_GROUP * sizeof *out);
    memcpy(out, row + first, count * sizeof *out);
    return count;
}

/* How a format of blocks keeps whole numbers. */
struct code {
    int least, most;
    size_t tile_size;
    void (*put)(uint8_t *tile, size_t lane, size_t col, int value);
};

static void w8_put(uint8_t *tile, size_t lane, size_t col, int value) { tile[w8_byte(lane, col)] = (uint8_t)value; }

static struct code code_of(uint32_t format) {
    if (format == BLOOM_W8) return (struct code){-127, 127, TILE_W8, w8_put};
    if (format == BLOOM_W5) return (struct code){-16, 15, TILE_W5, w5_put};
    return (struct code){-8, 7, TILE_W4, w4_put};
}

/* Blocks of zeros: rows and columns that are only padding stay so. */
static void clear(const struct code *code, uint8_t *out, size_t blocks, size_t groups) {
    size_t scales = scales_size(groups), size = scales + groups * code->tile_size;
    for (size_t b = 0; b < blocks; b++) {
        uint8_t *tiles = out + b * size + scales;
        memset(out + b * size, 0, scales);
        for (size_t lane = 0; lane < BLOOM_ROWS; lane++)
            for (size_t i = 0; i < BLOOM_GROUP; i++) code->put(tiles, lane, i, 0);
        for (size_t g = 1; g < groups; g++) memcpy(tiles + g * code->tile_size, tiles, code->tile_size);
    }
}

uint64_t bloom_format_size(uint32_t format, uint64_t rows, uint64_t cols) {
    size_t blocks = blocks_of(rows), groups = groups_of(cols);
    switch (format) {
    case BLOOM_F32: return rows * padded(cols) * sizeof(float);
    case BLOOM_W8: return blocks * block_size_w8(groups);
    case BLOOM_W4: return blocks * block_size_w4(groups);
    case BLOOM_W5: return blocks * block_size_w5(groups);
    case BLOOM_LOW: return rows * low_row_size(groups);
    case BLOOM_LOW2: return rows * low2_row_size(groups);
    default: return 0;
    }
}

static void pack_f32(uint32_t rows, uint32_t cols, const float *values, uint8_t *out) {
    size_t stride = padded(cols) * sizeof(float);
    memset(out, 0, rows * stride);
    for (size_t row = 0; row < rows; row++) memcpy(out + row * stride, values + row * cols, cols * sizeof(float));
}

int bloom_pack(uint32_t format, uint32_t rows, uint32_t cols, const float *values, const float *scales, uint8_t *out,
               struct bloom_pack_stats *stats) {
    int problem = check_values(values, (size_t)rows * cols);
    if (problem) return problem;
    if (format == BLOOM_F32) {
        pack_f32(rows, cols, values, out);
        return 0;
    }
    struct code code = code_of(format);
    size_t groups = groups_of(cols), size = scales_size(groups) + groups * code.tile_size;
    clear(&code, out, blocks_of(rows), groups);
    for (size_t row = 0; row < rows; row++) {
        uint8_t *block = out + row / BLOOM_ROWS * size;
        size_t lane = row % BLOOM_ROWS;
        struct row whole = {0};
        for (size_t g = 0; g < groups; g++) {
            float part[BLOOM_GROUP];
            size_t count = load(part, values + row * cols, g, cols);
            struct group group;
            float scale = scales ? scales[row * groups + g] : 0;
            if (!keep(part, scale, code.least, code.most, &group)) group = quantise(part, code.least, code.most);
            if (isinf(half_to_float(group.scale))) return BLOOM_TOO_LARGE;
            add_group(part, &group, count, stats, &whole);
            put_half(block + g * TILE_SCALES + lane * 2, group.scale);
            uint8_t *tile = block + scales_size(groups) + g * code.tile_size;
            for (size_t i = 0; i < BLOOM_GROUP; i++) code.put(tile, lane, i, group.q[i]);
        }
        add_row(&whole, stats);
    }
    return 0;
}

int bloom_pack_embedding(uint32_t low_format, uint32_t rows, uint32_t cols, const float *values, uint8_t *high,
                         uint8_t *low, float *norms, struct bloom_pack_stats *stats) {
    int problem = check_values(values, (size_t)rows * cols);
    if (problem) return problem;
    int two = low_format == BLOOM_LOW2, step = two ? 4 : 16; /* value = step * high + low */
    struct code code = code_of(BLOOM_W4);
    size_t groups = groups_of(cols), size = block_size_w4(groups);
    size_t low_size = two ? low2_row_size(groups) : low_row_size(groups);
    size_t scales_at = two ? low2_scales_at(groups) : low_scales_at(groups);
    clear(&code, high, blocks_of(rows), groups);
    memset(low, 0, rows * low_size);
    for (size_t row = 0; row < rows; row++) {
        uint8_t *block = high + row / BLOOM_ROWS * size, *low_row = low + row * low_size;
        size_t lane = row % BLOOM_ROWS;
        struct row whole = {0};
        double square = 0;
        for (size_t g = 0; g < groups; g++) {
            float part[BLOOM_GROUP];
            size_t count = load(part, values + row * cols, g, cols);
            struct group group = quantise(part, -8 * step, 7 * step + step / 2 - 1);
            /* The upper plane's scale is up to 16 times this one, and fp16 ends at 65504. */
            if (fabsf(half_to_float(group.scale)) > 4000) return BLOOM_TOO_LARGE;
            add_group(part, &group, count, stats, &whole);
            float scale = half_to_float(group.scale);
            put_half(block + g * TILE_SCALES + lane * 2, float_to_half(scale * (float)step));
            put_half(low_row + scales_at + g * 2, group.scale);
            uint8_t *tile = block + scales_size(groups) + g * TILE_W4;
            for (size_t i = 0; i < BLOOM_GROUP; i++) {
                int upper = (group.q[i] + step / 2 + 8 * step) / step - 8, lower = group.q[i] - step * upper;
                w4_put(tile, lane, i, upper);
                if (two) low2_put(low_row, g, i, lower);
                else low_put(low_row, g, i, lower);
                square += (double)scale * lower * scale * lower;
            }
        }
        add_row(&whole, stats);
        norms[row] = nextafterf((float)sqrt(square), INFINITY); /* never less than the true norm */
    }
    return 0;
}

int bloom_widen(const char *type, const void *values, uint64_t count, float *out) {
    const uint8_t *at = values; /* aligned or not */
    if (!strcmp(type, "F32")) {
        memcpy(out, values, count * sizeof *out);
    } else if (!strcmp(type, "F64")) {
        for (uint64_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, at + i * sizeof value, sizeof value);
            out[i] = (float)value;
        }
    } else if (!strcmp(type, "F16")) {
        for (uint64_t i = 0; i < count; i++) out[i] = half_to_float(half_at(at + i * 2));
    } else if (!strcmp(type, "BF16")) {
        for (uint64_t i = 0; i < count; i++) out[i] = float_of((uint32_t)half_at(at + i * 2) << 16);
    } else {
        return -1;
    }
    return 0;
}

int bloom_same(const float *one, const float *other, uint64_t count) {
    for (uint64_t i = 0; i < count; i++)
        if (!(one[i] == other[i])) return 0;
    return 1;
}
