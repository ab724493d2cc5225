/* Opening a baked model: it is mapped, and its header is checked, so that no later read is out of bounds, whatever
 * the bytes are. The weights themselves are not read, which would take seconds. */
#include "file.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t MAGIC[8] = {0x89, 'B', 'L', 'O', 'O', 'M', '\r', '\n'};

static int refuse(char *error, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, size, format, arguments);
    va_end(arguments);
    return -1;
}

uint32_t crc32_of(const uint8_t *data, size_t size, size_t hole) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= i >= hole && i < hole + 4 ? 0 : data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* Whether a section lies behind the header and within the file, at a multiple of `step`. */
static int inside(uint64_t offset, uint64_t size, const struct bloom_header *header, uint64_t step) {
    return offset % step == 0 && offset >= header->header_size && offset <= header->file_size &&
           size <= header->file_size - offset;
}

/* The formats that may take the place of one another: the layers' weights, and the lower plane. */
static uint32_t family_of(uint32_t format) {
    if (format == BLOOM_W8 || format == BLOOM_W5) return BLOOM_W4;
    return format == BLOOM_LOW2 ? BLOOM_LOW : format;
}

/* The rows, columns and family of formats that a tensor must have; 0 if there is no tensor of this kind at these
 * bits. */
static int expected(const struct bloom_header *h, uint32_t kind, struct bloom_tensor *out) {
    uint32_t matrix = h->bits == 32 ? BLOOM_F32 : BLOOM_W4;
    uint32_t hidden = h->hidden;
    *out = (struct bloom_tensor){.kind = kind, .format = BLOOM_F32, .rows = 1, .cols = (uint32_t)padded(hidden)};
    switch (kind) {
    case BLOOM_EMBED_HIGH:
    case BLOOM_HEAD_HIGH: out->format = BLOOM_W4, out->rows = h->vocab_rows, out->cols = hidden; break;
    case BLOOM_EMBED_LOW:
    case BLOOM_HEAD_LOW: out->format = BLOOM_LOW, out->rows = h->vocab_rows, out->cols = hidden; break;
    case BLOOM_EMBED_NORM:
    case BLOOM_HEAD_NORM: out->cols = (uint32_t)padded(h->vocab_rows); break;
    case BLOOM_EMBED_F32:
    case BLOOM_HEAD_F32: out->rows = h->vocab_rows, out->cols = hidden; break;
    case BLOOM_QKV_WEIGHT: out->format = matrix, out->rows = 3 * hidden, out->cols = hidden; break;
    case BLOOM_DENSE_WEIGHT: out->format = matrix, out->rows = hidden, out->cols = hidden; break;
    case BLOOM_UP_WEIGHT: out->format = matrix, out->rows = 4 * hidden, out->cols = hidden; break;
    case BLOOM_DOWN_WEIGHT: out->format = matrix, out->rows = hidden, out->cols = 4 * hidden; break;
    case BLOOM_QKV_BIAS: out->cols = (uint32_t)padded(3 * hidden); break;
    case BLOOM_UP_BIAS: out->cols = (uint32_t)padded(4 * hidden); break;
    default: break;
    }
    int is_plane = kind <= BLOOM_EMBED_NORM || (kind >= BLOOM_HEAD_HIGH && kind <= BLOOM_HEAD_NORM);
    return h->bits == 32 ? !is_plane : kind != BLOOM_EMBED_F32 && kind != BLOOM_HEAD_F32;
}

static int in_layer(uint32_t kind) { return kind >= BLOOM_LN1_WEIGHT && kind <= BLOOM_DOWN_BIAS; }
static int of_head(uint32_t kind) { return kind >= BLOOM_HEAD_HIGH && kind <= BLOOM_HEAD_F32; }

/* An upper plane has 4 bits, other matrices any of their family. */
static int has_format(const struct bloom_tensor *tensor, const struct bloom_tensor *wanted) {
    int exactly = tensor->kind == BLOOM_EMBED_HIGH || tensor->kind == BLOOM_HEAD_HIGH;
    return (exactly ? tensor->format : family_of(tensor->format)) == wanted->format;
}

