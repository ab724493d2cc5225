/* The sizes of the structures that Python declares too, so that it can compare them when it loads the library. */
#include <string.h>

#include "bloom.h"
#include "tokenizer.h"

static const struct {
    const char *name;
    size_t size;
} STRUCTS[] = {
    {"bloom_header", sizeof(struct bloom_header)},
    {"bloom_tensor", sizeof(struct bloom_tensor)},
    {"bloom_pack_stats", sizeof(struct bloom_pack_stats)},
    {"bloom_work", sizeof(struct bloom_work)},
    {"bloom_gptq", sizeof(struct bloom_gptq)},
    {"tokenizer_header", sizeof(struct tokenizer_header)},
    {"added", sizeof(struct added)},
};

uint64_t bloom_struct_size(const char *name) {
    for (size_t i = 0; i < sizeof STRUCTS / sizeof *STRUCTS; i++)
        if (!strcmp(STRUCTS[i].name, name)) return STRUCTS[i].size;
    return 0;
}
