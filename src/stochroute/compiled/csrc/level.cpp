// All kernels for one instruction set: compiled several times, with other flags and another LEVEL each time. Everything
// but the table has internal linkage, so that no function compiled for a newer processor serves an older one.
#include "level.h"

#include "backward.h"
#include "decode.h"
#include "feed_forward.h"
#include "forward.h"
#include "philox.h"

#define CAT(a, b) a##b
#define TABLE(level) CAT(kernels_, level)

extern const Kernels TABLE(LEVEL) = {
    [](const Attention &a) {
        return a.heads / a.groups * a.queries <= DECODE_ROWS ? attention_decode(a) : attention_forward(a);
    },
    attention_backward,
    feed_forward,
    feed_forward_backward,
    philox_grid,
};
