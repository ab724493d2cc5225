/* The readable truth: what the other sets do, in plain C. */
#define LANES 4
#include "generic.h"

INLINE void load_i8(const int8_t *from, wide *out) {
    float lanes[16];
    for (int i = 0; i < 16; i++) lanes[i] = (float)from[i];
    *out = load(lanes);
}

/* One block of 16 rows: products are summed as whole numbers within a group, then scaled. */
static void matmul_w8(const struct matmul *task, size_t first_block, size_t last_block) {
    size_t groups = task->x.groups;
    for (size_t b = first_block; b < last_block; b++) {
        const uint8_t *block = task->weights + b * block_size_w8(groups);
        const uint16_t *scales = (const uint16_t *)block;
        const int8_t *tiles = (const int8_t *)block + scales_size(groups);
        for (size_t token = 0; token < task->tokens; token++) {
            float rows[16] = {0};
            for (size_t g = 0; g < groups; g++) {
                const int8_t *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
                for (size_t row = 0; row < 16; row++) {
                    int32_t sum = 0;
                    for (size_t i = 0; i < BLOOM_GROUP; i++)
                        sum += x[i] * tiles[g * 1024 + i / 4 * 64 + row * 4 + i % 4];
                    float scale = half_to_float(scales[g * 16 + row]) * task->x.scale[token * groups + g];
                    rows[row] = fmaf((float)sum, scale, rows[row]);
                }
            }
            finish(task, token, b * BLOOM_ROWS, load(rows));
        }
    }
}

static void matmul_w4(const struct matmul *task, size_t first_block, size_t last_block) {
    size_t groups = task->x.groups;
    for (size_t b = first_block; b < last_block; b++) {
        const uint8_t *block = task->weights + b * block_size_w4(groups);
        const uint16_t *scales = (const uint16_t *)block;
        const uint8_t *tiles = block + scales_size(groups);
        for (size_t token = 0; token < task->tokens; token++) {
            float rows[16] = {0};
            for (size_t g = 0; g < groups; g++) {
                const int8_t *x = task->x.q + (token * groups + g) * BLOOM_GROUP;
                for (size_t row = 0; row < 16; row++) {
                    int32_t sum = 0;
                    for (size_t i = 0; i < BLOOM_GROUP; i++) {
                        uint8_t pair = tiles[g * 512 + i / 8 * 64 + row * 4 + i % 4];
                        sum += x[i] * ((i / 4 % 2 ? pair >> 4 : pair & 15) - 8);
                    }
                    float scale = half_to_float(scales[g * 16 + row]) * task->x.scale[token * groups + g];
                    rows[row] = fmaf((float)sum, scale, rows[row]);
                }
            }
            finish(task, token, b * BLOOM_ROWS, load(rows));
        }
    }
}

/* Eight lanes, each 4 columns of the lower nibbles and 4 of the upper; the offset is in lane 0. */
static float low(const uint8_t *row, const struct activations *x) {
    const uint16_t *scales = (const uint16_t *)(row + x->groups * BLOOM_GROUP / 2);
    float lanes[8] = {0};
    for (size_t g = 0; g < x->groups; g++) {
        const int8_t *q = x->q + g * BLOOM_GROUP;
        int32_t sums[8] = {-8 * x->sum[g]};
        for (size_t i = 0; i < 32; i++)
            sums[i / 4] += (row[g * 32 + i] & 15) * q[i] + (row[g * 32 + i] >> 4) * q[i + 32];
        float scale = half_to_float(scales[g]) * x->scale[g];
        for (int lane = 0; lane < 8; lane++) lanes[lane] = fmaf((float)sums[lane], scale, lanes[lane]);
    }
    return sum_of_8(lanes);
}

KERNELS(portable);

#if defined(__x86_64__)
static int runs_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma");
}
static int runs_avx2(void) {
    /* Every processor with AVX2 converts fp16; the compiler's list has no name for it. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static const struct { const struct kernels *set; int (*runs)(void); } SETS[] = {
    {&kernels_avx512, runs_avx512}, {&kernels_avx2, runs_avx2},
};
#elif defined(__aarch64__)
#include <sys/auxv.h>
static int runs_dotprod(void) { return (getauxval(AT_HWCAP) & 1 << 20) != 0; } /* HWCAP_ASIMDDP */
static int runs_neon(void) { return 1; }
static const struct { const struct kernels *set; int (*runs)(void); } SETS[] = {
    {&kernels_dotprod, runs_dotprod}, {&kernels_neon, runs_neon},
};
#else
static const struct { const struct kernels *set; int (*runs)(void); } SETS[] = {{0, 0}};
#endif

const struct kernels *kernels_find(const char *name) {
    for (size_t i = 0; i < sizeof SETS / sizeof *SETS; i++)
        if (SETS[i].set && (!name || !strcmp(SETS[i].set->name, name)) && SETS[i].runs()) return SETS[i].set;
    return !name || !strcmp(name, "portable") ? &kernels_portable : NULL;
}
