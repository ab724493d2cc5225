/* Makes a set of kernels; the last that the file of an instruction set includes. By then it has defined
 *
 *     LANES                  the floats of a register, before all includes
 *     TOKENS_AT_ONCE         the most tokens whose sums its registers hold: 1, 2, 4 or 8
 *     load_i8                see simd.h
 *     block_w8, block_w4, block_w5   16 rows of a matrix times `count` tokens, from `token` on. `count` is a
 *                            constant wherever they are called, so that the sums stay in registers.
 *     low_dot, low2_dot      see kernels.h
 */
#include "attention.h"
#include "epilogue.h"
#include "norm.h"
#include "quantise.h"

/* Walk over the blocks of a matrix. A block is read from memory once, and stays in the cache for all tokens. */
#define MATMUL_BLOCKS(format)                                                                            \
    static __attribute__((noinline)) void matmul_##format(const struct matmul *task, size_t first_block, \
                                                          size_t last_block) {                           \
        size_t size = block_size_##format(task->x.groups);                                               \
        for (size_t b = first_block; b < last_block; b++) {                                              \
            const uint8_t *block = task->weights + b * size;                                             \
            size_t row = b * BLOOM_ROWS, token = 0, left;                                                \
            for (; (left = task->tokens - token) >= TOKENS_AT_ONCE; token += TOKENS_AT_ONCE)             \
                block_##format(task, block, row, token, TOKENS_AT_ONCE);                                 \
            if (TOKENS_AT_ONCE > 4 && left & 4) block_##format(task, block, row, token, 4), token += 4;  \
            if (TOKENS_AT_ONCE > 2 && left & 2) block_##format(task, block, row, token, 2), token += 2;  \
            if (TOKENS_AT_ONCE > 1 && left & 1) block_##format(task, block, row, token, 1);              \
        }                                                                                                \
    }

MATMUL_BLOCKS(w8)
MATMUL_BLOCKS(w4)
MATMUL_BLOCKS(w5)

/* Unquantised weights: for comparison with other implementations, not for speed. */
static void matmul_f32(const struct matmul *task, size_t first_block, size_t last_block) {
    size_t stride = padded(task->cols);
    size_t last = last_block * BLOOM_ROWS < task->rows ? last_block * BLOOM_ROWS : task->rows;
    for (size_t row = first_block * BLOOM_ROWS; row < last; row++) {
        const float *weights = (const float *)task->weights + row * stride;
        for (size_t token = 0; token < task->tokens; token++) {
            const float *x = task->x_f32 + token * task->x_f32_stride;
            vec16 sum = {0};
            for (size_t i = 0; i < stride; i += VECTOR) {
                vec16 a = load(weights + i), b = load(x + i);
                EACH sum.part[p] += a.part[p] * b.part[p];
            }
            store_row(task, token, row, sum_of(&sum));
        }
    }
}

static void matmul(const struct matmul *task, size_t first_block, size_t last_block) {
    switch (task->format) {
    case BLOOM_W8: matmul_w8(task, first_block, last_block); break;
    case BLOOM_W4: matmul_w4(task, first_block, last_block); break;
    case BLOOM_W5: matmul_w5(task, first_block, last_block); break;
    default: matmul_f32(task, first_block, last_block);
    }
}

#define KERNELS(set) \
    const struct kernels kernels_##set = {#set, matmul, quantise, layer_norm, attend, low_dot, low2_dot, sum_exp}
