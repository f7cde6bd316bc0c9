// The two sides of a block of scores: lanes, which are queries, and keys. Scores are kept keys first, as rows of
// lanes, so that what belongs to a query (its noise keys, maximum and sum) is a vector and nothing is reduced across.
#pragma once
#include <climits>

#include "noise.h"

namespace {

constexpr long LANES = 96;           // queries of a block: whole tiles of 3 vectors in every instruction set
constexpr long KEYS_AT_ONCE = 64;    // keys of a block: its scores, keys and values fit the first cache
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

// Up to LANES rows of one group; a row is a (query head, query), the heads of the group one after another.
struct Lanes {
    float amplitude[LANES];          // in log2 units
    float mean[LANES], sigma[LANES]; // of the bucket that the whole block of keys lies in
    uint32_t row_key_0[LANES], row_key_1[LANES];
    int32_t slot[LANES], floor[LANES];  // visible are floor < key slot ≤ slot
    int32_t position[LANES];
    int32_t head[LANES], query[LANES];
    long batch, count, vectors;
    int32_t lowest, highest;            // slot
    int32_t first_position, last_position;
    bool noisy;
};

struct Keys {
    int32_t slot[KEYS_AT_ONCE];         // INT_MAX for padding
    uint32_t word[KEYS_AT_ONCE];
    int32_t position[KEYS_AT_ONCE];
    long first, count;
    bool all_seen;
    int lowest_bucket, highest_bucket;
};

INLINE int32_t narrow(int64_t x) { return (int32_t)(x > INT_MAX - 1 ? INT_MAX - 1 : x < -INT_MAX ? -INT_MAX : x); }

static void read_lanes(const Attention &a, long batch, long group, long first_row, Lanes &lanes) {
    const long rows = a.heads / a.groups * a.queries, left = rows - first_row;
    lanes.batch = batch, lanes.count = left < LANES ? left : LANES;
    lanes.vectors = (lanes.count + VL - 1) / VL;
    lanes.lowest = lanes.first_position = INT_MAX, lanes.highest = lanes.last_position = INT_MIN;
    lanes.noisy = false;
    for (long i = 0; i < lanes.vectors * VL; i++) {
        lanes.amplitude[i] = 0, lanes.row_key_0[i] = lanes.row_key_1[i] = 0, lanes.position[i] = 0;
        if (i >= lanes.count) {  // idle lanes see nothing
            lanes.slot[i] = INT_MIN, lanes.floor[i] = INT_MAX, lanes.head[i] = lanes.head[0], lanes.query[i] = 0;
            continue;
        }
        const long row = first_row + i, head = group * (a.heads / a.groups) + row / a.queries, query = row % a.queries;
        lanes.head[i] = (int32_t)head, lanes.query[i] = (int32_t)query;
        const int64_t slot = *longs(a.query_slots, batch, query);
        lanes.slot[i] = narrow(slot), lanes.floor[i] = narrow(slot - a.window);
        if (lanes.slot[i] < lanes.lowest) lanes.lowest = lanes.slot[i];
        if (lanes.slot[i] > lanes.highest) lanes.highest = lanes.slot[i];
        if (!a.row_keys.data) continue;
        lanes.amplitude[i] = *floats(a.amplitude, batch, head, query) * LOG2_E;
        const int64_t *key = longs(a.row_keys, batch, head, query);
        lanes.row_key_0[i] = (uint32_t)key[0], lanes.row_key_1[i] = (uint32_t)key[a.row_keys.stride[3]];
        lanes.noisy |= lanes.amplitude[i] != 0;  // also true for NaN
        if (a.buckets) {
            const int32_t position = narrow(*longs(a.query_positions, batch, query));
            lanes.position[i] = position;
            if (position < lanes.first_position) lanes.first_position = position;
            if (position > lanes.last_position) lanes.last_position = position;
        }
    }
}

// floor(log2(distance + 1)), at most `last`.
INLINE int bucket_of(int64_t distance, int last) {
    if (distance < 0) distance = 0;
    const int log = 63 - __builtin_clzll((unsigned long long)distance + 1);
    return log < last ? log : last;
}
INLINE vi bucket_of(vi distance, int last) {
    vi x = (distance > 0 ? distance : vi{}) + 1;
    x &= ~(x >> 1);  // without the second bit the conversion cannot round up to the next power
    const vi log = ((vi)to_float(x) >> 23) - 127;
    return log < last ? log : splat((int32_t)last);
}

// The keys from `first` on that some lane may see; false where there are none.
static bool read_keys(const Attention &a, long batch, long first, const Lanes &lanes, Keys &keys) {
    const bool listed = a.listed.data != nullptr;
    const long n = a.keys - first < KEYS_AT_ONCE ? a.keys - first : KEYS_AT_ONCE;
    const int64_t *slots = longs(a.key_slots, batch, first), step = a.key_slots.stride[1];
    const int64_t nearest_floor = lanes.highest - a.window, farthest_floor = lanes.lowest - a.window;
    keys.first = first, keys.count = 0, keys.all_seen = !listed;
    for (long j = 0; j < n; j++) {
        const int64_t slot = slots[j * step];
        keys.slot[j] = slot < 0 ? INT_MAX : narrow(slot);
        // what follows the last visible key is left out
        if (slot >= 0 && (listed || (keys.slot[j] <= lanes.highest && slot > farthest_floor))) keys.count = j + 1;
    }
    for (long j = 0; j < keys.count; j++) keys.all_seen &= keys.slot[j] <= lanes.lowest && keys.slot[j] > nearest_floor;
    if (keys.count == 0) return false;
    if (!lanes.noisy) return true;
    int32_t nearest = INT_MAX, farthest = INT_MIN;
    const int64_t *positions = longs(a.key_positions, batch, 0);
    for (long j = 0; j < keys.count; j++) {
        const int64_t position = positions[(first + j) * a.key_positions.stride[1]];
        const uint32_t clamped = position < 0 ? 0 : (uint32_t)position;
        keys.word[j] = clamped * KEY_MULTIPLIER;
        keys.position[j] = narrow(clamped);
        if (keys.position[j] < nearest) nearest = keys.position[j];
        if (keys.position[j] > farthest) farthest = keys.position[j];
    }
    if (a.buckets) {
        const int last = (int)a.buckets - 1;
        keys.lowest_bucket = bucket_of((int64_t)lanes.first_position - farthest, last);
        keys.highest_bucket = bucket_of((int64_t)lanes.last_position - nearest, last);
    }
    return true;
}

}  // namespace
