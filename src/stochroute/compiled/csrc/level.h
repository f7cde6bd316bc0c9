// The kernels of one instruction set.
#pragma once
#include "abi.h"

struct Kernels {
    int (*attention_forward)(const Attention &);
    int (*attention_backward)(const AttentionBackward &);
    int (*feed_forward)(const FeedForward &);
    int (*feed_forward_backward)(const FeedForward &);
    int (*philox_grid)(const PhiloxGrid &);
};
