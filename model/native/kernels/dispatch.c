/* Chooses the instruction set when an engine is made. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__)
static int runs_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
static int runs_avx2(void) {
    /* Every processor with AVX2 converts fp16 too (F16C), for which GCC's list has no name. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
static int runs_dotprod(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
static int runs_neon(void) { return 1; }
#endif
static int runs_portable(void) { return 1; }

/* The fastest first. */
static const struct {
    const struct kernels *set;
    int (*runs)(void);
} SETS[] = {
#if defined(__x86_64__)
    {&kernels_avx512, runs_avx512},
    {&kernels_avx2, runs_avx2},
#elif defined(__aarch64__)
    {&kernels_dotprod, runs_dotprod},
    {&kernels_neon, runs_neon},
#endif
    {&kernels_portable, runs_portable},
};

const struct kernels *kernels_find(const char *name) {
    for (size_t i = 0; i < sizeof SETS / sizeof *SETS; i++)
        if ((!name || !strcmp(SETS[i].set->name, name)) && SETS[i].runs()) return SETS[i].set;
    return NULL;
}
