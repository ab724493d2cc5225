/* Memory that is allocated once and freed together. */
#ifndef BUFFERS_H
#define BUFFERS_H

#include <stddef.h>

struct buffers {
    void *last; /* a list: each block of memory begins with the address of the one before */
    int failed; /* whether there was no memory for one of them */
};

/* Zeros that begin at a cache line; NULL without memory. Pages of them take up memory only once they are written. */
void *zeros(struct buffers *buffers, size_t count, size_t size);
void buffers_free(struct buffers *buffers);

#endif
