// Backward attention: scores and noise are computed again, block by block, from the logarithm of each query's sum of
// weights. With P the weights and ∆ = Σ dO · O, the gradient of a score is G = P (dO·V − ∆) (arXiv 2205.14135, B.4);
// a thread owns a group of heads, so that nothing is added to from two sides and every run gives the same bits.
#pragma once
#include <cmath>

#include "matmul.h"
#include "scores.h"

namespace {

struct BackwardBlock {
    Lanes lanes;
    Keys keys;
    float lse[LANES], delta[LANES], amplitude[LANES];  // log2 units; Σ dO · O; gradient
    float *scratch, *query, *query_columns, *grad_out, *grad_out_columns;
    float *weights, *grads, *slopes;            // (KEYS_AT_ONCE, LANES): P, G, the slope of the soft cap
    float *grad_query;                          // (width, LANES)
    float *grad_key, *grad_value;               // (keys, width), (keys, value_width)
    float *key_copy, *value_copy;
    float *mean, *sigma;                        // (buckets, LANES): gradients
    double *head_mean, *head_sigma;             // (heads of a group, buckets)

    void take(const Attention &a, Scratch &memory) {
        const long width = whole_vectors(a.width), value_width = whole_vectors(a.value_width);
        scratch = memory.take<float>(LANES * (width > value_width ? width : value_width));
        query = memory.take<float>(LANES * width), query_columns = memory.take<float>(LANES * width);
        grad_out = memory.take<float>(LANES * value_width), grad_out_columns = memory.take<float>(LANES * value_width);
        weights = memory.take<float>(KEYS_AT_ONCE * LANES), grads = memory.take<float>(KEYS_AT_ONCE * LANES);
        slopes = memory.take<float>(a.softcap != 0 ? KEYS_AT_ONCE * LANES : 0);
        grad_query = memory.take<float>(width * LANES);
        grad_key = memory.take<float>(a.keys * width), grad_value = memory.take<float>(a.keys * value_width);
        key_copy = memory.take<float>(KEYS_AT_ONCE * width), value_copy = memory.take<float>(KEYS_AT_ONCE * value_width);
        mean = memory.take<float>(a.buckets * LANES), sigma = memory.take<float>(a.buckets * LANES);
        const long heads = a.heads / a.groups;
        head_mean = memory.take<double>(heads * a.buckets), head_sigma = memory.take<double>(heads * a.buckets);
    }
};

// Turns scores into weights P, and the products dO · V into gradients G.
struct Differentiate {
    BackwardBlock *b;
    vf lse, delta, amplitude, mean, sigma;
    long v;

