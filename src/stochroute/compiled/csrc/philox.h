// A grid of Philox4x32-10 words, for counters and keys that broadcast.
#pragma once
#include "noise.h"

namespace {

static int philox_grid(const PhiloxGrid &g) {
    const long inner = g.size[GRID_DIMS - 1];
    long outer = 1;
    for (long d = 0; d < GRID_DIMS - 1; d++) outer *= g.size[d];
#pragma omp parallel for num_threads(g.threads) if (g.threads > 1 && outer * inner > 4096)
    for (long o = 0; o < outer; o++) {
        const int64_t *from[6];  // c0 … c3, k0, k1 at the beginning of this row
        int64_t step[6];
        for (long t = 0; t < 6; t++) {
            int64_t offset = 0;
            for (long d = GRID_DIMS - 2, rest = o; d >= 0; rest /= g.size[d], d--)
                offset += rest % g.size[d] * g.stride[t][d];
            from[t] = g.data[t] + offset, step[t] = g.stride[t][GRID_DIMS - 1];
        }
        for (long first = 0; first < inner; first += VL) {
            uint32_t words[6][VL], grid[4][VL];
            const long n = inner - first < VL ? inner - first : VL;
            for (long t = 0; t < 6; t++)
                for (long i = 0; i < VL; i++) words[t][i] = (uint32_t)from[t][(first + (i < n ? i : 0)) * step[t]];
            vu counter[4] = {load(words[0]), load(words[1]), load(words[2]), load(words[3])};
            philox(counter, load(words[4]), load(words[5]));
            for (long w = 0; w < 4; w++) store(grid[w], counter[w]);
            int64_t *out = g.out + (o * inner + first) * 4;
            for (long i = 0; i < n; i++)
                for (long w = 0; w < 4; w++) out[4 * i + w] = grid[w][i];
        }
    }
    return 0;
}

}  // namespace
