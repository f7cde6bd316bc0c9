// The one loop over a block of scores: mask and noise for every (key, lane), which forward and backward pass share.
#pragma once
#include <cmath>

#include "lanes.h"

namespace {

enum class Draw { none, normal, other };
enum class Spread { plain, flat, mixed };  // no buckets; one bucket in the whole block; several
enum class Sight { all, slots, listed };

// What one vector of lanes meets at one key.
struct Meeting {
    vi seen;    // −1 where the lane may see the key
    vf xi;      // the unit noise
    vf unit;    // xi, or mean + sigma · xi: the noise is amplitude · unit
    vi bucket;  // with Spread::mixed
};

// The entries of the bucket tables for VL buckets, the i-th of them of head heads[i · step].
INLINE void gather(const Attention &a, const int32_t *heads, long step, vi bucket, vf &mean, vf &sigma) {
    float means[VL], sigmas[VL];
    for (long i = 0; i < VL; i++) {
        means[i] = floats(a.mean, heads[i * step])[bucket[i] * a.mean.stride[1]];
        sigmas[i] = floats(a.sigma, heads[i * step])[bucket[i] * a.sigma.stride[1]];
    }
    mean = load(means), sigma = load(sigmas);
}

template <Draw DRAW, Spread SPREAD, Sight SIGHT>
INLINE Meeting meet(const Attention &a, const Lanes &lanes, const Keys &keys, long v, long j) {
    Meeting m{};
    if constexpr (SIGHT == Sight::slots) {
        m.seen = (keys.slot[j] <= load(lanes.slot + v * VL)) & (keys.slot[j] > load(lanes.floor + v * VL));
    } else if constexpr (SIGHT == Sight::listed) {
        int32_t seen[VL];
        const uint8_t *row = (const uint8_t *)at(a.listed, 1, lanes.batch, keys.first + j);
        for (long i = 0; i < VL; i++) seen[i] = -(int32_t)row[lanes.query[v * VL + i] * a.listed.stride[2]];
        m.seen = load(seen) & -(int32_t)(keys.slot[j] != INT_MAX);
    }
    if constexpr (DRAW != Draw::none) {
        const vu word = score_word(keys.word[j], load(lanes.row_key_0 + v * VL), load(lanes.row_key_1 + v * VL));
        m.xi = DRAW == Draw::normal ? normal(word) : unit_noise(word, a.distribution);
        m.unit = m.xi;
        if constexpr (SPREAD == Spread::flat) {
            m.unit = load(lanes.mean + v * VL) + load(lanes.sigma + v * VL) * m.xi;
        } else if constexpr (SPREAD == Spread::mixed) {
            vf mean, sigma;
            m.bucket = bucket_of(load(lanes.position + v * VL) - keys.position[j], (int)a.buckets - 1);
            gather(a, lanes.head + v * VL, 1, m.bucket, mean, sigma);
            m.unit = mean + sigma * m.xi;
        }
    }
    return m;
}

// Visits every vector of scores (in log2 units) with its noise added and −∞ where the key is not visible:
// visitor.begin(v), visitor.step(j, place, x, meeting) for each key, visitor.end(v).
template <Draw DRAW, Spread SPREAD, Sight SIGHT, class Visitor>
static void visit(const Attention &a, const Lanes &lanes, const Keys &keys, float *scores, Visitor &shared) {
    Visitor visitor = shared;  // a copy of its own stays in registers
    for (long v = 0; v < lanes.vectors; v++) {
        const vf amplitude = load(lanes.amplitude + v * VL);
        visitor.begin(v);
        for (long j = 0; j < keys.count; j++) {
            const long place = j * LANES + v * VL;
            const Meeting m = meet<DRAW, SPREAD, SIGHT>(a, lanes, keys, v, j);
            vf x = load(scores + place);
            if constexpr (DRAW != Draw::none) x += amplitude * m.unit;
            if constexpr (SIGHT != Sight::all) x = m.seen ? x : splat(-__builtin_inff());
            visitor.template step<SPREAD>(j, place, x, m);
        }
        visitor.template end<SPREAD>(v);
    }
}

template <Draw DRAW, Spread SPREAD, class Visitor>
static void visit_seen(const Attention &a, const Lanes &lanes, const Keys &keys, float *scores, Visitor &visitor) {
    if (a.listed.data)
        visit<DRAW, SPREAD, Sight::listed>(a, lanes, keys, scores, visitor);
    else if (keys.all_seen)
        visit<DRAW, SPREAD, Sight::all>(a, lanes, keys, scores, visitor);
    else
        visit<DRAW, SPREAD, Sight::slots>(a, lanes, keys, scores, visitor);
}

template <Draw DRAW, class Visitor>
static void visit_spread(const Attention &a, Lanes &lanes, const Keys &keys, float *scores, Visitor &visitor) {
    if (!a.buckets) return visit_seen<DRAW, Spread::plain>(a, lanes, keys, scores, visitor);
    if (keys.lowest_bucket != keys.highest_bucket)
        return visit_seen<DRAW, Spread::mixed>(a, lanes, keys, scores, visitor);
    for (long v = 0; v < lanes.vectors; v++) {
        vf mean, sigma;
        gather(a, lanes.head + v * VL, 1, splat((int32_t)keys.lowest_bucket), mean, sigma);
        store(lanes.mean + v * VL, mean), store(lanes.sigma + v * VL, sigma);
    }
    visit_seen<DRAW, Spread::flat>(a, lanes, keys, scores, visitor);
}

template <class Visitor>
static void visit_scores(const Attention &a, Lanes &lanes, const Keys &keys, float *scores, Visitor &visitor) {
    if (!lanes.noisy)
        visit_seen<Draw::none, Spread::plain>(a, lanes, keys, scores, visitor);
    else if (a.distribution == NORMAL)
        visit_spread<Draw::normal>(a, lanes, keys, scores, visitor);
    else
        visit_spread<Draw::other>(a, lanes, keys, scores, visitor);
}

// c · tanh(score/c), for scores that have been divided by c already; result in log2 units. `slopes` is null or gets the
// derivatives 1 − tanh².
static void cap_scores(const Attention &a, const Lanes &lanes, const Keys &keys, float *scores, float *slopes) {
    for (long j = 0; j < keys.count; j++)
        for (long i = j * LANES; i < j * LANES + lanes.vectors * VL; i += VL) {
            const vf capped = tanh_of(load(scores + i));
            store(scores + i, capped * (a.softcap * LOG2_E));
            if (slopes) store(slopes + i, 1.0f - capped * capped);
        }
}

// What the queries are multiplied by, so that their products with keys are what `cap_scores` or the noise expects.
INLINE float query_factor(const Attention &a) {
    return a.softcap != 0 ? a.scaling / a.softcap : a.scaling * LOG2_E;
}

// The rows of `t` (b, g, k, n) that a block of keys covers, as float32; where they lie contiguous already, there.
INLINE const float *key_rows(const Attention &a, const Strided &t, long batch, long group, const Keys &keys, long n,
                             float *copy) {
    const char *first = at(t, item_size(a.dtype), batch, group, keys.first);
    if (a.dtype == FLOAT32 && t.stride[3] == 1 && t.stride[2] == n && n == whole_vectors(n)) return (const float *)first;
    for (long j = 0; j < keys.count; j++)
        read_row(first + j * t.stride[2] * item_size(a.dtype), t.stride[3], a.dtype, n, 1.0f,
                 copy + j * whole_vectors(n));
    return copy;
}

// The rows of `t` (b, h, q, n) that the lanes cover, times `factor`, as rows (LANES, whole_vectors(n)) and, where
// `columns` is asked for, as columns (whole_vectors(n), LANES). Idle lanes are zero.
INLINE void lane_rows(const Attention &a, const Strided &t, long batch, const Lanes &lanes, long n, float factor,
                      float *rows, float *columns) {
    const long padded = whole_vectors(n), used = lanes.vectors * VL;
    for (long i = 0; i < used; i++) {
        if (i < lanes.count)
            read_row(at(t, item_size(a.dtype), batch, lanes.head[i], lanes.query[i]), t.stride[3], a.dtype, n, factor,
                     rows + i * padded);
        else
            memset(rows + i * padded, 0, padded * sizeof(float));
    }
    if (columns) transpose(rows, padded, used, padded, columns, LANES);
}

// Each row's maximum and sum before any key: a sink is a key without value that every query sees first.
INLINE void first_state(const Attention &a, long head, float &top, float &sum) {
    top = a.sinks.data ? *floats(a.sinks, head) * LOG2_E : -__builtin_inff();
    sum = a.sinks.data ? 1.0f : 0.0f;
}

// One row of the result from its weighted values; a query that saw no key gives zeros.
INLINE void write_result(const Attention &a, long batch, long head, long query, float *row, float top, float sum) {
    const float factor = sum == 0 ? 0.0f : 1.0f / sum;
    for (long d = 0; d < a.value_width; d++) row[d] *= factor;
    write_row(row, a.value_width, a.dtype, (void *)at(a.out, item_size(a.dtype), batch, head, query), a.out.stride[3]);
    *floats(a.lse, batch, head, query) = sum == 0 ? __builtin_inff() : top * LN_2 + std::log(sum);
}

// Runs work(task, block) for every task, each thread with a block of its own. 0, or 1 when memory ran out.
template <class Block, class Work>
static int run_tasks(const Attention &a, long tasks, const Work &work) {
    int failed = 0;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1 && tasks > 1) reduction(| : failed)
    {
        Block block;
        ScratchMemory memory(a, block);
        failed |= !memory.start;
#pragma omp for schedule(dynamic, 1)
        for (long task = 0; task < tasks; task++)
            if (memory.start) work(task, block);
    }
    return failed;
}

}  // namespace
