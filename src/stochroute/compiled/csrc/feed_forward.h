// Structural noise in one pass over the states: h' = h + factor · (rms(h) or 1) · (μ + σ ⊙ ξ), ξ drawn on the way.
#pragma once
#include <cmath>

#include "noise.h"

namespace {

constexpr uint32_t FFN_KIND = 1;

// The row of one token at work.
struct TokenRow {
    float *states, *xi, *grad, *mu, *sigma;
    int64_t key_0, key_1, block;  // whose draw xi holds
    bool drawn;

    void take(const FeedForward &f, Scratch &scratch) {
        const long n = whole_vectors(f.hidden), whole_draws = (f.hidden + 4 * VL - 1) / (4 * VL) * (4 * VL);
        states = scratch.take<float>(n), grad = scratch.take<float>(n);
        mu = scratch.take<float>(n), sigma = scratch.take<float>(n);
        xi = scratch.take<float>(whole_draws);
        drawn = false;
    }

    // Neighbouring tokens of one block share their draw.
    void draw(const FeedForward &f, long batch, long token) {
        const int64_t *key = longs(f.path_keys, batch), next_block = *longs(f.blocks, batch, token);
        const int64_t k0 = key[0], k1 = key[f.path_keys.stride[1]];
        if (drawn && k0 == key_0 && k1 == key_1 && next_block == block) return;
        key_0 = k0, key_1 = k1, block = next_block, drawn = true;
        draw_vector(k0, k1, block, f.layer, FFN_KIND, f.distribution, f.hidden, xi);
    }

    // rms(h), or 1 where the noise is absolute.
    float size(const FeedForward &f) const {
        if (!f.relative) return 1.0f;
        vf squares{};
        for (long i = 0; i < whole_vectors(f.hidden); i += VL) squares += load(states + i) * load(states + i);
        return std::sqrt(sum_of(squares)) / std::sqrt((float)f.hidden);
    }
};

INLINE void add_token_noise(const FeedForward &f, long batch, long token, TokenRow &row) {
    const char *from = at(f.states, item_size(f.dtype), batch, token);
    read_row(from, f.states.stride[2], f.dtype, f.hidden, 1.0f, row.states);
    const float factor = *floats(f.factor, batch, token);
    if (factor != 0) {  // a clean position keeps its bits
        row.draw(f, batch, token);
        const float amplitude = factor * row.size(f);
        for (long i = 0; i < whole_vectors(f.hidden); i += VL)
            store(row.states + i, load(row.states + i) +
                                      amplitude * (load(row.mu + i) + load(row.sigma + i) * load(row.xi + i)));
    }
    write_row(row.states, f.hidden, f.dtype, (void *)at(f.out, item_size(f.dtype), batch, token), f.out.stride[2]);
}

// d_states = g + factor · (g · (μ + σξ)) · h / (n · rms(h)); at h = 0 the norm has no slope. d_mu += amplitude · g,
// d_sigma += amplitude · g ⊙ ξ.
INLINE void differentiate_token(const FeedForward &f, long batch, long token, TokenRow &row, float *grad_mu,
                                float *grad_sigma) {
    const long size = item_size(f.dtype), n = whole_vectors(f.hidden);
    read_row(at(f.states, size, batch, token), f.states.stride[2], f.dtype, f.hidden, 1.0f, row.states);
    read_row(at(f.grad_out, size, batch, token), f.grad_out.stride[2], f.dtype, f.hidden, 1.0f, row.grad);
    const float factor = *floats(f.factor, batch, token);
    if (factor != 0) {
        row.draw(f, batch, token);
        const float rms = row.size(f), amplitude = factor * rms;
        vf along{};
        for (long i = 0; i < n; i += VL) {
            const vf grad = load(row.grad + i), xi = load(row.xi + i);
            along += grad * (load(row.mu + i) + load(row.sigma + i) * xi);
            store(grad_mu + i, load(grad_mu + i) + amplitude * grad);
            store(grad_sigma + i, load(grad_sigma + i) + amplitude * grad * xi);
        }
        const float slope = f.relative && rms != 0 ? factor * sum_of(along) / (rms * (float)f.hidden) : 0.0f;
        for (long i = 0; i < n; i += VL) store(row.grad + i, load(row.grad + i) + slope * load(row.states + i));
    }
    write_row(row.grad, f.hidden, f.dtype, (void *)at(f.out, size, batch, token), f.out.stride[2]);
}

// Runs work(chunk, first token, last token, row) over chunks of tokens. 0, or 1 when memory ran out.
template <class Work>
static int run_chunks(const FeedForward &f, const Work &work) {
    const long tokens = f.batch * f.length, chunks = (tokens + TOKENS_PER_CHUNK - 1) / TOKENS_PER_CHUNK;
    int failed = 0;
#pragma omp parallel num_threads(f.threads) if (f.threads > 1 && chunks > 1) reduction(| : failed)
    {
        TokenRow row;
        ScratchMemory memory(f, row);
        failed |= !memory.start;
        if (memory.start) {
            read_row(f.mu.data, f.mu.stride[0], FLOAT32, f.hidden, 1.0f, row.mu);
            read_row(f.sigma.data, f.sigma.stride[0], FLOAT32, f.hidden, 1.0f, row.sigma);
        }
#pragma omp for schedule(static)
        for (long chunk = 0; chunk < chunks; chunk++) {
            const long first = chunk * TOKENS_PER_CHUNK, last = first + TOKENS_PER_CHUNK;
            if (memory.start) work(chunk, first, last < tokens ? last : tokens, row);
        }
    }
    return failed;
}

static int feed_forward(const FeedForward &f) {
    return run_chunks(f, [&](long, long first, long last, TokenRow &row) {
        for (long t = first; t < last; t++) add_token_noise(f, t / f.length, t % f.length, row);
    });
}

static int feed_forward_backward(const FeedForward &f) {
    const long n = whole_vectors(f.hidden);
    return run_chunks(f, [&](long chunk, long first, long last, TokenRow &row) {
        float *grad_mu = floats(f.grad_partial, chunk), *grad_sigma = floats(f.grad_partial, chunk, 1);
        memset(grad_mu, 0, n * sizeof(float)), memset(grad_sigma, 0, n * sizeof(float));
        for (long t = first; t < last; t++) differentiate_token(f, t / f.length, t % f.length, row, grad_mu, grad_sigma);
    });
}

}  // namespace
