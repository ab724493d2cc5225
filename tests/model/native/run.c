/* Runs a baked model in one process of any kind: under a sanitizer, or as another processor.
 *
 *     run MODEL ISA THREADS TOKEN...      prints the bits of what comes out
 *     run --encode MODEL < TEXT           prints ids and offsets
 *     run --fuzz MODEL SEED COUNT         damages the file COUNT times and uses what still opens
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "file.h"
#include "tokenizer.h"

static char error[256];

/* FNV-1a over the bits of all logits: equal only if all are. */
static uint64_t fingerprint(struct bloom_engine *engine, int32_t slot, uint32_t vocabulary) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint32_t id = 0; id < vocabulary; id++) {
        union {
            float f;
            uint32_t u;
        } logit;
        bloom_at(engine, slot, &id, 1, &logit.f);
        hash = (hash ^ logit.u) * 0x100000001b3u;
    }
    return hash;
}

static uint8_t **open_pages(struct bloom_engine *engine, uint32_t tokens) {
    uint32_t count = tokens / BLOOM_PAGE + 1;
    uint8_t **pages = calloc(count + 1, sizeof *pages);
    for (uint32_t i = 0; pages && i < count; i++) pages[i] = aligned_alloc(64, bloom_engine_page_size(engine));
    return pages;
}

static void close_pages(uint8_t **pages) {
    for (uint8_t **page = pages; *page; page++) free(*page);
    free(pages);
}

static int run(const char *path, const char *isa, uint32_t threads, uint32_t *tokens, uint32_t count) {
    struct bloom_file *file = bloom_file_open(path, error, sizeof error);
    if (!file) return fprintf(stderr, "%s\n", error), 1;
    struct bloom_engine *engine =
        bloom_engine_new(file, threads, 64, 4, strcmp(isa, "best") ? isa : NULL, error, sizeof error);
    if (!engine) return fprintf(stderr, "%s\n", error), 1;
    uint32_t n_vocab = bloom_file_header(file)->n_vocab, half = count / 2;
    uint8_t **pages = open_pages(engine, count + 8), **others = open_pages(engine, count + 8);
    struct bloom_work first = {tokens, half, 0, pages, -1, 0};
    struct bloom_work both[2] = {{tokens + half, count - half, half, pages, 0, 1}, {tokens, count, 0, others, 1, 1}};
    if (bloom_forward(engine, &first, 1) || bloom_forward(engine, both, 2)) return fprintf(stderr, "refused\n"), 1;
    uint32_t ids[5], skip = 2;
    float logits[5];
    bloom_top(engine, 0, 5, &skip, 1, ids, logits);
    printf("%s top", bloom_engine_isa(engine));
    for (int i = 0; i < 5; i++) printf(" %u:%a", ids[i], logits[i]);
    printf("\nlogsumexp %.9f\n", bloom_logsumexp(engine, 0, 0.8, &skip, 1));
    uint64_t chunked = fingerprint(engine, 0, n_vocab), whole = fingerprint(engine, 1, n_vocab);
    printf("logits %016" PRIx64 " %s\n", chunked, chunked == whole ? "chunked as whole" : "DIFFER");
    for (int step = 0; step < 3; step++) { /* one token at a time, of two sequences */
        struct bloom_work next[2] = {{ids, 1, count + (uint32_t)step, pages, 0, 1},
                                     {ids + 1, 1, count + (uint32_t)step, others, 1, 1}};
        if (bloom_forward(engine, next, 2)) return 1;
        bloom_top(engine, 0, 1, NULL, 0, ids, logits);
        printf("next %u:%a\n", ids[0], logits[0]);
    }
    close_pages(pages);
    close_pages(others);
    bloom_engine_free(engine);
    bloom_file_close(file);
    return 0;
}

static int encode(const char *path) {
    static uint8_t text[1 << 20];
    static uint32_t ids[1 << 20], starts[1 << 20], ends[1 << 20];
    struct bloom_file *file = bloom_file_open(path, error, sizeof error);
    if (!file) return fprintf(stderr, "%s\n", error), 1;
    const uint8_t *tokenizer = (const uint8_t *)bloom_file_header(file) + bloom_file_header(file)->tokenizer_offset;
    if (bloom_tokenizer_check(tokenizer, bloom_file_header(file)->tokenizer_size)) return 1;
    size_t length = fread(text, 1, sizeof text, stdin);
    int64_t count = bloom_encode(tokenizer, text, length, ids, starts, ends);
    for (int64_t i = 0; i < count; i++) printf("%u %u %u\n", ids[i], starts[i], ends[i]);
    bloom_file_close(file);
    return 0;
}

static uint64_t state;

