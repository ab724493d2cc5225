/* Threads for tasks that take microseconds: between two tasks they spin for a moment, then sleep.
 *
 * A task ends when all its chunks are done, whoever did them. So a thread that the system does not run delays the
 * others only if it has taken a chunk, and then by that chunk. Threads start with the first task, so that a process may
 * fork before.
 */
#include "pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 4000 }; /* tens of microseconds: more than lie between two phases of a step */

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex(_Atomic uint32_t *word, int operation, uint32_t value) {
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Do chunks of the current phase until none is left. */
static void help(struct pool *pool, size_t thread) {
    for (;;) {
        uint64_t ticket = atomic_load(&pool->ticket);
        uint32_t chunk = (uint32_t)ticket;
        task_fn *task = atomic_load_explicit(&pool->task, memory_order_acquire);
        void *context = atomic_load_explicit(&pool->context, memory_order_acquire);
        if (chunk >= atomic_load_explicit(&pool->chunks, memory_order_acquire)) return;
        /* If a new phase began meanwhile, the fields may be of two phases, and this fails: a thread that reads a field
         * of the new phase (acquire) sees the ticket that was stored before it (release). On ARM, plain stores could be
         * seen in another order. */
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1)) continue;
        task(context, chunk, thread);
        atomic_fetch_add(&pool->done, 1);
    }
}

struct start {
    struct pool *pool;
    size_t thread;
};

static void *work(void *argument) {
    struct start *start = argument;
    struct pool *pool = start->pool;
    size_t thread = start->thread;
    free(start);
    for (;;) {
        /* The epoch is read first. pool_close stores `stopping` first, so that its wake is never missed. */
        uint32_t epoch = atomic_load(&pool->epoch);
        if (atomic_load(&pool->stopping)) return NULL;
        help(pool, thread);
        int spins = SPINS;
        while (spins-- && atomic_load(&pool->epoch) == epoch) pause_briefly();
        if (atomic_load(&pool->epoch) != epoch) continue;
        atomic_fetch_add(&pool->sleepers, 1);
        futex(&pool->epoch, FUTEX_WAIT, epoch);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
}

static void wake(struct pool *pool) {
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->sleepers)) futex(&pool->epoch, FUTEX_WAKE, INT_MAX);
}

int pool_open(struct pool *pool, size_t size) {
    *pool = (struct pool){.size = size};
    pool->threads = calloc(size, sizeof *pool->threads);
    return pool->threads ? 0 : -1;
}

/* The threads block all signals, which are left to the threads of the program. */
static void start_threads(struct pool *pool) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pool->started = 1; pool->started < pool->size; pool->started++) {
        struct start *start = malloc(sizeof *start);
        if (!start) break;
        *start = (struct start){pool, pool->started};
        if (pthread_create(&pool->threads[pool->started], NULL, work, start)) {
            free(start);
            break; /* fewer threads give the same results, only later */
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pool_close(struct pool *pool) {
    atomic_store(&pool->stopping, 1);
    wake(pool);
    for (size_t i = 1; i < pool->started; i++) pthread_join(pool->threads[i], NULL);
    free(pool->threads);
}

void pool_run(struct pool *pool, task_fn *task, void *context, size_t chunks) {
    if (chunks < 2 || pool->size < 2) {
        /* Only the caller writes `alone`, so a plain store will do. */
        uint64_t alone = atomic_load_explicit(&pool->alone, memory_order_relaxed);
        for (size_t chunk = 0; chunk < chunks; chunk++) {
            task(context, chunk, 0);
            atomic_store_explicit(&pool->alone, ++alone, memory_order_relaxed);
        }
        return;
    }
    if (!pool->started) start_threads(pool);
    /* While the fields change, the ticket is past the last chunk, so that no thread takes one. */
    atomic_store(&pool->ticket, (uint64_t)++pool->phase << 32 | UINT32_MAX);
    atomic_store(&pool->done, 0);
    atomic_store_explicit(&pool->task, task, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->chunks, (uint32_t)chunks, memory_order_release);
    atomic_store(&pool->ticket, (uint64_t)++pool->phase << 32);
    wake(pool);
    help(pool, 0);
    for (int spins = 0; atomic_load(&pool->done) != chunks; spins++) {
        if (spins < SPINS) pause_briefly();
        else syscall(SYS_sched_yield);
    }
}

uint64_t pool_progress(const struct pool *pool) {
    /* Both only grow, so their sum never comes back to an earlier value. */
    return atomic_load_explicit(&pool->ticket, memory_order_relaxed) +
           atomic_load_explicit(&pool->alone, memory_order_relaxed);
}
