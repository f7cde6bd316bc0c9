// Forward attention for a few queries, as in decoding: lanes run along the keys, and each key and value is read once
// for all query heads of its group. Memory decides the speed here.
#pragma once
#include <cmath>

#include "matmul.h"
#include "scores.h"

namespace {

constexpr long DECODE_ROWS = 8;  // (query head, query) pairs of a group; from more on, lanes of queries are faster

struct DecodeBlock {
    Lanes rows;
    Keys keys;
    float top[DECODE_ROWS], sum[DECODE_ROWS];
    float *query, *scores, *out, *key_copy, *value_copy;

    void take(const Attention &a, Scratch &scratch) {
        query = scratch.take<float>(LANES * whole_vectors(a.width));
        scores = scratch.take<float>(DECODE_ROWS * KEYS_AT_ONCE);
        out = scratch.take<float>(DECODE_ROWS * whole_vectors(a.value_width));
        key_copy = scratch.take<float>(KEYS_AT_ONCE * whole_vectors(a.width));
        value_copy = scratch.take<float>(KEYS_AT_ONCE * whole_vectors(a.value_width));
    }
};

// The noise of VL keys for one row, in log2 units.
INLINE vf row_noise(const Attention &a, const Lanes &rows, const Keys &keys, long r, long j) {
    const vu word = score_word(load(keys.word + j), rows.row_key_0[r], rows.row_key_1[r]);
    vf unit = unit_noise(word, a.distribution);
    if (a.buckets) {
        const vi bucket = bucket_of(rows.position[r] - load(keys.position + j), (int)a.buckets - 1);
        vf mean, sigma;
        gather(a, rows.head + r, 0, bucket, mean, sigma);
        unit = mean + sigma * unit;
    }
    return rows.amplitude[r] * unit;
}

INLINE vi row_sight(const Attention &a, const Lanes &rows, const Keys &keys, long r, long j) {
    const vi slot = load(keys.slot + j);
    if (!a.listed.data) return (slot <= rows.slot[r]) & (slot > rows.floor[r]);
    int32_t seen[VL];
    const uint8_t *from = (const uint8_t *)at(a.listed, 1, rows.batch, keys.first + j, rows.query[r]);
    for (long i = 0; i < VL; i++)
        seen[i] = j + i < keys.count ? -(int32_t)from[i * a.listed.stride[1]] : 0;
    return load(seen) & (slot != INT_MAX);
}

// Scores of the block's keys for one row, then their weights; the row's maximum, sum and output follow.
INLINE void decode_row(const Attention &a, DecodeBlock &b, const float *key, long r) {
    const long width = whole_vectors(a.width), value_width = whole_vectors(a.value_width);
    const long n = whole_vectors(b.keys.count);
    float *scores = b.scores + r * KEYS_AT_ONCE;
    for (long j = 0; j < b.keys.count; j++) {
        vf sum{};
        for (long d = 0; d < width; d += VL) sum += load(b.query + r * width + d) * load(key + j * width + d);
        scores[j] = sum_of(sum);
    }
    vf largest = splat(-INFINITY);
    for (long j = 0; j < n; j += VL) {
        vf x = load(scores + j);
        if (a.softcap != 0) x = tanh_of(x) * (a.softcap * LOG2_E);
        if (b.rows.noisy) x += row_noise(a, b.rows, b.keys, r, j);
        x = row_sight(a, b.rows, b.keys, r, j) ? x : splat(-INFINITY);
        store(scores + j, x);
        largest = x > largest ? x : largest;
    }
    const float before = b.top[r];
    for (long i = 0; i < VL; i++) b.top[r] = largest[i] > b.top[r] ? largest[i] : b.top[r];
    const vf base = splat(b.top[r] == -INFINITY ? 0.0f : b.top[r]);
    vf sum{};
    for (long j = 0; j < n; j += VL) {
        const vf weight = exp2_of(load(scores + j) - base);
        store(scores + j, weight);
        sum += weight;
    }
    const vf fade = exp2_of(before - base);
    b.sum[r] = b.sum[r] * fade[0] + sum_of(sum);
    for (long d = 0; d < value_width; d += VL) {
        float *o = b.out + r * value_width + d;
        store(o, load(o) * fade);
    }
}

static void decode_group(const Attention &a, long batch, long group, DecodeBlock &b) {
    const long value_width = whole_vectors(a.value_width);
    read_lanes(a, batch, group, 0, b.rows);
    lane_rows(a, a.query, batch, b.rows, a.width, query_factor(a), b.query, nullptr);
    memset(b.out, 0, DECODE_ROWS * value_width * sizeof(float));
    for (long r = 0; r < b.rows.count; r++) first_state(a, b.rows.head[r], b.top[r], b.sum[r]);
    for (long first = 0; first < a.keys; first += KEYS_AT_ONCE) {
        if (!read_keys(a, batch, first, b.rows, b.keys)) continue;
        for (long j = b.keys.count; j < whole_vectors(b.keys.count); j++)
            b.keys.slot[j] = INT_MAX, b.keys.word[j] = 0, b.keys.position[j] = 0;
        const float *key = key_rows(a, a.key, batch, group, b.keys, a.width, b.key_copy);
        const float *value = key_rows(a, a.value, batch, group, b.keys, a.value_width, b.value_copy);
        for (long r = 0; r < b.rows.count; r++) decode_row(a, b, key, r);
        product<true>(b.rows.count, value_width / VL, b.keys.count, b.scores, KEYS_AT_ONCE, 1, value, value_width, b.out,
                      value_width);
    }
    for (long r = 0; r < b.rows.count; r++)
        write_result(a, batch, b.rows.head[r], b.rows.query[r], b.out + r * value_width, b.top[r], b.sum[r]);
}

// 0, or 1 when memory ran out.
static int attention_decode(const Attention &a) {
    return run_tasks<DecodeBlock>(a, a.batch * a.groups, [&](long task, DecodeBlock &block) {
        decode_group(a, task / a.groups, task % a.groups, block);
    });
}

}  // namespace