static uint32_t draw(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static void use_tokenizer(const struct bloom_file *file) {
    const struct bloom_header *h = bloom_file_header(file);
    const uint8_t *tokenizer = (const uint8_t *)h + h->tokenizer_offset;
    if (bloom_tokenizer_check(tokenizer, h->tokenizer_size)) return;
    uint8_t text[200];
    uint32_t ids[200], starts[200], ends[200], size;
    static const char *const parts[] = {"Hello",        " ",    "</s>",     "<", "\xe4\xbd\xa0",
                                        "\xe2\x80\xa6", "\xff", "\xf0\x9f", ".", "a"};
    size_t length = 0;
    while (length < 150) {
        if (draw(2)) text[length++] = (uint8_t)draw(256);
        else {
            const char *part = parts[draw(10)];
            memcpy(text + length, part, strlen(part));
            length += strlen(part);
        }
    }
    int64_t count = bloom_encode(tokenizer, text, length, ids, starts, ends);
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *bytes = bloom_token(tokenizer, ids[i], &size);
        for (uint32_t b = 0; bytes && b < size; b++) state += bytes[b];
    }
}

static void use_engine(const struct bloom_file *file, int step) {
    struct bloom_engine *engine = bloom_engine_new(file, 1 + draw(2), 8, 2, NULL, error, sizeof error);
    if (!engine) return;
    if (bloom_engine_page_size(engine) < 1 << 24) {
        uint8_t **pages = open_pages(engine, 8);
        uint32_t tokens[6], ids[4], skip = draw(300);
        float logits[4];
        for (int i = 0; i < 6; i++) tokens[i] = draw(step % 8 ? bloom_file_header(file)->vocab_rows : 1 << 24);
        struct bloom_work work = {tokens, 1 + draw(6), 0, pages, 0, 1};
        if (!bloom_forward(engine, &work, 1)) {
            bloom_top(engine, 0, 1 + draw(4), &skip, 1, ids, logits);
            bloom_logsumexp(engine, 0, 1, &skip, 1);
            bloom_at(engine, 0, tokens, 4, logits);
        }
        close_pages(pages);
    }
    bloom_engine_free(engine);
}

static int fuzz(const char *path, uint64_t seed, int count) {
    static uint8_t whole[1 << 25];
    FILE *stream = fopen(path, "rb");
    size_t size = stream ? fread(whole, 1, sizeof whole, stream) : 0;
    if (stream) fclose(stream);
    if (size < sizeof(struct bloom_header)) return 1;
    int opened = 0;
    state = seed;
    for (int step = 0; step < count; step++) {
        int descriptor = memfd_create("model", 0);
        if (descriptor < 0 || ftruncate(descriptor, (off_t)size)) return 1;
        uint8_t *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
        memcpy(copy, whole, size);
        struct bloom_header *h = (void *)copy;
        size_t regions[4] = {sizeof *h, h->header_size, size, size};
        for (uint32_t i = 0, hits = 1 + draw(8); i < hits; i++) {
            uint32_t place = draw(8); /* headers more often than weights, and often whole numbers */
            size_t at = place == 7 ? h->tokenizer_offset + draw(4096) : draw((uint32_t)regions[place % 4]);
            if (at > size - 8) at = size - 8;
            switch (draw(4)) {
            case 0: copy[at] ^= (uint8_t)(1 << draw(8)); break;
            case 1: copy[at] = (uint8_t)draw(256); break;
            case 2: memset(copy + at / 4 * 4, draw(2) ? 0xff : 0, 4); break;
            default: *(uint32_t *)(void *)(copy + at / 4 * 4) += draw(5) - 2;
            }
        }
        uint32_t header_size = h->header_size;
        if (draw(8) && header_size >= sizeof *h && header_size <= size)
            h->header_crc = crc32_of(copy, header_size, offsetof(struct bloom_header, header_crc));
        munmap(copy, size);
        if (!draw(16) && ftruncate(descriptor, draw((uint32_t)size))) return 1;
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
        struct bloom_file *file = bloom_file_open(name, error, sizeof error);
        close(descriptor);
        if (!file) continue;
        opened++;
        use_tokenizer(file);
        use_engine(file, step);
        bloom_file_close(file);
    }
    printf("%d damaged files, %d opened and used\n", count, opened);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "--encode")) return encode(argv[2]);
    if (argc == 5 && !strcmp(argv[1], "--fuzz")) return fuzz(argv[2], strtoull(argv[3], NULL, 10), atoi(argv[4]));
    uint32_t tokens[128], count = 0;
    for (int i = 4; i < argc && count < 128; i++) tokens[count++] = (uint32_t)strtoul(argv[i], NULL, 10);
    if (count < 2) return 2;
    return run(argv[1], argv[2], (uint32_t)atoi(argv[3]), tokens, count);
}
