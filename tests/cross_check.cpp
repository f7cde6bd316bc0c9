// Prints what the compiled kernels compute for fixed inputs, so that a processor that no test machine has can be held
// against one that has been tested, under an emulator for example: see docs/kernels.md.
#include <cmath>
#include <cstdio>
#include <vector>

#include "../src/stochroute/compiled/csrc/abi.h"

extern "C" int32_t stochroute_attention_forward(int32_t level, const Attention *);
extern "C" int32_t stochroute_attention_backward(int32_t level, const AttentionBackward *);
extern "C" int32_t stochroute_feed_forward(int32_t level, const FeedForward *);

static uint32_t state = 1;
static float number() { return (float)(int32_t)((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f; }

static Strided tensor(void *data, int64_t b, int64_t h, int64_t s, int64_t d) { return {data, {b, h, s, d}}; }

int main() {
    const int64_t H = 4, G = 2, S = 150, D = 24;
    std::vector<float> q(H * S * D), k(G * S * D), v(G * S * D), go(H * S * D), out(H * S * D), lse(H * S);
    for (auto *t : {&q, &k, &v, &go})
        for (float &x : *t) x = number();
    std::vector<int64_t> slots(S), rows(H * S * 2);
    for (int64_t i = 0; i < S; i++) slots[i] = i;
    for (int64_t &x : rows) x = (state = state * 1664525u + 1013904223u);
    std::vector<float> amplitude(H * S, 0.7f), mean(H * 5, 0.1f), sigma(H * 5, 0.9f), sinks(H, 0.3f);

    Attention a{};
    a.batch = 1, a.heads = H, a.groups = G, a.queries = a.keys = S, a.width = a.value_width = D, a.buckets = 5;
    a.window = 100, a.threads = 1, a.scaling = 0.2f, a.softcap = 3.0f;
    a.query = tensor(q.data(), 0, S * D, D, 1), a.key = tensor(k.data(), 0, S * D, D, 1);
    a.value = tensor(v.data(), 0, S * D, D, 1), a.out = tensor(out.data(), 0, S * D, D, 1);
    a.key_slots = a.query_slots = a.key_positions = a.query_positions = tensor(slots.data(), 0, 1, 0, 0);
    a.row_keys = tensor(rows.data(), 0, S * 2, 2, 1), a.amplitude = tensor(amplitude.data(), 0, S, 1, 0);
    a.mean = tensor(mean.data(), 5, 1, 0, 0), a.sigma = tensor(sigma.data(), 5, 1, 0, 0);
    a.sinks = tensor(sinks.data(), 1, 0, 0, 0), a.lse = tensor(lse.data(), 0, S, 1, 0);
    stochroute_attention_forward(0, &a);

    std::vector<float> dq(q.size()), dk(k.size()), dv(v.size()), da(H * S), dm(H * 5), ds(H * 5), delta(H * S);
    AttentionBackward b{};
    b.forward = a, b.grad_out = tensor(go.data(), 0, S * D, D, 1);
    b.grad_query = tensor(dq.data(), 0, S * D, D, 1), b.grad_key = tensor(dk.data(), 0, S * D, D, 1);
    b.grad_value = tensor(dv.data(), 0, S * D, D, 1), b.grad_amplitude = tensor(da.data(), 0, S, 1, 0);
    b.grad_mean = tensor(dm.data(), 0, 5, 1, 0), b.grad_sigma = tensor(ds.data(), 0, 5, 1, 0);
    b.delta = tensor(delta.data(), 0, S, 1, 0);
    stochroute_attention_backward(0, &b);

    // states of 0, absolute noise of strength 1: the result is the noise, whose bits have to agree
    const int64_t N = 301;
    std::vector<float> states(7 * N, 0.0f), factor(7, 1.0f), mu(N, 0.0f), one(N, 1.0f), noise(7 * N);
    int64_t path[2] = {0x89ABCDEF, 0x01234567};
    FeedForward f{};
    f.batch = 1, f.length = 7, f.hidden = N, f.layer = 0xFFFFFFFF, f.threads = 1;
    f.states = tensor(states.data(), 0, N, 1, 0), f.out = tensor(noise.data(), 0, N, 1, 0);
    f.path_keys = tensor(path, 0, 1, 0, 0), f.blocks = tensor(slots.data(), 0, 1, 0, 0);
    f.factor = tensor(factor.data(), 0, 1, 0, 0), f.mu = tensor(mu.data(), 1, 0, 0, 0), f.sigma = tensor(one.data(), 1, 0, 0, 0);
    stochroute_feed_forward(0, &f);
    uint32_t bits = 0;
    for (float x : noise) {
        uint32_t word;
        __builtin_memcpy(&word, &x, 4);
        bits = bits * 31 + word;
    }
    printf("noise bits %08x\n", bits);

    const char *names[] = {"out", "lse", "dq", "dk", "dv", "damplitude", "dmean", "dsigma"};
    const std::vector<float> *all[] = {&out, &lse, &dq, &dk, &dv, &da, &dm, &ds};
    for (int t = 0; t < 8; t++) {
        double weighted = 0, absolute = 0;
        for (size_t i = 0; i < all[t]->size(); i++) weighted += (*all[t])[i] * std::cos(0.1 * i), absolute += std::fabs((*all[t])[i]);
        printf("%-11s %.4f %.4f\n", names[t], weighted, absolute);
    }
}
