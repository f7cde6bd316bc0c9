// Rows of a tensor as contiguous float32, whatever their dtype and strides, and scratch memory.
#pragma once
#include <cstdlib>

#include "abi.h"
#include "simd.h"

namespace {

INLINE const char *at(const Strided &t, long size, long i0, long i1 = 0, long i2 = 0) {
    return (const char *)t.data + size * (i0 * t.stride[0] + i1 * t.stride[1] + i2 * t.stride[2]);
}
INLINE const int64_t *longs(const Strided &t, long i0, long i1 = 0, long i2 = 0) {
    return (const int64_t *)at(t, 8, i0, i1, i2);
}
INLINE float *floats(const Strided &t, long i0, long i1 = 0, long i2 = 0) { return (float *)at(t, 4, i0, i1, i2); }

INLINE long item_size(int32_t dtype) { return dtype == FLOAT32 ? 4 : 2; }
INLINE long whole_vectors(long n) { return (n + VL - 1) / VL * VL; }

INLINE float from_bfloat16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

INLINE uint16_t to_bfloat16(float x) {  // to nearest, ties to even; NaN stays NaN
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

// n numbers of one row, times `factor`, with zeros up to a whole vector.
INLINE void read_row(const void *row, int64_t step, int32_t dtype, long n, float factor, float *to) {
    if (dtype == FLOAT32) {
        const float *from = (const float *)row;
        if (step == 1)
            for (long i = 0; i < n; i++) to[i] = from[i] * factor;
        else
            for (long i = 0; i < n; i++) to[i] = from[i * step] * factor;
    } else {
        const uint16_t *from = (const uint16_t *)row;
        if (step == 1)
            for (long i = 0; i < n; i++) to[i] = from_bfloat16(from[i]) * factor;
        else
            for (long i = 0; i < n; i++) to[i] = from_bfloat16(from[i * step]) * factor;
    }
    for (long i = n; i < whole_vectors(n); i++) to[i] = 0;
}

INLINE void write_row(const float *from, long n, int32_t dtype, void *row, int64_t step) {
    if (dtype == FLOAT32)
        for (long i = 0; i < n; i++) ((float *)row)[i * step] = from[i];
    else
        for (long i = 0; i < n; i++) ((uint16_t *)row)[i * step] = to_bfloat16(from[i]);
}

// to[c][r] = from[r][c], for rows and columns that are multiples of 4.
INLINE void transpose(const float *from, long from_row, long rows, long columns, float *to, long to_row) {
    typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
    for (long r = 0; r < rows; r += 4)
        for (long c = 0; c < columns; c += 4) {
            const float *f = from + r * from_row + c;
            const v4 a = *(const v4 *)f, b = *(const v4 *)(f + from_row);
            const v4 d = *(const v4 *)(f + 2 * from_row), e = *(const v4 *)(f + 3 * from_row);
            const v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            const v4 de = __builtin_shufflevector(d, e, 0, 4, 1, 5), DE = __builtin_shufflevector(d, e, 2, 6, 3, 7);
            float *t = to + c * to_row + r;
            *(v4 *)t = __builtin_shufflevector(ab, de, 0, 1, 4, 5);
            *(v4 *)(t + to_row) = __builtin_shufflevector(ab, de, 2, 3, 6, 7);
            *(v4 *)(t + 2 * to_row) = __builtin_shufflevector(AB, DE, 0, 1, 4, 5);
            *(v4 *)(t + 3 * to_row) = __builtin_shufflevector(AB, DE, 2, 3, 6, 7);
        }
}

// Cuts scratch memory into pieces that begin on cache lines; without memory it only adds their sizes up.
struct Scratch {
    char *memory;
    size_t used = 0;

    template <class T>
    T *take(long n) {
        char *piece = memory ? memory + used : nullptr;
        used += ((size_t)n * sizeof(T) + 63) / 64 * 64;
        return (T *)piece;
    }
};

// The memory behind the pieces that holder.take(sizes, scratch) asks for; `start` is null when there was none left.
class ScratchMemory {
   public:
    template <class Sizes, class Holder>
    ScratchMemory(const Sizes &sizes, Holder &holder) {
        Scratch measure{nullptr};
        holder.take(sizes, measure);
        start = (char *)aligned_alloc(64, measure.used + 64);
        Scratch scratch{start};
        if (start) holder.take(sizes, scratch);
    }
    ~ScratchMemory() { free(start); }
    ScratchMemory(const ScratchMemory &) = delete;
    char *start;
};

}  // namespace
