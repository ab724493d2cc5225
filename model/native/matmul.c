#include "matmul.h"

struct phase {
    const struct matmul *task;
    const struct kernels *kernels;
    size_t blocks, chunks;
};

static void matmul_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct phase *phase = context;
    phase->kernels->matmul(phase->task, phase->blocks * chunk / phase->chunks,
                           phase->blocks * (chunk + 1) / phase->chunks);
}

void matmul_run(struct pool *pool, const struct kernels *kernels, const struct matmul *task) {
    size_t blocks = blocks_of(task->rows);
    /* Long runs of memory for each thread, but short enough that no thread waits long for the last one. */
    size_t chunks = pool->size * 8;
    if (blocks > chunks * 64) chunks *= 4;
    if (chunks > blocks) chunks = blocks;
    struct phase phase = {task, kernels, blocks, chunks};
    pool_run(pool, matmul_chunk, &phase, chunks);
}
