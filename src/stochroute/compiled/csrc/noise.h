// The counter-based noise: the bits of stochroute/noise, in registers.
#pragma once
#include "memory.h"

namespace {

constexpr uint32_t KEY_MULTIPLIER = 0x85EBCA6Bu;

// One word for each (query, key); `key_word` is the key's position times KEY_MULTIPLIER.
// Lanes run along queries or along keys: the other side is one number for all.
template <class KeyWord, class RowKey>
INLINE vu score_word(KeyWord key_word, RowKey row_key_0, RowKey row_key_1) {
    vu x = key_word ^ row_key_0;
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x += row_key_1;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}

// Integers until the last product, so that every machine gives the same float32.
INLINE vf normal(vu word) {
    const vu dither = (word * 0x9E3779B1u) >> 16;
    const vi half = (popcount(word) << 16) + (vi)dither;
    // popcount − 16 and the centre of the dither, both doubled: −16 · 2¹⁷ + 1 − 2¹⁶
    return to_float((half << 1) + (1 - (33 << 16))) * 0x1.682aecp-19f;
}

INLINE vf uniform(vu word) { return to_float((vi)((word >> 8) << 1) + (1 - (1 << 24))) * 0x1.bb67aep-24f; }

INLINE vf rademacher(vu word) { return to_float(1 - ((vi)(word >> 31) << 1)); }

INLINE vf unit_noise(vu word, int32_t distribution) {
    return distribution == NORMAL ? normal(word) : distribution == UNIFORM ? uniform(word) : rademacher(word);
}

// Philox4x32-10 for VL counters and keys; the words replace the counters.
INLINE void philox(vu (&counter)[4], vu key_0, vu key_1) {
    for (int round = 0; round < 10; round++) {
        vu high_0, low_0, high_2, low_2;
        multiply_wide(counter[0], 0xD2511F53u, high_0, low_0);
        multiply_wide(counter[2], 0xCD9E8D57u, high_2, low_2);
        counter[0] = high_2 ^ counter[1] ^ key_0;
        counter[2] = high_0 ^ counter[3] ^ key_1;
        counter[1] = low_2;
        counter[3] = low_0;
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
}

// ξ of one position: `n` numbers, rounded up to whole blocks of 4 · VL, which `to` must hold.
static void draw_vector(int64_t key_0, int64_t key_1, int64_t block, int64_t layer, uint32_t kind, int32_t distribution,
                        long n, float *to) {
    uint32_t lane[VL];
    for (long i = 0; i < VL; i++) lane[i] = (uint32_t)i;
    for (long first = 0; first < n; first += 4 * VL) {
        vu words[4] = {load(lane) + (uint32_t)(first / 4), splat((uint32_t)block), splat((uint32_t)layer), splat(kind)};
        philox(words, splat((uint32_t)key_0), splat((uint32_t)key_1));
        float numbers[4][VL];  // the four words of a counter serve four neighbouring numbers
        for (long w = 0; w < 4; w++) store(numbers[w], unit_noise(words[w], distribution));
        transpose(numbers[0], VL, 4, VL, to + first, 4);
    }
}

}  // namespace
