/* A few threads that share the chunks of one task after another. */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Do one chunk; `thread` is below the pool's size, and 0 is the caller's. */
typedef void task_fn(void *context, size_t chunk, size_t thread);

struct pool {
    _Atomic uint64_t ticket; /* phase << 32 | next chunk: taking a chunk fails once the phase is over */
    _Atomic(task_fn *) task;
    _Atomic(void *) context;
    _Atomic uint32_t chunks, done;
    _Atomic uint32_t epoch, sleepers; /* epoch is what sleepers wait on */
    _Atomic int stopping;
    _Atomic uint64_t alone;  /* chunks that the caller did without the others */
    uint32_t phase;
    size_t size;             /* threads, the caller included */
    size_t started;          /* 0 until the first task */
    pthread_t *threads;
};

int pool_open(struct pool *pool, size_t size); /* starts no thread yet; -1 without memory */
void pool_close(struct pool *pool);
void pool_run(struct pool *pool, task_fn *task, void *context, size_t chunks);
/* A number that changes with each chunk that is begun; from any thread. */
uint64_t pool_progress(const struct pool *pool);

#endif
