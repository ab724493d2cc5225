/* The output head, exactly, for about half of its bytes.
 *
 * A step reads only the embedding's upper plane, which gives each id's logit up to what the lower
 * plane adds: at most |low row| |x|, by Cauchy-Schwarz. The best few are made exact; whoever could
 * still reach them, by that bound, is made exact too, and nobody else can matter. So the largest
 * are always those of a full scan, to the last bit: an id's logit is the same sum of the same two
 * terms whenever it is made exact.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

enum { AHEAD = 8, CHUNK = 4096 }; /* ids that a thread looks at in one go: whole words of the bitmaps */

static const float SLACK = 1.001f; /* far above what rounding adds to the lower plane's sums */

void head_run(struct bloom_engine *engine, size_t count) {
    const struct bloom_header *h = engine->header;
    size_t groups = groups_of(h->hidden), words = engine->vocab / 64;
    for (size_t slot = 0; slot < count && !engine->plain; slot++) {
        int8_t *q = engine->slot_x.q + slot * groups * BLOOM_GROUP;
        float *scale = engine->slot_x.scale + slot * groups;
        engine->kernels->quantise(engine->hidden + slot * engine->wide, h->hidden, q, scale,
                                  engine->slot_x.sum + slot * groups);
        double square = 0;
        for (size_t g = 0; g < groups; g++) {
            int32_t sum = 0;
            for (size_t i = 0; i < BLOOM_GROUP; i++) sum += q[g * BLOOM_GROUP + i] * q[g * BLOOM_GROUP + i];
            square += (double)scale[g] * scale[g] * sum;
        }
        engine->slot_norm[slot] = (float)sqrt(square) * SLACK;
    }
    struct matmul task = {
        .weights = tensor_of(engine, 0, engine->plain ? BLOOM_EMBED_F32 : BLOOM_EMBED_HIGH),
        .x = engine->slot_x,
        .plain = engine->hidden,
        .plain_stride = engine->wide,
        .cols = h->hidden,
        .rows = h->vocab_rows,
        .out = engine->logits,
        .out_stride = engine->vocab,
        .tokens = count,
        .format = engine->plain ? BLOOM_F32 : BLOOM_W4,
        .epilogue = STORE,
    };
    task.x.groups = groups;
    run_matmul(engine, &task);
    memset(engine->exact, engine->plain ? 0xff : 0, count * words * sizeof *engine->exact);
    engine->filled = count;
    atomic_store(&engine->rescored, 0);
}

uint64_t bloom_rescored(const struct bloom_engine *engine) {
    return atomic_load(&((struct bloom_engine *)engine)->rescored);
}

struct slot {
    struct bloom_engine *engine;
    float *logits, *peaks;
    uint64_t *exact;
    struct activations x;
    float norm;
};

static struct slot slot_of(struct bloom_engine *engine, size_t index) {
    size_t groups = groups_of(engine->header->hidden);
    struct activations x = engine->slot_x;
    x.q += index * groups * BLOOM_GROUP;
    x.scale += index * groups;
    x.sum += index * groups;
    x.groups = groups;
    return (struct slot){
        .engine = engine,
        .logits = engine->logits + index * engine->vocab,
        .peaks = engine->peaks,
        .exact = engine->exact + index * (engine->vocab / 64),
        .x = x,
        .norm = engine->slot_norm[index],
    };
}

static int is_exact(const struct slot *slot, size_t id) { return slot->exact[id / 64] >> id % 64 & 1; }

/* Make one id's logit exact; calls for ids of one word of the bitmap must not overlap. */
static float make_exact(struct slot *slot, size_t id) {
    if (!is_exact(slot, id)) {
        const uint8_t *low = tensor_of(slot->engine, 0, BLOOM_EMBED_LOW);
        slot->logits[id] += slot->engine->kernels->low(low + id * low_row_size(slot->x.groups), &slot->x);
        slot->exact[id / 64] |= (uint64_t)1 << id % 64;
    }
    return slot->logits[id];
}

static int skipped(const struct bloom_engine *engine, size_t id) { return engine->skip[id / 64] >> id % 64 & 1; }

