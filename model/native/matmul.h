/* A matrix product shared among threads. */
#ifndef MATMUL_H
#define MATMUL_H

#include "kernels/kernels.h"
#include "pool.h"

void matmul_run(struct pool *pool, const struct kernels *kernels, const struct matmul *task);

#endif
