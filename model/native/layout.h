/* How a baked model lays out its weights: what the writer, the reader and the kernels agree on.
 *
 * BLOOM_F32: rows of floats, each padded with zeros to a multiple of 16.
 *
 * BLOOM_W8 and BLOOM_W4: blocks of 16 rows. A block begins with its scales, fp16 [groups][16], padded
 * to a whole number of cache lines. Its tiles [groups] follow, each of 16 rows x 64 columns, made of
 * quads: 4 neighbouring columns of one row. At 8 bits, a cache line holds the same quad of all 16 rows, so
 * that a 32-bit lane of any vector unit belongs to one row, and four activations are broadcast to all
 * lanes. At 4 bits, a line holds quad 2i in its lower nibbles and quad 2i + 1 in its upper ones; a nibble
 * stands for its value plus 8. A weight is its scale times its value.
 *
 * BLOOM_W5: the same with 5 bits, which stand for a value plus 16. A tile holds the lower 4 bits as BLOOM_W4 does, then
 * the fifth ones, in a line for each 4 lines of nibbles: for the nibbles of line i of those 4, in bit i of the byte
 * in the same place for the lower nibble, and in bit i + 4 for the upper one.
 *
 * BLOOM_LOW: the lower plane of the word embedding, row after row (pack.c tells how the planes are made).
 * A row holds its nibbles, 32 bytes a group (column i in the lower nibble of byte i, column i + 32 in
 * the upper one), then its scales, fp16 [groups]; it is padded to a multiple of 16 bytes.
 *
 * BLOOM_LOW2: the same with 2 bits, 16 bytes a group: columns i, i + 16, i + 32 and i + 48 in byte i, from the lowest
 * bits on. They stand for a value plus 2.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include <string.h>

#include "bloom.h"

_Static_assert(sizeof(size_t) == 8, "sizes of large models need 64 bits");

enum {
    VECTOR = 16, /* vectors of floats are padded to a multiple of this */
    QUAD = 4,    /* columns of a row that lie side by side in a tile */

    /* What stands for 0. */
    W4_ZERO = 8,
    W5_ZERO = 16,
    LOW2_ZERO = 2,

    /* Bytes. */
    CACHE_LINE = 64,
    TILE_W8 = BLOOM_GROUP * BLOOM_ROWS,
    TILE_W4 = BLOOM_GROUP * BLOOM_ROWS / 2,
    TILE_W5 = TILE_W4 + BLOOM_GROUP * BLOOM_ROWS / 8,
    TILE_SCALES = BLOOM_ROWS * 2, /* the scales of a tile */
    LOW_GROUP = BLOOM_GROUP / 2,  /* the nibbles of a group in a row of the lower plane */
    LOW2_GROUP = BLOOM_GROUP / 4, /* likewise, of 2 bits */

    /* Cache lines of a tile. */
    LINES_W8 = TILE_W8 / CACHE_LINE,
    LINES_W4 = TILE_W4 / CACHE_LINE, /* of nibbles, of BLOOM_W5 too */
    LINES_OF_BITS = 4,               /* of nibbles, whose fifth bits a line holds */
};

static inline size_t round_up(size_t value, size_t step) { return (value + step - 1) / step * step; }
static inline size_t padded(size_t floats) { return round_up(floats, VECTOR); }
static inline size_t groups_of(size_t cols) { return (cols + BLOOM_GROUP - 1) / BLOOM_GROUP; }
static inline size_t blocks_of(size_t rows) { return (rows + BLOOM_ROWS - 1) / BLOOM_ROWS; }

/* Sizes in bytes: of a block's scales, and of whole blocks. */
static inline size_t scales_size(size_t groups) { return round_up(groups * TILE_SCALES, CACHE_LINE); }
static inline size_t block_size_w8(size_t groups) { return scales_size(groups) + groups * TILE_W8; }
static inline size_t block_size_w4(size_t groups) { return scales_size(groups) + groups * TILE_W4; }
static inline size_t block_size_w5(size_t groups) { return scales_size(groups) + groups * TILE_W5; }