static void set_skips(struct bloom_engine *engine, const uint32_t *ids, uint32_t count) {
    memset(engine->skip, 0, engine->vocab / 64 * sizeof *engine->skip);
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] < engine->header->drawable) engine->skip[ids[i] / 64] |= (uint64_t)1 << ids[i] % 64;
}

/* Whether `a` comes after `b` in a list of the largest. */
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

static float largest_of(const float *values, size_t count) {
    float lanes[16], most = -INFINITY;
    for (int lane = 0; lane < 16; lane++) lanes[lane] = -INFINITY;
    size_t i = 0;
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++)
            lanes[lane] = lanes[lane] > values[i + lane] ? lanes[lane] : values[i + lane];
    for (; i < count; i++) most = most > values[i] ? most : values[i];
    for (int lane = 0; lane < 16; lane++) most = most > lanes[lane] ? most : lanes[lane];
    return most;
}

void head_open(struct bloom_engine *engine) {
    const float *norms = (const float *)(const void *)tensor_of(engine, 0, BLOOM_EMBED_NORM);
    size_t drawable = engine->header->drawable;
    for (size_t first = 0; !engine->plain && first < drawable; first += 64)
        engine->norm_peaks[first / 64] = largest_of(norms + first, drawable - first < 64 ? drawable - first : 64);
}

static void peaks_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    struct slot *slot = context;
    size_t drawable = slot->engine->header->drawable, first = chunk * CHUNK;
    size_t last = first + CHUNK < drawable ? first + CHUNK : drawable;
    for (size_t word = first; word < last; word += 64)
        slot->peaks[word / 64] = largest_of(slot->logits + word, last - word < 64 ? last - word : 64);
}

/* The largest logit of each 64 ids: most runs of 64 are then dealt with by one comparison. */
static void find_peaks(struct slot *slot) {
    size_t drawable = slot->engine->header->drawable;
    pool_run(&slot->engine->pool, peaks_chunk, slot, (drawable + CHUNK - 1) / CHUNK);
}

/* The best `limit` of a slot by its logits as they are. */
static size_t select_best(struct slot *slot, size_t limit) {
    struct bloom_engine *engine = slot->engine;
    find_peaks(slot);
    size_t size = 0, drawable = engine->header->drawable;
    for (size_t first = 0; first < drawable; first += 64) {
        const float *logits = slot->logits + first;
        size_t count = drawable - first < 64 ? drawable - first : 64;
        uint64_t among = ~engine->skip[first / 64];
        if (!among || (size == limit && !(slot->peaks[first / 64] > engine->best[0].logit))) continue;
        for (size_t i = 0; i < count; i++)
            if (among >> i & 1 && logits[i] == logits[i])
                offer(engine->best, &size, limit, (struct candidate){logits[i], (uint32_t)(first + i)});
    }
    qsort(engine->best, size, sizeof *engine->best, by_rank);
    return size;
}

struct scan { struct slot *slot; float least; int all; };

static void scan_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct scan *scan = context;
    struct slot *slot = scan->slot;
    struct bloom_engine *engine = slot->engine;
    const float *norms = (const float *)(const void *)tensor_of(engine, 0, BLOOM_EMBED_NORM);
    size_t drawable = engine->header->drawable, first = chunk * CHUNK;
    size_t last = first + CHUNK < drawable ? first + CHUNK : drawable;
    uint16_t wanted[CHUNK + AHEAD];
    size_t count = 0;
    for (size_t word = first; word < last; word += 64) {
        size_t ids = last - word < 64 ? last - word : 64;
        if (!scan->all && slot->peaks[word / 64] + engine->norm_peaks[word / 64] * slot->norm < scan->least) continue;
        uint8_t reaches[64];
        for (size_t i = 0; i < ids; i++)
            reaches[i] = scan->all | (slot->logits[word + i] + norms[word + i] * slot->norm >= scan->least);
        uint64_t among = ~slot->exact[word / 64] & (scan->all ? ~(uint64_t)0 : ~engine->skip[word / 64]);
        for (size_t i = 0; i < ids; i++) {
            wanted[count] = (uint16_t)(word + i - first);
            count += reaches[i] & (among >> i & 1);
        }
    }
    /* Rows lie apart: each is asked of the memory some rows before it is needed. */
    const uint8_t *low = tensor_of(engine, 0, BLOOM_EMBED_LOW);
    size_t size = low_row_size(slot->x.groups);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *next = low + (first + wanted[i + AHEAD < count ? i + AHEAD : i]) * size;
        for (size_t line = 0; line < size; line += 64) __builtin_prefetch(next + line);
        make_exact(slot, first + wanted[i]);
    }
    atomic_fetch_add(&engine->rescored, count);
}