static int check_tensors(struct bloom_file *file, char *error, size_t size) {
    const struct bloom_header *h = file->header;
    const struct bloom_tensor *tensors = (const void *)(file->base + sizeof *h);
    file->tensors = calloc((size_t)h->layers + 1, sizeof *file->tensors);
    if (!file->tensors) return refuse(error, size, "there is no memory for the table of tensors");
    for (uint32_t i = 0; i < h->tensors; i++) {
        const struct bloom_tensor *t = &tensors[i];
        struct bloom_tensor wanted;
        if (t->kind >= BLOOM_KINDS || !expected(h, t->kind, &wanted) || t->layer >= (in_layer(t->kind) ? h->layers : 1))
            return refuse(error, size, "tensor %u is of a kind that a BLOOM of its size does not have", i);
        if (!has_format(t, &wanted) || t->rows != wanted.rows || t->cols != wanted.cols ||
            t->size != bloom_format_size(t->format, t->rows, t->cols))
            return refuse(error, size, "tensor %u does not have the shape that the header asks for", i);
        if (!inside(t->offset, t->size, h, CACHE_LINE))
            return refuse(error, size, "tensor %u reaches beyond the end of the file", i);
        const struct bloom_tensor **place = &file->tensors[in_layer(t->kind) ? t->layer + 1 : 0][t->kind];
        if (*place) return refuse(error, size, "tensor %u is there twice", i);
        *place = t;
        file->has_head |= of_head(t->kind);
    }
    for (uint32_t layer = 0; layer <= h->layers; layer++)
        for (uint32_t kind = 0; kind < BLOOM_KINDS; kind++) {
            struct bloom_tensor wanted;
            if (expected(h, kind, &wanted) && in_layer(kind) == (layer > 0) && (file->has_head || !of_head(kind)) &&
                !file->tensors[layer][kind])
                return refuse(error, size, "the weights are not all there");
        }
    return 0;
}

static int check(struct bloom_file *file, uint64_t size, char *error, size_t error_size) {
    const struct bloom_header *h = file->header;
    if (size < sizeof *h || memcmp(h->magic, MAGIC, sizeof MAGIC))
        return refuse(error, error_size, "it is not a baked model");
    if (h->byte_order != 0x01020304)
        return refuse(error, error_size, "it was written on a machine of the other byte order");
    if (h->version != BLOOM_VERSION)
        return refuse(error, error_size, "it is of version %u, and this piBLOOM reads version %d; bake it again",
                      h->version, BLOOM_VERSION);
    if (h->file_size != size)
        return refuse(error, error_size,
                      "it has %llu bytes, but should have %llu: it was cut off, or is still being copied",
                      (unsigned long long)size, (unsigned long long)h->file_size);
    if (h->header_size < sizeof *h || h->header_size > size || h->header_size > 1u << 24 ||
        h->tensors > (h->header_size - sizeof *h) / sizeof(struct bloom_tensor) ||
        crc32_of(file->base, h->header_size, offsetof(struct bloom_header, header_crc)) != h->header_crc)
        return refuse(error, error_size, "its header is damaged");
    if (!inside(h->tokenizer_offset, h->tokenizer_size, h, CACHE_LINE) ||
        !inside(h->metadata_offset, h->metadata_size, h, 1))
        return refuse(error, error_size, "its tokenizer or description reaches beyond the end of the file");
    if (h->bits == 0 && h->tensors == 0) return 0; /* a tokenizer alone */
    if ((h->bits != 4 && h->bits != 8 && h->bits != 32) || h->hidden < 1 || h->hidden > 1 << 16 || h->heads < 1 ||
        h->heads > h->hidden || h->hidden % h->heads || h->hidden / h->heads > 1024 || h->layers < 1 ||
        h->layers > 1024 || h->vocab_rows < 1 || h->vocab_rows > 1 << 24 || h->n_vocab < 1 ||
        h->n_vocab > h->vocab_rows || h->max_context < 1 || h->max_context > 1 << 20 ||
        !(h->epsilon > 0 && h->epsilon < 1))
        return refuse(error, error_size, "its header describes no BLOOM that can be run");
    return check_tensors(file, error, error_size);
}

struct bloom_file *bloom_file_open(const char *path, char *error, size_t error_size) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe must not block */
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status)) {
        refuse(error, error_size, "it cannot be opened: %m"); /* errno in words */
        if (descriptor >= 0) close(descriptor);
        return NULL;
    }
    struct bloom_file *file = calloc(1, sizeof *file);
    void *base = MAP_FAILED;
    if (file && S_ISREG(status.st_mode) && status.st_size > 0)
        base = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (base == MAP_FAILED) {
        free(file);
        refuse(error, error_size, "it is empty, no file, or there is no room to map it");
        return NULL;
    }
    file->base = base;
    file->size = (size_t)status.st_size;
    file->header = base;
    if (check(file, file->size, error, error_size)) {
        bloom_file_close(file);
        return NULL;
    }
    return file;
}

void bloom_file_close(struct bloom_file *file) {
    if (!file) return;
    munmap((void *)file->base, file->size);
    free(file->tensors);
    free(file);
}

const struct bloom_header *bloom_file_header(const struct bloom_file *file) { return file->header; }
