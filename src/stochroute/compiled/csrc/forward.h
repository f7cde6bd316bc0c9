// Forward attention: an online softmax over blocks of keys (Milakov and Gimelshein, arXiv 1805.02867) with nothing of
// shape (q, k) in memory, as in FlashAttention (Dao et al., arXiv 2205.14135).
#pragma once
#include "matmul.h"
#include "scores.h"

namespace {

// Stores the finished scores and gathers each lane's maximum.
struct Maximum {
    float *scores, *top;
    vf largest;
    INLINE_MEMBER void begin(long v) { largest = load(top + v * VL); }
    template <Spread SPREAD>
    INLINE_MEMBER void step(long, long place, vf x, const Meeting &) {
        store(scores + place, x);
        largest = x > largest ? x : largest;
    }
    template <Spread SPREAD>
    INLINE_MEMBER void end(long v) {
        store(top + v * VL, largest);
    }
};

// One block of queries at work.
struct ForwardBlock {
    Lanes lanes;
    Keys keys;
    float top[LANES], before[LANES], sum[LANES];  // of each lane: its maximum, the one before this block, Σ 2^(x − top)
    float *rows, *query, *scores, *out, *key_copy, *value_copy;

    void take(const Attention &a, Scratch &scratch) {
        const long wide = whole_vectors(a.width > a.value_width ? a.width : a.value_width);
        rows = scratch.take<float>(LANES * wide);
        query = scratch.take<float>(whole_vectors(a.width) * LANES);
        scores = scratch.take<float>(KEYS_AT_ONCE * LANES);
        out = scratch.take<float>(whole_vectors(a.value_width) * LANES);
        key_copy = scratch.take<float>(KEYS_AT_ONCE * whole_vectors(a.width));
        value_copy = scratch.take<float>(KEYS_AT_ONCE * whole_vectors(a.value_width));
    }
};

// scores → 2^(score − top), summed up; what was accumulated under the maxima before is scaled to the new ones.
INLINE void exponentiate(const Attention &a, ForwardBlock &b) {
    for (long v = 0; v < b.lanes.vectors; v++) {
        const vf top = load(b.top + v * VL), before = load(b.before + v * VL);
        const vf base = top == -__builtin_inff() ? vf{} : top;  // nothing visible so far: 2^(−∞ − 0) = 0
        vf sum{};
        for (long j = 0; j < b.keys.count; j++) {
            float *x = b.scores + j * LANES + v * VL;
            const vf weight = exp2_of(load(x) - base);
            store(x, weight);
            sum += weight;
        }
        const vf fade = exp2_of(before - base);
        store(b.sum + v * VL, load(b.sum + v * VL) * fade + sum);
        int unchanged = 1;
        for (long i = 0; i < VL; i++) unchanged &= fade[i] == 1.0f;
        if (!unchanged)
            for (long d = 0; d < a.value_width; d++) {
                float *o = b.out + d * LANES + v * VL;
                store(o, load(o) * fade);
            }
    }
}

static void forward_block(const Attention &a, long batch, long group, long first_row, ForwardBlock &b) {
    read_lanes(a, batch, group, first_row, b.lanes);
    lane_rows(a, a.query, batch, b.lanes, a.width, query_factor(a), b.rows, b.query);
    memset(b.out, 0, whole_vectors(a.value_width) * LANES * sizeof(float));
    for (long i = 0; i < b.lanes.vectors * VL; i++) first_state(a, b.lanes.head[i], b.top[i], b.sum[i]);
    for (long first = 0; first < a.keys; first += KEYS_AT_ONCE) {
        if (!read_keys(a, batch, first, b.lanes, b.keys)) continue;
        const float *key = key_rows(a, a.key, batch, group, b.keys, a.width, b.key_copy);
        const float *value = key_rows(a, a.value, batch, group, b.keys, a.value_width, b.value_copy);
        product<false>(b.keys.count, b.lanes.vectors, a.width, key, whole_vectors(a.width), 1, b.query, LANES, b.scores,
                       LANES);
        if (a.softcap != 0) cap_scores(a, b.lanes, b.keys, b.scores, nullptr);
        memcpy(b.before, b.top, sizeof b.top);
        Maximum maximum{b.scores, b.top, vf{}};
        visit_scores(a, b.lanes, b.keys, b.scores, maximum);
        exponentiate(a, b);
        product<true>(a.value_width, b.lanes.vectors, b.keys.count, value, 1, whole_vectors(a.value_width), b.scores,
                      LANES, b.out, LANES);
    }
    const long padded = whole_vectors(a.value_width);
    transpose(b.out, LANES, padded, b.lanes.vectors * VL, b.rows, padded);
    for (long i = 0; i < b.lanes.count; i++)
        write_result(a, batch, b.lanes.head[i], b.lanes.query[i], b.rows + i * padded, b.top[i], b.sum[i]);
}

// 0, or 1 when memory ran out.
static int attention_forward(const Attention &a) {
    const long rows = a.heads / a.groups * a.queries, blocks = (rows + LANES - 1) / LANES;
    return run_tasks<ForwardBlock>(a, a.batch * a.groups * blocks, [&](long task, ForwardBlock &block) {
        forward_block(a, task / blocks / a.groups, task / blocks % a.groups, task % blocks * LANES, block);
    });
}

}  // namespace
