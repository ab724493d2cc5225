/* A mapped model, as the engine sees it. */
#ifndef FILE_H
#define FILE_H

#include "layout.h"

struct bloom_file {
    const uint8_t *base;
    size_t size;
    const struct bloom_header *header;
    const uint8_t *(*tensors)[BLOOM_KINDS]; /* [0]: of the model; [1 + layer]: of a layer */
};

#endif
