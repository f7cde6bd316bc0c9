// Vectors of float32 and int32 through the compiler's vector extensions: one source for every instruction set.
// The vector is as wide as the flags of the translation unit allow.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace {

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu __attribute__((vector_size(VECTOR_BYTES)));
typedef float vf_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef int32_t vi_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t vu_unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

constexpr long VL = VECTOR_BYTES / 4;

INLINE vf load(const float *from) { return *(const vf_unaligned *)from; }
INLINE vi load(const int32_t *from) { return *(const vi_unaligned *)from; }
INLINE vu load(const uint32_t *from) { return *(const vu_unaligned *)from; }
INLINE void store(float *to, vf x) { *(vf_unaligned *)to = x; }
INLINE void store(uint32_t *to, vu x) { *(vu_unaligned *)to = x; }
INLINE vf splat(float x) { return x - vf{}; }  // minus, so that −0 stays −0
INLINE vi splat(int32_t x) { return x - vi{}; }
INLINE vu splat(uint32_t x) { return x - vu{}; }
INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }

INLINE float sum_of(vf x) {
    typedef float v4 __attribute__((vector_size(16)));
    v4 parts[VL / 4];
    memcpy(parts, &x, sizeof x);
    for (long width = VL / 8; width > 0; width /= 2)
        for (long i = 0; i < width; i++) parts[i] += parts[i + width];
    return (parts[0][0] + parts[0][1]) + (parts[0][2] + parts[0][3]);
}

// Set bits of each word.
INLINE vi popcount(vu word) {
#if defined(__AVX512VPOPCNTDQ__)
    return (vi)_mm512_popcnt_epi32((__m512i)word);
#elif defined(__AVX512BW__)
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i x = (__m512i)word;
    const __m512i bytes = _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(x, low)),
                                          _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), low)));
    return (vi)_mm512_madd_epi16(_mm512_maddubs_epi16(bytes, _mm512_set1_epi8(1)), _mm512_set1_epi16(1));
#elif defined(__AVX2__)
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i x = (__m256i)word;
    const __m256i bytes = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, low)),
                                          _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
    return (vi)_mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
#elif defined(__aarch64__)
    return (vi)vpaddlq_u16(vpaddlq_u8(vcntq_u8((uint8x16_t)word)));
#else
    word -= (word >> 1) & 0x55555555u;
    word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
    word = (word + (word >> 4)) & 0x0F0F0F0Fu;
    word += word >> 8;
    return (vi)((word + (word >> 16)) & 63u);
#endif
}

// The two halves of the 64-bit products of each word with one number.
INLINE void multiply_wide(vu a, uint32_t b, vu &high, vu &low) {
#if defined(__AVX512F__)
    const __m512i x = (__m512i)a, y = _mm512_set1_epi32((int)b);
    const __m512i even = _mm512_mul_epu32(x, y), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), y);
    low = (vu)_mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
    high = (vu)_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
#elif defined(__AVX2__)
    const __m256i x = (__m256i)a, y = _mm256_set1_epi32((int)b);
    const __m256i even = _mm256_mul_epu32(x, y), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), y);
    low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
    high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
#else
    for (long i = 0; i < VL; i++) {
        const uint64_t product = (uint64_t)a[i] * b;
        high[i] = (uint32_t)(product >> 32), low[i] = (uint32_t)product;
    }
#endif
}

// 2ˣ for x ≤ 126, to 2e-7 of the value; exactly 0 below −126, since denormals are ten times as slow; NaN stays NaN.
INLINE vf exp2_of(vf x) {
    const vf shift = splat(12582912.0f + 127.0f);  // 1.5 · 2²³: the sum's last bits hold round(x) + the exponent's bias
    const vf shifted = x + shift;
    const vf f = x - (shifted - shift);
    vf p = splat(1.537103110165626e-4f);  // the minimax polynomial of (2ᶠ − 1)/f on ±1/2
    p = p * f + 1.3399765305479833e-3f;
    p = p * f + 9.618372224618468e-3f;
    p = p * f + 5.550329331673872e-2f;
    p = p * f + 2.4022648468733382e-1f;
    p = p * f + 6.931472053375787e-1f;
    p = p * f + 1.0f;
    const vf power = (vf)((vi)shifted << 23);
    return x < -126.0f ? vf{} : p * power;
}

// tanh x to 2e-7 of the value: an odd polynomial around 0, 1 − 2/(e²ˣ + 1) beyond. NaN stays NaN.
INLINE vf tanh_of(vf x) {
    const vi sign = (vi)x & (int32_t)0x80000000;
    vf size = (vf)((vi)x ^ sign);
    size = size > 10.0f ? splat(10.0f) : size;  // tanh 10 is 1 in float32
    const vf z = size * size;
    vf p = splat(-5.624606980724897e-3f);
    p = p * z + 2.0573222798960858e-2f;
    p = p * z + -5.372156484695312e-2f;
    p = p * z + 1.3331250608628228e-1f;
    p = p * z + -3.3333275809998497e-1f;
    const vf small = size + size * z * p;
    const vf large = 1.0f - 2.0f / (exp2_of(size * 2.885390081777927f) + 1.0f);
    return (vf)((vi)(size < 0.625f ? small : large) | sign);
}

}  // namespace
