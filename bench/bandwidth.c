/* The read bandwidth of this machine, in GB/s: threads that each sum a part of 512 MB. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t lanes __attribute__((vector_size(64)));

static const size_t SIZE = (size_t)1 << 29;
static char *memory;
static int threads;
static volatile uint64_t sink;

static void *sum(void *argument) {
    size_t each = SIZE / (size_t)threads / 256 * 256;
    const lanes *from = (const lanes *)(const void *)(memory + (size_t)(intptr_t)argument * each);
    lanes total[4] = {0};
    for (size_t i = 0; i < each / 64; i += 4)
        for (int k = 0; k < 4; k++) total[k] += from[i + (size_t)k];
    total[0] += total[1] + total[2] + total[3];
    sink += total[0][0];
    return NULL;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
    threads = argc > 1 ? atoi(argv[1]) : 1;
    memory = aligned_alloc(4096, SIZE);
    if (!memory || threads < 1 || threads > 64) return 1;
    memset(memory, 1, SIZE);
    double best = 0;
    for (int round = 0; round < 6; round++) {
        pthread_t thread[64];
        double started = now();
        for (int i = 1; i < threads; i++) pthread_create(&thread[i], NULL, sum, (void *)(intptr_t)i);
        sum(NULL);
        for (int i = 1; i < threads; i++) pthread_join(thread[i], NULL);
        double speed = (double)SIZE / 1e9 / (now() - started);
        if (speed > best) best = speed;
    }
    printf("%.2f\n", best);
    return 0;
}