/* Where a tile keeps column `col` of its row `lane`: the byte, and at 4 bits the nibble within it. */
static inline size_t w8_byte(size_t lane, size_t col) { return col / QUAD * CACHE_LINE + lane * QUAD + col % QUAD; }
static inline size_t w4_byte(size_t lane, size_t col) {
    return col / (2 * QUAD) * CACHE_LINE + lane * QUAD + col % QUAD;
}
static inline int w4_is_upper(size_t col) { return col / QUAD % 2; }
static inline int w4_get(const uint8_t *tile, size_t lane, size_t col) {
    uint8_t pair = tile[w4_byte(lane, col)];
    return (w4_is_upper(col) ? pair >> 4 : pair & 15) - W4_ZERO;
}
static inline void w4_put(uint8_t *tile, size_t lane, size_t col, int value) {
    uint8_t *pair = tile + w4_byte(lane, col);
    *pair = (uint8_t)(w4_is_upper(col) ? (*pair & 0x0f) | (value + W4_ZERO) << 4 : (*pair & 0xf0) | (value + W4_ZERO));
}

/* The byte that holds the fifth bit of a column, and which bit of it that is. */
static inline size_t w5_byte(size_t lane, size_t col) {
    return TILE_W4 + col / (2 * QUAD * LINES_OF_BITS) * CACHE_LINE + lane * QUAD + col % QUAD;
}
static inline size_t w5_bit(size_t col) { return col / (2 * QUAD) % LINES_OF_BITS + (w4_is_upper(col) ? 4 : 0); }
static inline int w5_get(const uint8_t *tile, size_t lane, size_t col) {
    int fifth = tile[w5_byte(lane, col)] >> w5_bit(col) & 1;
    return w4_get(tile, lane, col) + W4_ZERO + 16 * fifth - W5_ZERO;
}
static inline void w5_put(uint8_t *tile, size_t lane, size_t col, int value) {
    int code = value + W5_ZERO;
    uint8_t *eight = tile + w5_byte(lane, col);
    w4_put(tile, lane, col, (code & 15) - W4_ZERO);
    *eight = (uint8_t)((*eight & ~(1 << w5_bit(col))) | code >> 4 << w5_bit(col));
}

/* A row of the lower plane: its size in bytes, its scales, and column `col` of a group, as w4_get. */
static inline size_t low_row_size(size_t groups) { return round_up(groups * (LOW_GROUP + 2), 16); }
static inline size_t low_scales_at(size_t groups) { return groups * LOW_GROUP; }
static inline int low_get(const uint8_t *row, size_t group, size_t col) {
    uint8_t pair = row[group * LOW_GROUP + col % LOW_GROUP];
    return (col < LOW_GROUP ? pair & 15 : pair >> 4) - W4_ZERO;
}
/* The nibble must be 0 before. */
static inline void low_put(uint8_t *row, size_t group, size_t col, int value) {
    row[group * LOW_GROUP + col % LOW_GROUP] |= (uint8_t)((value + W4_ZERO) << (col < LOW_GROUP ? 0 : 4));
}

/* The same with 2 bits. */
static inline size_t low2_row_size(size_t groups) { return round_up(groups * (LOW2_GROUP + 2), 16); }
static inline size_t low2_scales_at(size_t groups) { return groups * LOW2_GROUP; }
static inline int low2_get(const uint8_t *row, size_t group, size_t col) {
    return (row[group * LOW2_GROUP + col % LOW2_GROUP] >> col / LOW2_GROUP * 2 & 3) - LOW2_ZERO;
}
static inline void low2_put(uint8_t *row, size_t group, size_t col, int value) {
    row[group * LOW2_GROUP + col % LOW2_GROUP] |= (uint8_t)((value + LOW2_ZERO) << col / LOW2_GROUP * 2);
}

static inline uint16_t half_at(const uint8_t *from) { return (uint16_t)(from[0] | from[1] << 8); }
static inline void put_half(uint8_t *to, uint16_t half) {
    to[0] = (uint8_t)half;
    to[1] = (uint8_t)(half >> 8);
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* fp16 to fp32, exactly (after F. Giesen's half_to_float_fast). */
static inline float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, bits = (uint32_t)(half & 0x7fff) << 13;
    uint32_t exponent = bits & (0x7c00u << 13);
    bits += (127 - 15) << 23;
    if (exponent == 0x7c00u << 13) bits += (128 - 16) << 23;                              /* infinity, NaN */
    if (exponent == 0) bits = bits_of(float_of(bits + (1 << 23)) - float_of(113u << 23)); /* zero, subnormal */
    return float_of(bits | sign);
}

#endif
