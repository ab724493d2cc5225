/* Threads that share the chunks of one task at a time. */
#ifndef POOL_H
#define POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Does one chunk. `thread` is less than the pool's size; 0 is the caller's. */
typedef void task_fn(void *context, size_t chunk, size_t thread);

struct pool {
    _Atomic uint64_t ticket; /* phase << 32 | next chunk; a thread takes the chunk by adding 1 */
    _Atomic(task_fn *) task;
    _Atomic(void *) context;
    _Atomic uint32_t chunks, done;
    _Atomic uint32_t epoch, sleepers; /* sleepers wait for epoch to change */
    _Atomic int stopping;
    _Atomic uint64_t alone; /* chunks of tasks that the caller did alone */
    uint32_t phase;
    size_t size;    /* threads, the caller included */
    size_t started; /* 0 until the first task */
    pthread_t *threads;
};

/* Prepare `size` threads, the caller included; they start with the first task. Returns -1 without memory. */
int pool_open(struct pool *pool, size_t size);
/* Stop the threads, and wait until they have ended. */
void pool_close(struct pool *pool);
/* Do chunks 0 to `chunks` - 1 of a task, and return when all are done. From one thread only. */
void pool_run(struct pool *pool, task_fn *task, void *context, size_t chunks);
/* A number that changes with each chunk; may be read by any thread. */
uint64_t pool_progress(const struct pool *pool);

#endif
