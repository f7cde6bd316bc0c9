// The counter-based noise: the bits of stochroute/noise, in registers.
#pragma once
#include "abi.h"
#include "simd.h"

namespace {

// One word for each lane's query and one key: `key_word` is the key's position times KEY_MULTIPLIER.
constexpr uint32_t KEY_MULTIPLIER = 0x85EBCA6Bu;

INLINE vu score_word(uint32_t key_word, vu row_key_0, vu row_key_1) {
    vu x = key_word ^ row_key_0;
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x += row_key_1;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}

// The same with lanes along keys and one query.
INLINE vu score_word(vu key_word, uint32_t row_key_0, uint32_t row_key_1) {
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

// Philox4x32-10 for VL counters c0 … c3 and keys k0, k1; the words replace the counters.
INLINE void philox(uint32_t (*counter)[VL], const uint32_t (*key)[VL]) {
    uint32_t k0[VL], k1[VL];
    memcpy(k0, key[0], sizeof k0), memcpy(k1, key[1], sizeof k1);
    uint32_t *c0 = counter[0], *c1 = counter[1], *c2 = counter[2], *c3 = counter[3];
    for (int round = 0; round < 10; round++)
        for (long i = 0; i < VL; i++) {
            const uint64_t p0 = (uint64_t)c0[i] * 0xD2511F53u, p1 = (uint64_t)c2[i] * 0xCD9E8D57u;
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0[i];
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1[i];
            c1[i] = (uint32_t)p1;
            c3[i] = (uint32_t)p0;
            k0[i] += 0x9E3779B9u;
            k1[i] += 0xBB67AE85u;
        }
}

// ξ of one position: `n` numbers, rounded up to whole blocks of 4 · VL, which `to` must hold.
static void draw_vector(int64_t key_0, int64_t key_1, int64_t block, int64_t layer, uint32_t kind, int32_t distribution,
                        long n, float *to) {
    for (long first = 0; first < n; first += 4 * VL) {
        uint32_t words[6][VL], in_order[4 * VL];
        for (long i = 0; i < VL; i++) {
            words[0][i] = (uint32_t)(first / 4 + i), words[1][i] = (uint32_t)block;
            words[2][i] = (uint32_t)layer, words[3][i] = kind;
            words[4][i] = (uint32_t)key_0, words[5][i] = (uint32_t)key_1;
        }
        philox(words, words + 4);
        for (long i = 0; i < VL; i++)
            for (long w = 0; w < 4; w++) in_order[4 * i + w] = words[w][i];
        for (long i = 0; i < 4 * VL; i += VL) store(to + first + i, unit_noise(load(in_order + i), distribution));
    }
}

}  // namespace
