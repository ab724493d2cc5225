/* Everything but the matrix products, written once for all instruction sets.
 *
 * A file that includes this has defined LANES, the floats of its vector registers, `load_i8`,
 * which widens 16 bytes to floats, and `matmul` and `low`. Sums run over 16 lanes whatever the
 * registers' width, which makes all sets agree to the last bit.
 */
#include <math.h>
#include <string.h>

#include "kernels.h"

#define PARTS (16 / LANES)
typedef float vf __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

typedef struct { vf part[PARTS]; } wide; /* 16 floats */

#define EACH for (int p = 0; p < PARTS; p++)
#define INLINE static inline __attribute__((always_inline))

INLINE void load_i8(const int8_t *from, wide *out);

INLINE wide load(const float *from) {
    wide out;
    EACH out.part[p] = *(const vf *)(from + p * LANES);
    return out;
}
INLINE void store(float *to, const wide *from) { EACH *(vf *)(to + p * LANES) = from->part[p]; }
INLINE vf splat(float value) { return value - (vf){0}; }

/* The sum of 16 lanes, always paired in the same way. */
INLINE float sum_of(const wide *x) {
    float lanes[16];
    store(lanes, x);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

INLINE float sum_of_8(float *lanes) {
    for (int half = 4; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* One level of that pairing for two registers: lanes h apart within runs of 2h are added, a's
 * results before b's. */
#define LOW(l, h) (l) / (h) * 2 * (h) + (l) % (h)
#if LANES == 16
#define MASK(h, up) \
    (vi){LOW(0, h) + up, LOW(1, h) + up, LOW(2, h) + up, LOW(3, h) + up, LOW(4, h) + up, LOW(5, h) + up, \
         LOW(6, h) + up, LOW(7, h) + up, LOW(8, h) + up, LOW(9, h) + up, LOW(10, h) + up, LOW(11, h) + up, \
         LOW(12, h) + up, LOW(13, h) + up, LOW(14, h) + up, LOW(15, h) + up}
#elif LANES == 8
#define MASK(h, up) \
    (vi){LOW(0, h) + up, LOW(1, h) + up, LOW(2, h) + up, LOW(3, h) + up, LOW(4, h) + up, LOW(5, h) + up, \
         LOW(6, h) + up, LOW(7, h) + up}
#else
#define MASK(h, up) (vi){LOW(0, h) + up, LOW(1, h) + up, LOW(2, h) + up, LOW(3, h) + up}
#endif
#define MERGE(a, b, h) (__builtin_shuffle(a, b, MASK(h, 0)) + __builtin_shuffle(a, b, MASK(h, h)))

/* sum_of 16 vectors at once, bit for bit. */
INLINE void sums_of(wide *x, float *out) {
    vf level[16];
    for (int i = 0; i < 16; i++) {
        for (int half = PARTS / 2; half; half /= 2)
            for (int p = 0; p < half; p++) x[i].part[p] += x[i].part[p + half];
        level[i] = x[i].part[0];
    }
    int left = 16;
#if LANES == 16
    for (int i = 0; i < left / 2; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 8);
    left /= 2;
#endif
#if LANES >= 8
    for (int i = 0; i < left / 2; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 4);
    left /= 2;
#endif
    for (int i = 0; i < left / 2; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 2);
    left /= 2;
    for (int i = 0; i < left / 2; i++) level[i] = MERGE(level[2 * i], level[2 * i + 1], 1);
    left /= 2;
    memcpy(out, level, 16 * sizeof *out);
}

/* exp, to about 2 units in the last place (Cephes' polynomial); 0 below -87, 2^127 at most. */
INLINE vf exp_of(vf x) {
    const vf low = splat(-87.3f), high = splat(88.0f);
    vi under = x < low;
    vi over = x > high;
    x = (vf)(((vi)x & ~over) | ((vi)high & over));
    x = (vf)(((vi)x & ~under) | ((vi)low & under));
    const vf magic = splat(12582912.0f); /* adding it rounds to a whole number */
    vf n = (x * splat(1.44269504f) + magic) - magic;
    vf r = (x - n * splat(0.693359375f)) - n * splat(-2.12194440e-4f);
    vf y = splat(1.9875691500e-4f);
    y = y * r + splat(1.3981999507e-3f);
    y = y * r + splat(8.3334519073e-3f);
    y = y * r + splat(4.1665795894e-2f);
    y = y * r + splat(1.6666665459e-1f);
    y = y * r + splat(5.0000001201e-1f);
    y = y * r * r + r + splat(1.0f);
    vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    y = y * (vf)power;
    return (vf)((vi)y & ~under);
}

/* BLOOM's GELU: x / 2 (1 + tanh(u)) is x / (1 + exp(-2u)). */
INLINE vf gelu(vf x) {
    vf u = splat(0.79788456f) * x * (splat(1.0f) + splat(0.044715f) * x * x);
    return x / (splat(1.0f) + exp_of(splat(-2.0f) * u));
}

/* Write 16 rows' results of one token. */
INLINE void finish(const struct matmul *task, size_t token, size_t row, wide value) {
    float *out = task->out + token * task->out_stride + row;
    if (task->bias) EACH value.part[p] += *(const vf *)(task->bias + row + p * LANES);
    if (task->epilogue == GELU) EACH value.part[p] = gelu(value.part[p]);
    if (task->epilogue == ADD) EACH value.part[p] += *(vf *)(out + p * LANES);
    store(out, &value);
}

/* Unquantised weights: the way to compare with other implementations, not a fast one. */
static void matmul_plain(const struct matmul *task, size_t first_block, size_t last_block) {
    size_t stride = round_up(task->cols, 16);
    size_t last = last_block * BLOOM_ROWS < task->rows ? last_block * BLOOM_ROWS : task->rows;
    for (size_t row = first_block * BLOOM_ROWS; row < last; row++) {
        const float *weights = (const float *)task->weights + row * stride;
        for (size_t token = 0; token < task->tokens; token++) {
            const float *x = task->plain + token * task->plain_stride;
            wide sum = {0};
            for (size_t i = 0; i < stride; i += 16) {
                wide a = load(weights + i), b = load(x + i);
                EACH sum.part[p] += a.part[p] * b.part[p];
            }
            float *out = task->out + token * task->out_stride + row, value = sum_of(&sum);
            if (task->bias) value += task->bias[row];
            if (task->epilogue == GELU) {
                vf all = gelu(splat(value));
                value = all[0];
            }
            *out = task->epilogue == ADD ? *out + value : value;
        }
    }
}

static void quantise(const float *x, size_t cols, int8_t *q, float *scale, int32_t *sum) {
    const float magic = 12582912.0f;
    for (size_t g = 0; g * BLOOM_GROUP < cols; g++) {
        float part[BLOOM_GROUP] = {0};
        size_t count = cols - g * BLOOM_GROUP < BLOOM_GROUP ? cols - g * BLOOM_GROUP : BLOOM_GROUP;
        memcpy(part, x + g * BLOOM_GROUP, count * sizeof *part);
        float most[16] = {0}, largest = 0;
        int32_t odd[16] = {0}, any_odd = 0;
        for (int i = 0; i < BLOOM_GROUP; i += 16)
            for (int lane = 0; lane < 16; lane++) {
                float size = fabsf(part[i + lane]);
                odd[lane] |= !(size < 1e30f);
                most[lane] = most[lane] > size ? most[lane] : size;
            }
        for (int lane = 0; lane < 16; lane++) {
            largest = largest > most[lane] ? largest : most[lane];
            any_odd |= odd[lane];
        }
        int8_t *to = q + g * BLOOM_GROUP;
        if (any_odd) { /* not finite: let it show downstream */
            memset(to, 0, BLOOM_GROUP);
            scale[g] = NAN;
            sum[g] = 0;
            continue;
        }
        scale[g] = largest / 127;
        float inverse = largest > 1e-30f ? 127 / largest : 0;
        int32_t all = 0;
        for (int i = 0; i < BLOOM_GROUP; i++) {
            int32_t value = (int32_t)((part[i] * inverse + magic) - magic);
            to[i] = (int8_t)value;
            all += value;
        }
        sum[g] = all;
    }
}

/* The first lanes, and zero in the others. */
static wide lanes(wide all, size_t count) {
    float each[16];
    store(each, &all);
    for (size_t i = count; i < 16; i++) each[i] = 0;
    return load(each);
}

/* `size` real columns; what fills them up to 16 is zero in x, and stays so. */
static void layer_norm(const float *x, const float *weight, const float *bias, size_t size,
                       float epsilon, float *out) {
    wide sum = {0}, square = {0};
    size_t full = round_up(size, 16);
    for (size_t i = 0; i < full; i += 16) {
        wide part = load(x + i);
        EACH sum.part[p] += part.part[p];
    }
    float mean = sum_of(&sum) / (float)size;
    for (size_t i = 0; i < full; i += 16) {
        wide part = load(x + i);
        EACH part.part[p] -= splat(mean);
        if (i + 16 > size) part = lanes(part, size - i);
        EACH square.part[p] += part.part[p] * part.part[p];
    }
    float factor = 1 / sqrtf(sum_of(&square) / (float)size + epsilon);
    for (size_t i = 0; i < full; i += 16) {
        wide part = load(x + i), w = load(weight + i), b = load(bias + i);
        EACH part.part[p] = (part.part[p] - splat(mean)) * splat(factor) * w.part[p] + b.part[p];
        store(out + i, &part);
    }
}

/* Where a page keeps one head's 16 vectors of keys (part 0) or values (part 1); scales follow. */
INLINE uint8_t *page_at(const struct attention *task, size_t page, size_t part) {
    size_t index = (task->layer * 2 + part) * task->heads + task->head;
    return task->pages[page] + index * page_head(task->head_size, task->plain);
}

/* A head's vectors of one page lie apart from those of the next: ask for them in time. */
INLINE void fetch(const struct attention *task, size_t page, size_t part, size_t pages) {
    if (page >= pages) return;
    const uint8_t *next = page_at(task, page, part);
    for (size_t line = 0; line < page_head(task->head_size, task->plain); line += 64)
        __builtin_prefetch(next + line);
}

INLINE void load_vector(const uint8_t *from, int plain, wide *out) {
    if (plain) *out = load((const float *)from);
    else load_i8((const int8_t *)from, out);
}

INLINE void append(const struct attention *task, size_t position, size_t part, const float *vector) {
    size_t filled = round_up(task->head_size, 16), lane = position % BLOOM_PAGE;
    size_t size = page_vector(task->head_size, task->plain);
    uint8_t *head = page_at(task, position / BLOOM_PAGE, part);
    float *scale = (float *)(head + BLOOM_PAGE * size) + lane;
    uint8_t *to = head + lane * size;
    if (task->plain) {
        memset(to, 0, size);
        memcpy(to, vector, task->head_size * sizeof *vector);
        *scale = 1;
        return;
    }
    float largest = 0;
    int finite = 1;
    for (size_t i = 0; i < task->head_size; i++) {
        float value = fabsf(vector[i]);
        finite &= value < 1e30f;
        largest = largest > value ? largest : value;
    }
    *scale = finite ? largest / 127 : NAN;
    float inverse = finite && largest > 1e-30f ? 127 / largest : 0;
    for (size_t i = 0; i < filled; i++) {
        float value = i < task->head_size && finite ? vector[i] * inverse : 0;
        ((int8_t *)to)[i] = (int8_t)(int32_t)((value + 12582912.0f) - 12582912.0f);
    }
}

/* One query against all keys up to its own, with `chunks` x 16 the (filled up) head size. */
INLINE void attend_one(const struct attention *task, size_t token, float *scores, size_t chunks) {
    size_t length = task->start + token + 1, size = page_vector(task->head_size, task->plain);
    size_t step = task->plain ? 64 : 16; /* bytes of 16 numbers */
    const float *query = task->qkv + token * task->stride + task->head * 3 * task->head_size;
    float scaled[chunks * 16], factor = 1 / sqrtf((float)task->head_size);
    memset(scaled, 0, sizeof scaled);
    for (size_t i = 0; i < task->head_size; i++) scaled[i] = query[i] * factor;

    size_t pages = (length + BLOOM_PAGE - 1) / BLOOM_PAGE;
    float most = -INFINITY;
    for (size_t page = 0; page < pages; page++) {
        fetch(task, page + 4, 0, pages);
        const uint8_t *keys = page_at(task, page, 0);
        const float *scales = (const float *)(keys + BLOOM_PAGE * size);
        size_t first = page * BLOOM_PAGE;
        size_t count = length - first < BLOOM_PAGE ? length - first : BLOOM_PAGE;
        /* What lies beyond the last key is other floats or stale bytes; it is never looked at. */
        wide sums[BLOOM_PAGE], key;
        float dots[BLOOM_PAGE];
        for (size_t i = 0; i < BLOOM_PAGE; i++) {
            sums[i] = (wide){0};
            for (size_t c = 0; c < chunks; c++) {
                load_vector(keys + i * size + c * step, task->plain, &key);
                wide q = load(scaled + c * 16);
                EACH sums[i].part[p] += q.part[p] * key.part[p];
            }
        }
        sums_of(sums, dots);
        for (size_t i = 0; i < count; i++) {
            /* ALiBi counts from the query backwards here: softmax does not see the difference. */
            float bias = task->slope * (float)(ptrdiff_t)(first + i + 1 - length);
            float score = dots[i] * scales[i] + bias;
            scores[first + i] = score;
            most = most > score ? most : score;
        }
    }
    size_t full = round_up(length, 16);
    for (size_t i = length; i < full; i++) scores[i] = -INFINITY;
    wide total = {0};
    for (size_t i = 0; i < full; i += 16) {
        wide part = load(scores + i);
        EACH part.part[p] = exp_of(part.part[p] - splat(most));
        EACH total.part[p] += part.part[p];
        store(scores + i, &part);
    }
    float inverse = 1 / sum_of(&total);
    wide sums[chunks];
    memset(sums, 0, sizeof sums);
    for (size_t page = 0; page < pages; page++) {
        fetch(task, page + 4, 1, pages);
        const uint8_t *values = page_at(task, page, 1);
        const float *scales = (const float *)(values + BLOOM_PAGE * size);
        size_t first = page * BLOOM_PAGE;
        size_t count = length - first < BLOOM_PAGE ? length - first : BLOOM_PAGE;
        for (size_t i = 0; i < count; i++) {
            vf weight = splat(scores[first + i] * scales[i]);
            wide value;
            for (size_t c = 0; c < chunks; c++) {
                load_vector(values + i * size + c * step, task->plain, &value);
                EACH sums[c].part[p] += weight * value.part[p];
            }
        }
    }
    float *out = task->out + token * task->out_stride + task->head * task->head_size;
    for (size_t c = 0; c < chunks; c++) EACH sums[c].part[p] *= splat(inverse);
    memcpy(out, sums, task->head_size * sizeof *out);
}

static void attend(const struct attention *task, float *scores) {
    for (size_t token = 0; token < task->tokens; token++) {
        const float *key = task->qkv + token * task->stride + (task->head * 3 + 1) * task->head_size;
        append(task, task->start + token, 0, key);
        append(task, task->start + token, 1, key + task->head_size);
    }
    size_t chunks = round_up(task->head_size, 16) / 16;
    for (size_t token = 0; token < task->tokens; token++) {
        /* Constants here let the compiler keep a head of the published sizes in registers. */
        if (chunks == 4) attend_one(task, token, scores, 4);
        else if (chunks == 8) attend_one(task, token, scores, 8);
        else attend_one(task, token, scores, chunks);
    }
}

static double sum_exp(const float *x, size_t count, float most, float factor) {
    double total = 0;
    for (size_t i = 0; i < count; i += 16) {
        float part[16];
        for (size_t lane = 0; lane < 16; lane++) part[lane] = i + lane < count ? x[i + lane] : -INFINITY;
        wide terms = load(part);
        EACH terms.part[p] = exp_of((terms.part[p] - splat(most)) * splat(factor));
        total += (double)sum_of(&terms);
    }
    return total;
}

static void matmul_w8(const struct matmul *task, size_t first_block, size_t last_block);
static void matmul_w4(const struct matmul *task, size_t first_block, size_t last_block);
static float low(const uint8_t *row, const struct activations *x);

static void matmul(const struct matmul *task, size_t first_block, size_t last_block) {
    switch (task->format) {
    case BLOOM_W8: matmul_w8(task, first_block, last_block); break;
    case BLOOM_W4: matmul_w4(task, first_block, last_block); break;
    default: matmul_plain(task, first_block, last_block);
    }
}

#define KERNELS(set) \
    const struct kernels kernels_##set = {#set, matmul, quantise, layer_norm, attend, low, sum_exp}
