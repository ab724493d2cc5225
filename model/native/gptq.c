/* Weights as GPTQ's exporters pack them: see model/checkpoint/gptq.py.
 *
 * Several codes share a 32-bit word, the first of them in its lowest bits. qweight [cols / codes][rows] packs
 * neighbouring columns of a row, and qzeros [groups][rows / codes] neighbouring rows. */
#include <math.h>
#include <string.h>

#include "bloom.h"

static uint32_t code_at(const uint8_t *words, uint64_t word, uint64_t index, uint32_t bits) {
    uint32_t packed;
    memcpy(&packed, words + word * sizeof packed, sizeof packed); /* aligned or not */
    return packed >> (index * bits) & ((1u << bits) - 1);
}

static uint64_t group_of(const struct bloom_gptq *matrix, uint64_t col) {
    if (!matrix->group_of_col) return col / matrix->group_size;
    int32_t group;
    memcpy(&group, matrix->group_of_col + col * sizeof group, sizeof group);
    return (uint64_t)(int64_t)group; /* a negative one becomes too large */
}

int bloom_gptq_check(const struct bloom_gptq *matrix) {
    const uint32_t codes = 32 / matrix->bits, last = (1u << matrix->bits) - 1;
    for (uint64_t i = 0; i < matrix->groups * matrix->rows; i++)
        if (!isfinite(matrix->scales[i])) return BLOOM_GPTQ_SCALE;
    for (uint64_t col = 0; col < matrix->cols; col++)
        if (group_of(matrix, col) >= matrix->groups) return BLOOM_GPTQ_GROUP;
    int others = 0;
    for (uint64_t i = 0; i < matrix->groups * matrix->rows; i++) {
        uint32_t stored = code_at(matrix->qzeros, i / codes, i % codes, matrix->bits);
        if (matrix->zero_offset && stored == last) return BLOOM_GPTQ_ZERO;
        others |= stored + matrix->zero_offset != 1u << (matrix->bits - 1);
    }
    return others ? BLOOM_GPTQ_ASYMMETRIC : 0;
}

void bloom_gptq_rows(const struct bloom_gptq *matrix, uint64_t first, uint64_t count, float *values, float *scales) {
    const uint32_t codes = 32 / matrix->bits;
    const uint64_t rows = matrix->rows, cols = matrix->cols, ours = (cols + BLOOM_GROUP - 1) / BLOOM_GROUP;
    for (uint64_t col = 0; col < cols; col++) {
        const uint64_t group = group_of(matrix, col), starts = col % BLOOM_GROUP == 0;
        for (uint64_t i = 0; i < count; i++) {
            const uint64_t row = first + i, at = group * rows + row;
            const int code = (int)code_at(matrix->qweight, col / codes * rows + row, col % codes, matrix->bits);
            const int zero = (int)(code_at(matrix->qzeros, at / codes, at % codes, matrix->bits) + matrix->zero_offset);
            values[i * cols + col] = matrix->scales[at] * (float)(code - zero);
            if (starts) scales[i * ours + col / BLOOM_GROUP] = matrix->scales[at];
        }
    }
}
