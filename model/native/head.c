/* The output head: the same logits as a scan of all weights gives, for about half of the bytes.
 *
 * A step reads only the upper plane of the word embedding, which gives each id's logit up to what the lower plane
 * adds. That is at most |row of the lower plane| |x| (Cauchy-Schwarz). To find the largest logits, the best few are
 * made exact, and then every other id that could reach them by that bound. So the largest are those of a full scan,
 * to the last bit: a logit is the same sum of the same two terms whenever it is made exact.
 */
#include "head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "matmul.h"

enum {
    BLOCK = 64,       /* ids that share a word of a bitmap */
    CHUNK = 4096,     /* ids that a thread handles at a time: whole blocks */
    FEWEST_BEST = 16, /* candidates that are made exact first, even if fewer are asked for */
    ROWS_AHEAD = 8,   /* that are prefetched */
};

static const float SLACK = 1.001f; /* far more than rounding adds to the lower plane's sums */

/* The views of one slot. */
struct slot {
    struct head *head;
    float *logits;
    uint64_t *exact;
    struct activations x;
    float x_norm;
};

static struct slot slot_of(struct head *head, size_t index) {
    size_t groups = head->x.groups;
    return (struct slot){
        .head = head,
        .logits = head->logits + index * head->vocab,
        .exact = head->exact + index * (head->vocab / BLOCK),
        .x = {head->x.q + index * groups * BLOOM_GROUP, head->x.scale + index * groups, head->x.sum + index * groups,
              groups},
        .x_norm = head->x_norm[index],
    };
}

static int is_valid(const struct head *head, int32_t slot) { return slot >= 0 && (size_t)slot < head->used; }

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t chunks_of(size_t n_vocab) { return (n_vocab + CHUNK - 1) / CHUNK; }

static float largest_of(const float *values, size_t count) {
    float lanes[16], largest = -INFINITY;
    for (int lane = 0; lane < 16; lane++) lanes[lane] = -INFINITY;
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] = lanes[lane] > values[i + lane] ? lanes[lane] : values[i + lane];
    for (; i < count; i++) largest = largest > values[i] ? largest : values[i];
    for (int lane = 0; lane < 16; lane++) largest = largest > lanes[lane] ? largest : lanes[lane];
    return largest;
}

void head_open(struct head *head, const struct bloom_file *file, const struct kernels *kernels, struct pool *pool,
               struct buffers *buffers, size_t slots) {
    const struct bloom_header *h = file->header;
    size_t groups = groups_of(h->hidden), vocab = round_up(h->vocab_rows, BLOCK), blocks = vocab / BLOCK;
    int own = file->has_head, f32 = h->bits == 32;
    enum bloom_kind floats = own ? BLOOM_HEAD_F32 : BLOOM_EMBED_F32, high = own ? BLOOM_HEAD_HIGH : BLOOM_EMBED_HIGH;
    enum bloom_kind low = own ? BLOOM_HEAD_LOW : BLOOM_EMBED_LOW;
    int two = !f32 && entry_of(file, 0, low)->format == BLOOM_LOW2;
    *head = (struct head){
        .file = file,
        .kernels = kernels,
        .pool = pool,
        .high = tensor_of(file, 0, f32 ? floats : high),
        .low = tensor_of(file, 0, low),
        .low_size = two ? low2_row_size(groups) : low_row_size(groups),
        .low_dot = two ? kernels->low2_dot : kernels->low_dot,
        .low_norms = vector_of(file, 0, own ? BLOOM_HEAD_NORM : BLOOM_EMBED_NORM),
        .f32 = f32,
        .slots = slots,
        .hidden_stride = padded(h->hidden),
        .vocab = vocab,
        .hidden = zeros(buffers, slots * padded(h->hidden), sizeof(float)),
        .x = {zeros(buffers, slots * groups, BLOOM_GROUP), zeros(buffers, slots * groups, sizeof(float)),
              zeros(buffers, slots * groups, sizeof(int32_t)), groups},
        .x_norm = zeros(buffers, slots, sizeof(float)),
        .logits = zeros(buffers, slots * vocab, sizeof(float)),
        .exact = zeros(buffers, slots * blocks, sizeof(uint64_t)),
        .excluded = zeros(buffers, blocks, sizeof(uint64_t)),
        .block_max = zeros(buffers, blocks, sizeof(float)),
        .block_norm_max = zeros(buffers, blocks, sizeof(float)),
        .best = zeros(buffers, vocab, sizeof(struct candidate)),
        .partial = zeros(buffers, blocks, sizeof(double)),
    };
    if (buffers->failed || !head->low_norms) return;
    for (size_t first = 0; first < h->n_vocab; first += BLOCK)
        head->block_norm_max[first / BLOCK] = largest_of(head->low_norms + first, smaller(BLOCK, h->n_vocab - first));
}

