// What crosses the border between Python and the compiled kernels: plain C structs of pointers, sizes and strides.
// stochroute/kernels/cpu and stochroute/compiled/philox.py mirror them field by field.
#pragma once
#include <cstdint>

extern "C" {

// Strides count elements. `data` is null where there is no such tensor.
struct Strided {
    void *data;
    int64_t stride[4];
};

enum Dtype : int32_t { FLOAT32 = 0, BFLOAT16 = 1 };
enum Distribution : int32_t { NORMAL = 0, UNIFORM = 1, RADEMACHER = 2 };

// softmax(cap(scaling · QKᵀ) + N) V, see stochroute/kernels/scores.py. The letters are its shapes.
struct Attention {
    int64_t batch, heads, groups, queries, keys, width, value_width;  // b h g q k d d_v
    int64_t buckets;                                                  // n, 0 for none
    int64_t window;
    int32_t dtype, distribution, threads;
    float scaling, softcap;  // softcap 0: none
    Strided query, key, value;
    Strided key_slots, query_slots;              // int64 (b, k), (b, q)
    Strided listed;                              // bool (b, k, q): the explicit mask, keys first
    Strided row_keys;                            // int64 (b, h, q, 2); null: no noise
    Strided key_positions, query_positions;      // int64 (b, k), (b, q); the latter for buckets only
    Strided amplitude;                           // float32 (b, h, q)
    Strided mean, sigma;                         // float32 (h, n)
    Strided sinks;                               // float32 (h,)
    Strided out;                                 // (b, h, q, d_v) in dtype
    Strided lse;                                 // float32 (b, h, q), natural logarithm
};

struct AttentionBackward {
    Attention forward;
    Strided grad_out;                            // (b, h, q, d_v) in dtype
    Strided grad_query, grad_key, grad_value;    // in dtype
    Strided grad_amplitude;                      // float32 (b, h, q), or null
    Strided grad_mean, grad_sigma;               // float32 (b, h, n), or null
    Strided delta;                               // float32 (b, h, q): Σ grad_out · out, which the sinks need
};

// h' = h + factor · (rms(h) or 1) · (μ + σ ⊙ ξ), see stochroute/kernels/feed_forward.py.
struct FeedForward {
    int64_t batch, length, hidden;
    int64_t layer;
    int32_t dtype, distribution, threads, relative;
    Strided states;       // (b, s, hidden) in dtype
    Strided path_keys;    // int64 (b, 2)
    Strided blocks;       // int64 (b, s)
    Strided factor;       // float32 (b, s)
    Strided mu, sigma;    // float32 (hidden,)
    Strided out;          // (b, s, hidden) in dtype: the result, or in the backward pass the gradient of the states
    Strided grad_out;     // backward only, as states
    Strided grad_partial; // backward only, float32 (chunks, 2, hidden): of μ and σ
};

constexpr int64_t GRID_DIMS = 6;

// Words of Philox4x32-10 for counters c0 … c3 and keys k0, k1 of one shape; see stochroute/noise/draws.py.
struct PhiloxGrid {
    int64_t size[GRID_DIMS];
    const int64_t *data[6];
    int64_t stride[6][GRID_DIMS];
    int64_t *out;  // (size…, 4), contiguous
    int32_t threads;
};

}  // extern "C"

// Tokens whose gradients of μ and σ are summed together: fixed, so that the sum does not depend on the threads.
constexpr int64_t TOKENS_PER_CHUNK = 64;
