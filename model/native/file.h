/* A mapped model, as the engine sees it. */
#ifndef FILE_H
#define FILE_H

#include "layout.h"

struct bloom_file {
    const uint8_t *base;
    size_t size;
    const struct bloom_header *header;
    int has_head;                                       /* of its own: it is not the word embedding */
    const struct bloom_tensor *(*tensors)[BLOOM_KINDS]; /* [0]: of the whole model; [1 + layer]: of a layer */
};

/* The crc32 of some bytes, with zeros in place of the four at `hole`. */
uint32_t crc32_of(const uint8_t *data, size_t size, size_t hole);

/* `index` is 0 for the tensors of the whole model, and 1 + layer for those of a layer. */
static inline const struct bloom_tensor *entry_of(const struct bloom_file *file, size_t index, enum bloom_kind kind) {
    return file->tensors[index][kind];
}
/* NULL for a tensor that the file lacks. */
static inline const uint8_t *tensor_of(const struct bloom_file *file, size_t index, enum bloom_kind kind) {
    const struct bloom_tensor *tensor = entry_of(file, index, kind);
    return tensor ? file->base + tensor->offset : NULL;
}
static inline const float *vector_of(const struct bloom_file *file, size_t index, enum bloom_kind kind) {
    return (const float *)(const void *)tensor_of(file, index, kind);
}

#endif