/* Quantise the hidden state of a slot, and take the norm of the result. */
static void quantise_slot(struct head *head, size_t index) {
    struct activations x = slot_of(head, index).x;
    head->kernels->quantise(head->hidden + index * head->hidden_stride, head->file->header->hidden, x.q, x.scale,
                            x.sum);
    double square = 0;
    for (size_t g = 0; g < x.groups; g++) {
        int32_t sum = 0;
        for (size_t i = 0; i < BLOOM_GROUP; i++) sum += x.q[g * BLOOM_GROUP + i] * x.q[g * BLOOM_GROUP + i];
        square += (double)x.scale[g] * x.scale[g] * sum;
    }
    head->x_norm[index] = (float)sqrt(square) * SLACK;
}

void head_run(struct head *head, size_t slots) {
    const struct bloom_header *h = head->file->header;
    for (size_t slot = 0; slot < slots && !head->f32; slot++) quantise_slot(head, slot);
    struct matmul task = {
        .format = head->f32 ? BLOOM_F32 : BLOOM_W4,
        .weights = head->high,
        .rows = h->vocab_rows,
        .cols = h->hidden,
        .x = head->x,
        .x_f32 = head->hidden,
        .x_f32_stride = head->hidden_stride,
        .out = head->logits,
        .out_stride = head->vocab,
        .tokens = slots,
        .epilogue = STORE,
    };
    matmul_run(head->pool, head->kernels, &task);
    memset(head->exact, head->f32 ? 0xff : 0, slots * (head->vocab / BLOCK) * sizeof *head->exact);
    head->used = slots;
    atomic_store(&head->rescored, 0);
}

uint64_t head_rescored(const struct head *head) { return atomic_load(&((struct head *)head)->rescored); }

static int has_bit(const uint64_t *bitmap, size_t id) { return bitmap[id / BLOCK] >> id % BLOCK & 1; }
static void set_bit(uint64_t *bitmap, size_t id) { bitmap[id / BLOCK] |= (uint64_t)1 << id % BLOCK; }

/* Make the logit of an id exact, and return it. Two threads must not do so in the same block. */
static float make_exact(struct slot *slot, size_t id) {
    if (!has_bit(slot->exact, id)) {
        const struct head *head = slot->head;
        slot->logits[id] += head->low_dot(head->low + id * head->low_size, &slot->x);
        set_bit(slot->exact, id);
    }
    return slot->logits[id];
}

static void exclude(struct head *head, const uint32_t *ids, uint32_t count) {
    memset(head->excluded, 0, head->vocab / BLOCK * sizeof *head->excluded);
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] < head->file->header->n_vocab) set_bit(head->excluded, ids[i]);
}

/* Whether `a` comes after `b` in the order of the largest logits. */
static int after(struct candidate a, struct candidate b) {
    return a.logit < b.logit || (a.logit == b.logit && a.id > b.id);
}

