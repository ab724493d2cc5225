#include "buffers.h"

#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

void *zeros(struct buffers *buffers, size_t count, size_t size) {
    char *block = count <= (SIZE_MAX - ALIGNMENT) / size ? calloc(count * size + ALIGNMENT, 1) : NULL;
    if (!block) {
        buffers->failed = 1;
        return NULL;
    }
    *(void **)(void *)block = buffers->last;
    buffers->last = block;
    return block + (ALIGNMENT - (uintptr_t)block % ALIGNMENT); /* calloc aligns to 16: the address fits before it */
}

void buffers_free(struct buffers *buffers) {
    for (void *block = buffers->last, *before; block; block = before) {
        before = *(void **)block;
        free(block);
    }
    *buffers = (struct buffers){0};
}
