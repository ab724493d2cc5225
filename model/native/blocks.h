/* Walking the blocks of a matrix for any number of tokens, with kernels for 1, 2, 4 and, where
 * there are registers for it, 8 at once. A block is read from memory once and stays in the cache. */
#define WALK(name)                                                                                 \
    static __attribute__((noinline)) void matmul_##name(const struct matmul *task, size_t first_block, size_t last_block) { \
        size_t size = block_size_##name(task->x.groups);                                           \
        for (size_t b = first_block; b < last_block; b++) {                                        \
            const uint8_t *block = task->weights + b * size;                                       \
            size_t row = b * BLOOM_ROWS, token = 0, left;                                          \
            for (; (left = task->tokens - token) >= TOKENS_AT_ONCE; token += TOKENS_AT_ONCE)       \
                block_##name(task, block, row, token, TOKENS_AT_ONCE);                             \
            if (TOKENS_AT_ONCE > 4 && left & 4) block_##name(task, block, row, token, 4), token += 4; \
            if (TOKENS_AT_ONCE > 2 && left & 2) block_##name(task, block, row, token, 2), token += 2; \
            if (left & 1) block_##name(task, block, row, token, 1);                                \
        }                                                                                          \
    }

WALK(w8)
WALK(w4)
