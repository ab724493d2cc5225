/* What a LoRA adapter does to a weight matrix: see model/checkpoint/adapter.py. */
#include <math.h>

#include "bloom.h"

void bloom_add_product(uint64_t rows, uint64_t cols, uint64_t rank, const float *b, const float *a, float scale,
                       float *w) {
    for (uint64_t row = 0; row < rows; row++) {
        float *sum = w + row * cols;
        for (uint64_t inner = 0; inner < rank; inner++) {
            const float factor = scale * b[row * rank + inner], *from = a + inner * cols;
            for (uint64_t col = 0; col < cols; col++) sum[col] += factor * from[col];
        }
    }
}

void bloom_scale_rows(uint64_t rows, uint64_t cols, const float *lengths, float *w) {
    for (uint64_t row = 0; row < rows; row++) {
        float *values = w + row * cols;
        double squares = 0;
        for (uint64_t col = 0; col < cols; col++) squares += (double)values[col] * values[col];
        if (squares == 0) continue;
        const float factor = (float)(lengths[row] / sqrt(squares));
        for (uint64_t col = 0; col < cols; col++) values[col] *= factor;
    }
}
