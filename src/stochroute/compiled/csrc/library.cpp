// The exported functions. `level` chooses the instruction set, see supported_levels.
#include "level.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_popcount;
#endif

static const Kernels *const LEVELS[] = {
    &kernels_baseline,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
    &kernels_avx512_popcount,
#endif
};

// How many levels this processor can run; each includes the ones before it.
EXPORT int32_t stochroute_levels() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return 2;
    return __builtin_cpu_supports("avx512vpopcntdq") ? 4 : 3;
#else
    return 1;
#endif
}

// Each returns 0, or 1 when memory ran out.
#define EXPORTED(name, Arguments) \
    EXPORT int32_t stochroute_##name(int32_t level, const Arguments *a) { return LEVELS[level]->name(*a); }
EXPORTED(attention_forward, Attention)
EXPORTED(attention_backward, AttentionBackward)
EXPORTED(feed_forward, FeedForward)
EXPORTED(feed_forward_backward, FeedForward)
EXPORTED(philox_grid, PhiloxGrid)
