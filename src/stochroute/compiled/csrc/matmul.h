// C (+)= A · B for a few rows of vectors held in registers; the elements of A are broadcast from wherever they lie.
#pragma once
#include "simd.h"

namespace {

// Accumulators, the vectors of B and a broadcast must fit the registers: 32 with AVX-512 and on aarch64, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr long TILE_ROWS = 8;
#else
constexpr long TILE_ROWS = 4;
#endif

template <long ROWS, long VECTORS, bool ADD>
INLINE void tile(long depth, const float *a, long a_row, long a_step, const float *b, long b_step, float *c, long c_row) {
    vf sums[ROWS][VECTORS];
    for (long r = 0; r < ROWS; r++)
        for (long n = 0; n < VECTORS; n++) sums[r][n] = ADD ? load(c + r * c_row + n * VL) : vf{};
    for (long k = 0; k < depth; k++) {
        vf row[VECTORS];
        for (long n = 0; n < VECTORS; n++) row[n] = load(b + k * b_step + n * VL);
        for (long r = 0; r < ROWS; r++) {
            const float x = a[r * a_row + k * a_step];
            for (long n = 0; n < VECTORS; n++) sums[r][n] += x * row[n];
        }
    }
    for (long r = 0; r < ROWS; r++)
        for (long n = 0; n < VECTORS; n++) store(c + r * c_row + n * VL, sums[r][n]);
}

template <long VECTORS, bool ADD>
static void columns(long rows, long depth, const float *a, long a_row, long a_step, const float *b, long b_step,
                    float *c, long c_row) {
    long r = 0;
    for (; r + TILE_ROWS <= rows; r += TILE_ROWS)
        tile<TILE_ROWS, VECTORS, ADD>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
    for (; r + 2 <= rows; r += 2)
        tile<2, VECTORS, ADD>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
    for (; r < rows; r++)
        tile<1, VECTORS, ADD>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row);
}

// C[r][v] (+)= Σ_k A(r, k) B[k][v]: A(r, k) = a[r · a_row + k · a_step], and B and C are rows of whole vectors.
template <bool ADD>
static void product(long rows, long vectors, long depth, const float *a, long a_row, long a_step, const float *b,
                    long b_step, float *c, long c_row) {
    long v = 0;
    while (v < vectors) {
        const long left = vectors - v;
        const float *from = b + v * VL;
        float *to = c + v * VL;
        // four are better split 2 + 2 than 3 + 1
        if (left == 3 || left > 4) {
            columns<3, ADD>(rows, depth, a, a_row, a_step, from, b_step, to, c_row), v += 3;
        } else if (left > 1) {
            columns<2, ADD>(rows, depth, a, a_row, a_step, from, b_step, to, c_row), v += 2;
        } else {
            columns<1, ADD>(rows, depth, a, a_row, a_step, from, b_step, to, c_row), v += 1;
        }
    }
}

}  // namespace