    INLINE_MEMBER void begin(long vector) {
        v = vector;
        lse = load(b->lse + v * VL), delta = load(b->delta + v * VL);
        amplitude = mean = sigma = vf{};
    }
    template <Spread SPREAD>
    INLINE_MEMBER void step(long, long place, vf x, const Meeting &m) {
        const vf weight = exp2_of(x - lse);
        const vf grad = weight * (load(b->grads + place) - delta);
        store(b->weights + place, weight);
        store(b->grads + place, grad);
        amplitude += grad * m.unit;
        if constexpr (SPREAD == Spread::flat) mean += grad, sigma += grad * m.xi;
        if constexpr (SPREAD == Spread::mixed) {
            for (int n = b->keys.lowest_bucket; n <= b->keys.highest_bucket; n++) {
                const vf inside = m.bucket == n ? grad : vf{};
                add(b->mean, n, inside), add(b->sigma, n, inside * m.xi);
            }
        }
    }
    template <Spread SPREAD>
    INLINE_MEMBER void end(long) {
        store(b->amplitude + v * VL, load(b->amplitude + v * VL) + amplitude);
        if constexpr (SPREAD == Spread::flat) add(b->mean, b->keys.lowest_bucket, mean), add(b->sigma, b->keys.lowest_bucket, sigma);
    }
    INLINE_MEMBER void add(float *table, int bucket, vf x) {
        float *place = table + bucket * LANES + v * VL;
        store(place, load(place) + x);
    }
};

static void read_backward_lanes(const AttentionBackward &p, long batch, BackwardBlock &b) {
    const Attention &a = p.forward;
    lane_rows(a, a.query, batch, b.lanes, a.width, query_factor(a), b.query, b.query_columns);
    lane_rows(a, a.query, batch, b.lanes, a.width, a.scaling, b.query, nullptr);
    lane_rows(a, p.grad_out, batch, b.lanes, a.value_width, 1.0f, b.grad_out, b.grad_out_columns);
    lane_rows(a, a.out, batch, b.lanes, a.value_width, 1.0f, b.scratch, nullptr);
    const long padded = whole_vectors(a.value_width);
    for (long i = 0; i < b.lanes.vectors * VL; i++) {
        vf delta{};
        for (long d = 0; d < padded; d += VL) delta += load(b.grad_out + i * padded + d) * load(b.scratch + i * padded + d);
        const bool used = i < b.lanes.count;
        b.delta[i] = used ? sum_of(delta) : 0.0f;
        b.lse[i] = used ? *floats(a.lse, batch, b.lanes.head[i], b.lanes.query[i]) * LOG2_E : INFINITY;
        if (used) *floats(p.delta, batch, b.lanes.head[i], b.lanes.query[i]) = b.delta[i];
    }
    memset(b.amplitude, 0, sizeof b.amplitude);
    memset(b.grad_query, 0, whole_vectors(a.width) * LANES * sizeof(float));
    memset(b.mean, 0, a.buckets * LANES * sizeof(float));
    memset(b.sigma, 0, a.buckets * LANES * sizeof(float));
}

static void backward_keys(const Attention &a, long batch, long group, BackwardBlock &b) {
    const long n = b.keys.count, width = whole_vectors(a.width), value_width = whole_vectors(a.value_width);
    const long lanes = b.lanes.vectors * VL;
    const float *key = key_rows(a, a.key, batch, group, b.keys, a.width, b.key_copy);
    const float *value = key_rows(a, a.value, batch, group, b.keys, a.value_width, b.value_copy);
    product<false>(n, b.lanes.vectors, a.width, key, width, 1, b.query_columns, LANES, b.weights, LANES);
    product<false>(n, b.lanes.vectors, a.value_width, value, value_width, 1, b.grad_out_columns, LANES, b.grads, LANES);
    if (a.softcap != 0) cap_scores(a, b.lanes, b.keys, b.weights, b.slopes);
    Differentiate differentiate{&b, {}, {}, {}, {}, {}, 0};
    visit_scores(a, b.lanes, b.keys, b.weights, differentiate);
    if (a.softcap != 0)
        for (long j = 0; j < n; j++)
            for (long i = j * LANES; i < j * LANES + lanes; i += VL) store(b.grads + i, load(b.grads + i) * load(b.slopes + i));
    product<true>(n, value_width / VL, lanes, b.weights, LANES, 1, b.grad_out, value_width,
                  b.grad_value + b.keys.first * value_width, value_width);
    product<true>(n, width / VL, lanes, b.grads, LANES, 1, b.query, width, b.grad_key + b.keys.first * width, width);
    product<true>(a.width, b.lanes.vectors, n, key, 1, width, b.grads, LANES, b.grad_query, LANES);
}

static void write_backward_lanes(const AttentionBackward &p, long batch, BackwardBlock &b) {
    const Attention &a = p.forward;
    const long padded = whole_vectors(a.width), size = item_size(a.dtype);
    transpose(b.grad_query, LANES, padded, b.lanes.vectors * VL, b.scratch, padded);
    for (long i = 0; i < b.lanes.count; i++) {
        const long head = b.lanes.head[i], query = b.lanes.query[i], local = head % (a.heads / a.groups);
        float *row = b.scratch + i * padded;
        for (long d = 0; d < a.width; d++) row[d] *= a.scaling;
        write_row(row, a.width, a.dtype, (void *)at(p.grad_query, size, batch, head, query), p.grad_query.stride[3]);
        if (!a.row_keys.data) continue;
        *floats(p.grad_amplitude, batch, head, query) = b.amplitude[i];
        for (long n = 0; n < a.buckets; n++) {
            const double amplitude = *floats(a.amplitude, batch, head, query);
            b.head_mean[local * a.buckets + n] += amplitude * b.mean[n * LANES + i];
            b.head_sigma[local * a.buckets + n] += amplitude * b.sigma[n * LANES + i];
        }
    }
}

static void backward_group(const AttentionBackward &p, long batch, long group, BackwardBlock &b) {
    const Attention &a = p.forward;
    const long heads = a.heads / a.groups, width = whole_vectors(a.width), value_width = whole_vectors(a.value_width);
    memset(b.grad_key, 0, a.keys * width * sizeof(float));
    memset(b.grad_value, 0, a.keys * value_width * sizeof(float));
    memset(b.head_mean, 0, heads * a.buckets * sizeof(double));
    memset(b.head_sigma, 0, heads * a.buckets * sizeof(double));
    for (long row = 0; row < heads * a.queries; row += LANES) {
        read_lanes(a, batch, group, row, b.lanes);
        b.lanes.noisy = a.row_keys.data;  // an amplitude of 0 has a gradient as well
        read_backward_lanes(p, batch, b);
        for (long first = 0; first < a.keys; first += KEYS_AT_ONCE)
            if (read_keys(a, batch, first, b.lanes, b.keys)) backward_keys(a, batch, group, b);
        write_backward_lanes(p, batch, b);
    }
    const long size = item_size(a.dtype);
    for (long j = 0; j < a.keys; j++) {
        write_row(b.grad_key + j * width, a.width, a.dtype, (void *)at(p.grad_key, size, batch, group, j), p.grad_key.stride[3]);
        write_row(b.grad_value + j * value_width, a.value_width, a.dtype, (void *)at(p.grad_value, size, batch, group, j),
                  p.grad_value.stride[3]);
    }
    for (long head = 0; head < heads; head++)
        for (long n = 0; n < a.buckets; n++) {
            floats(p.grad_mean, batch, group * heads + head)[n] = (float)b.head_mean[head * a.buckets + n];
            floats(p.grad_sigma, batch, group * heads + head)[n] = (float)b.head_sigma[head * a.buckets + n];
        }
}

// 0, or 1 when memory ran out.
static int attention_backward(const AttentionBackward &p) {
    const Attention &a = p.forward;
    return run_tasks<BackwardBlock>(a, a.batch * a.groups, [&](long task, BackwardBlock &block) {
        backward_group(p, task / a.groups, task % a.groups, block);
    });
}

}  // namespace