/* Put a candidate into a heap of the best `limit`, whose root is the last of them. */
static void offer(struct candidate *heap, size_t *size, size_t limit, struct candidate one) {
    size_t at;
    if (*size < limit) {
        for (at = (*size)++; at && after(one, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
    } else {
        if (!after(heap[0], one)) return;
        size_t child;
        for (at = 0; (child = 2 * at + 1) < limit; at = child) {
            if (child + 1 < limit && after(heap[child + 1], heap[child])) child++;
            if (!after(heap[child], one)) break;
            heap[at] = heap[child];
        }
    }
    heap[at] = one;
}

static int by_rank(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return after(*x, *y) ? 1 : after(*y, *x) ? -1 : 0;
}

static void block_max_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    struct slot *slot = context;
    size_t first = chunk * CHUNK, end = smaller(first + CHUNK, slot->head->file->header->n_vocab);
    for (size_t block = first; block < end; block += BLOCK)
        slot->head->block_max[block / BLOCK] = largest_of(slot->logits + block, smaller(BLOCK, end - block));
}

/* Find the best `limit` by the logits as they are now, largest first; returns how many there are. Most blocks are
 * passed over by comparing their largest logit. */
static size_t select_best(struct slot *slot, size_t limit) {
    struct head *head = slot->head;
    size_t size = 0, n_vocab = head->file->header->n_vocab;
    pool_run(head->pool, block_max_chunk, slot, chunks_of(n_vocab));
    for (size_t first = 0; first < n_vocab; first += BLOCK) {
        const float *logits = slot->logits + first;
        uint64_t wanted = ~head->excluded[first / BLOCK];
        if (!wanted || (size == limit && !(head->block_max[first / BLOCK] > head->best[0].logit))) continue;
        for (size_t i = 0, count = smaller(BLOCK, n_vocab - first); i < count; i++)
            if (wanted >> i & 1 && !isnan(logits[i]))
                offer(head->best, &size, limit, (struct candidate){logits[i], (uint32_t)(first + i)});
    }
    qsort(head->best, size, sizeof *head->best, by_rank);
    return size;
}

/* Makes exact whatever could reach `least` and is not excluded; or, with `all`, everything. */
struct scan {
    struct slot *slot;
    float least;
    int all;
};

/* List the ids of a chunk that have to be made exact, counted from `first`. Few are, but a branch for each id would
 * cost more than to write it down in vain. */
static size_t list_inexact(const struct scan *scan, size_t first, size_t end, uint16_t *list) {
    const struct slot *slot = scan->slot;
    const struct head *head = slot->head;
    const float *norms = head->low_norms;
    size_t count = 0;
    for (size_t block = first; block < end; block += BLOCK) {
        size_t ids = smaller(BLOCK, end - block), at = block / BLOCK;
        if (!scan->all && head->block_max[at] + head->block_norm_max[at] * slot->x_norm < scan->least) continue;
        uint8_t reaches[BLOCK];
        for (size_t i = 0; i < ids; i++)
            reaches[i] = scan->all | (slot->logits[block + i] + norms[block + i] * slot->x_norm >= scan->least);
        uint64_t wanted = ~slot->exact[at] & (scan->all ? ~(uint64_t)0 : ~head->excluded[at]);
        for (size_t i = 0; i < ids; i++) {
            list[count] = (uint16_t)(block + i - first);
            count += reaches[i] & (wanted >> i & 1);
        }
    }
    return count;
}

static void scan_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct scan *scan = context;
    struct slot *slot = scan->slot;
    struct head *head = slot->head;
    size_t first = chunk * CHUNK, end = smaller(first + CHUNK, head->file->header->n_vocab);
    uint16_t list[CHUNK];
    size_t count = list_inexact(scan, first, end, list);
    /* The rows lie apart from each other, so they are prefetched. */
    size_t size = head->low_size;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *next = head->low + (first + list[i + ROWS_AHEAD < count ? i + ROWS_AHEAD : i]) * size;
        for (size_t line = 0; line < size; line += CACHE_LINE) __builtin_prefetch(next + line);
        make_exact(slot, first + list[i]);
    }
    atomic_fetch_add(&head->rescored, count);
}

