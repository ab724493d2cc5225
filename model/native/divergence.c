/* How far two distributions of the next token lie apart. */
#include <math.h>

#include "bloom.h"

static double largest_of(const float *values, uint64_t count) {
    double largest = -INFINITY;
    for (uint64_t i = 0; i < count; i++) largest = values[i] > largest ? values[i] : largest;
    return largest;
}

/* With P = softmax(p) and Q = softmax(q): sum P (log P - log Q) = sum P (p - q) - logsumexp(p) + logsumexp(q). */
double bloom_divergence(const float *p, const float *q, uint64_t count) {
    double largest_p = largest_of(p, count), largest_q = largest_of(q, count);
    double sum_p = 0, sum_q = 0, difference = 0;
    for (uint64_t i = 0; i < count; i++) {
        double weight = exp(p[i] - largest_p);
        sum_p += weight;
        sum_q += exp(q[i] - largest_q);
        difference += weight * ((double)p[i] - q[i]);
    }
    return difference / sum_p - (largest_p + log(sum_p)) + (largest_q + log(sum_q));
}
