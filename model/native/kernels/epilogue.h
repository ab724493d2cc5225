/* What happens to the rows of a matrix product before they are written. */
#ifndef EPILOGUE_H
#define EPILOGUE_H

#include "exp.h"

/* Write 16 rows, from `row` on, of one token. */
INLINE void store_rows(const struct matmul *task, size_t token, size_t row, vec16 value) {
    float *out = task->out + token * task->out_stride + row;
    if (task->bias) EACH value.part[p] += *(const vfloat *)(task->bias + row + p * LANES);
    if (task->epilogue == GELU) EACH value.part[p] = gelu(value.part[p]);
    if (task->epilogue == ADD) EACH value.part[p] += *(vfloat *)(out + p * LANES);
    store(out, &value);
}

/* Write one row of one token. */
INLINE void store_row(const struct matmul *task, size_t token, size_t row, float value) {
    float *out = task->out + token * task->out_stride + row;
    if (task->bias) value += task->bias[row];
    if (task->epilogue == GELU) {
        vfloat all = gelu(splat(value));
        value = all[0];
    }
    *out = task->epilogue == ADD ? *out + value : value;
}

#endif