/* Returns how many logits were made exact. */
static uint64_t run_scan(struct slot *slot, float least, int all) {
    struct head *head = slot->head;
    struct scan scan = {slot, least, all};
    uint64_t before = head_rescored(head);
    pool_run(head->pool, scan_chunk, &scan, chunks_of(head->file->header->n_vocab));
    return head_rescored(head) - before;
}

int64_t head_top(struct head *head, int32_t index, uint32_t count, const uint32_t *excluded, uint32_t excluded_count,
                 uint32_t *ids, float *logits) {
    if (!is_valid(head, index) || count < 1) return -1;
    struct slot slot = slot_of(head, (size_t)index);
    if (count > head->file->header->n_vocab) count = head->file->header->n_vocab;
    exclude(head, excluded, excluded_count);
    size_t found = select_best(&slot, head->f32 || count > FEWEST_BEST ? count : FEWEST_BEST);
    if (!head->f32) {
        for (size_t i = 0; i < found; i++) head->best[i].logit = make_exact(&slot, head->best[i].id);
        qsort(head->best, found, sizeof *head->best, by_rank);
        /* If there are fewer than `count` candidates, nothing bounds the others, and all are made exact. After the
         * scan, whatever is not exact stays below the last of the best, even with its lower plane. */
        if (run_scan(&slot, found >= count ? head->best[count - 1].logit : -INFINITY, 0))
            found = select_best(&slot, count);
    }
    if (found > count) found = count;
    for (size_t i = 0; i < found; i++) {
        ids[i] = head->best[i].id;
        logits[i] = head->best[i].logit;
    }
    return (int64_t)found;
}

void head_at(struct head *head, int32_t index, const uint32_t *ids, uint32_t count, float *logits) {
    int valid = is_valid(head, index);
    struct slot slot = valid ? slot_of(head, (size_t)index) : (struct slot){0};
    for (uint32_t i = 0; i < count; i++)
        logits[i] = valid && ids[i] < head->file->header->n_vocab ? make_exact(&slot, ids[i]) : -INFINITY;
}

int head_all(struct head *head, int32_t index, float *logits) {
    if (!is_valid(head, index)) return -1;
    struct slot slot = slot_of(head, (size_t)index);
    if (!head->f32) run_scan(&slot, 0, 1);
    memcpy(logits, slot.logits, head->file->header->n_vocab * sizeof *logits);
    return 0;
}

struct sum {
    struct slot *slot;
    float largest, factor;
};

static void sum_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct sum *sum = context;
    struct head *head = sum->slot->head;
    size_t first = chunk * CHUNK, end = smaller(first + CHUNK, head->file->header->n_vocab);
    double total = 0;
    for (size_t block = first; block < end; block += BLOCK) {
        float part[BLOCK];
        size_t count = smaller(BLOCK, end - block);
        memcpy(part, sum->slot->logits + block, count * sizeof *part);
        for (size_t i = 0; head->excluded[block / BLOCK] && i < count; i++)
            if (has_bit(head->excluded, block + i)) part[i] = -INFINITY;
        total += head->kernels->sum_exp(part, count, sum->largest, sum->factor);
    }
    head->partial[chunk] = total;
}

double head_logsumexp(struct head *head, int32_t index, double temperature, const uint32_t *excluded,
                      uint32_t excluded_count) {
    if (!is_valid(head, index) || !(temperature > 0)) return NAN;
    struct slot slot = slot_of(head, (size_t)index);
    size_t chunks = chunks_of(head->file->header->n_vocab);
    if (!head->f32) run_scan(&slot, 0, 1);
    exclude(head, excluded, excluded_count);
    if (!select_best(&slot, 1)) return -INFINITY;
    struct sum sum = {&slot, head->best[0].logit, (float)(1 / temperature)};
    pool_run(head->pool, sum_chunk, &sum, chunks);
    double total = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) total += head->partial[chunk];
    return sum.largest / temperature + log(total);
}