/* Returns how many had to be made exact. */
static uint64_t run_scan(struct slot *slot, float least, int all) {
    struct scan scan = {slot, least, all};
    size_t drawable = slot->engine->header->drawable;
    uint64_t before = bloom_rescored(slot->engine);
    pool_run(&slot->engine->pool, scan_chunk, &scan, (drawable + CHUNK - 1) / CHUNK);
    return bloom_rescored(slot->engine) - before;
}

int64_t bloom_top(struct bloom_engine *engine, int32_t index, uint32_t count, const uint32_t *without,
                  uint32_t withouts, uint32_t *ids, float *logits) {
    if (index < 0 || (size_t)index >= engine->filled || count < 1) return -1;
    struct slot slot = slot_of(engine, (size_t)index);
    if (count > engine->header->drawable) count = engine->header->drawable;
    set_skips(engine, without, withouts);
    size_t found = select_best(&slot, engine->plain || count > 16 ? count : 16);
    if (!engine->plain) {
        for (size_t i = 0; i < found; i++) engine->best[i].logit = make_exact(&slot, engine->best[i].id);
        qsort(engine->best, found, sizeof *engine->best, by_rank);
        /* With fewer than were asked for there is no bound, and all are read. Whatever is not exact
         * then is below the last of the best, whatever its lower plane would add. */
        if (run_scan(&slot, found >= count ? engine->best[count - 1].logit : -INFINITY, 0))
            found = select_best(&slot, count);
    }
    if (found > count) found = count;
    for (size_t i = 0; i < found; i++) {
        ids[i] = engine->best[i].id;
        logits[i] = engine->best[i].logit;
    }
    return (int64_t)found;
}

void bloom_at(struct bloom_engine *engine, int32_t index, const uint32_t *ids, uint32_t count, float *logits) {
    int valid = index >= 0 && (size_t)index < engine->filled;
    struct slot slot = valid ? slot_of(engine, (size_t)index) : (struct slot){0};
    for (uint32_t i = 0; i < count; i++)
        logits[i] = valid && ids[i] < engine->header->drawable ? make_exact(&slot, ids[i]) : -INFINITY;
}

struct sum { struct slot *slot; float most, factor; };

static void sum_chunk(void *context, size_t chunk, size_t thread) {
    (void)thread;
    const struct sum *sum = context;
    struct bloom_engine *engine = sum->slot->engine;
    size_t drawable = engine->header->drawable, first = chunk * CHUNK;
    size_t last = first + CHUNK < drawable ? first + CHUNK : drawable;
    double total = 0;
    for (size_t word = first; word < last; word += 64) {
        float part[64];
        size_t count = last - word < 64 ? last - word : 64;
        memcpy(part, sum->slot->logits + word, count * sizeof *part);
        for (size_t i = 0; engine->skip[word / 64] && i < count; i++)
            if (skipped(engine, word + i)) part[i] = -INFINITY;
        total += engine->kernels->sum_exp(part, count, sum->most, sum->factor);
    }
    engine->partial[chunk] = total;
}

double bloom_logsumexp(struct bloom_engine *engine, int32_t index, double temperature, const uint32_t *without,
                       uint32_t withouts) {
    if (index < 0 || (size_t)index >= engine->filled || !(temperature > 0)) return NAN;
    struct slot slot = slot_of(engine, (size_t)index);
    size_t drawable = engine->header->drawable, chunks = (drawable + CHUNK - 1) / CHUNK;
    if (!engine->plain) run_scan(&slot, 0, 1);
    set_skips(engine, without, withouts);
    if (!select_best(&slot, 1)) return -INFINITY;
    struct sum sum = {&slot, engine->best[0].logit, (float)(1 / temperature)};
    pool_run(&engine->pool, sum_chunk, &sum, chunks);
    double total = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) total += engine->partial[chunk];
    return sum.most / temperature + log(total);
}
