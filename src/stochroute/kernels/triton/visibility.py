"""Who sees whom, inside a kernel, and the spans of keys or queries outside which nobody sees anybody.

A query sees the key slots from `first` to `last`, both int32 (slots lie below 2³¹); padding and whatever lies
outside the tensors gets numbers that fit no range, so that no other mask is needed.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochroute.kernels.scores import Visibility
from stochroute.kernels.triton.arguments import visibility_tensors
from stochroute.kernels.triton.launch import launch

_LAST_SLOT = tl.constexpr(2**31 - 1)
_CHUNK = 1024  # slots looked at in one step
_EXPLICIT_CHUNK = 64  # the same where each step looks at a whole tile of the mask


@triton.jit
def visible_slots(visibility, batch, queries, inside):
    """The first and the last key slot that each query sees, int32; an empty range for queries not inside."""
    if visibility.explicit is not None:
        first = tl.where(inside, 0, 1)
        last = tl.where(inside, _LAST_SLOT, 0)
    else:
        slots = visibility.query_slots
        at = slots.start + batch * slots.strides[0] + queries * slots.strides[1]
        last = tl.load(at, mask=inside, other=-1)
        first = tl.maximum(last - tl.load(visibility.window) + 1, 0).to(tl.int32)
        last = last.to(tl.int32)
    return first, last


@triton.jit
def load_key_slots(visibility, batch, keys, inside):
    """int32, −1 for padding and for keys not inside."""
    slots = visibility.key_slots
    at = slots.start + batch * slots.strides[0] + keys * slots.strides[1]
    return tl.load(at, mask=inside, other=-1).to(tl.int32)


@triton.jit
def is_visible(visibility, batch, first, last, slots, queries, keys):
    """A tile of booleans; first, last and queries broadcast against slots and keys."""
    seen = (slots >= first) & (slots <= last)
    if visibility.explicit is not None:
        explicit = visibility.explicit
        start = explicit.start + batch * explicit.strides[0]
        at = start + queries.to(tl.int64) * explicit.strides[1] + keys.to(tl.int64) * explicit.strides[2]
        seen = seen & (tl.load(at, mask=seen, other=0) != 0)
    return seen


@triton.jit
def key_span(visibility, batch, first, last, queries, start, stop, CHUNK: tl.constexpr):
    """The narrowest range of keys in [start, stop) that holds all that any of the queries sees, as two int32.

    Where none sees any, the range begins at or after its end.
    """
    begin, end = stop, start
    lowest, highest = tl.min(tl.where(first <= last, first, _LAST_SLOT), 0), tl.max(last, 0)
    for chunk in range(start, stop, CHUNK):
        keys = chunk + tl.arange(0, CHUNK)
        slots = load_key_slots(visibility, batch, keys, keys < stop)
        if visibility.explicit is None:
            seen = (slots >= lowest) & (slots <= highest)
        else:
            tile = is_visible(
                visibility, batch, first[:, None], last[:, None], slots[None, :], queries[:, None], keys[None, :]
            )
            seen = tl.max(tile.to(tl.int32), 0) == 1
        begin = tl.minimum(begin, tl.min(tl.where(seen, keys, stop), 0))
        end = tl.maximum(end, tl.max(tl.where(seen, keys + 1, start), 0))
    return begin, end


@triton.jit
def load_span(spans, block):
    """The span of one of the blocks that run along program axis 0, with the batch along axis 2."""
    at = spans + (tl.program_id(2) * tl.num_programs(0) + block) * 2
    return tl.load(at), tl.load(at + 1)


@triton.jit
def _store_span(spans, begin, end):
    at = spans + (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(at, begin)
    tl.store(at + 1, end)


@triton.jit(do_not_specialize=["queries", "keys"])
def _key_spans(spans, visibility, queries, keys, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first, last = visible_slots(visibility, batch, rows, rows < queries)
    begin, end = key_span(visibility, batch, first, last, rows, 0, keys, CHUNK)
    _store_span(spans, begin, end)


@triton.jit(do_not_specialize=["queries", "keys"])
def _query_spans(spans, visibility, queries, keys, BLOCK: tl.constexpr, CHUNK: tl.constexpr):
    batch = tl.program_id(2).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    slots = load_key_slots(visibility, batch, columns, columns < keys)
    lowest, highest = tl.min(tl.where(slots >= 0, slots, _LAST_SLOT), 0), tl.max(slots, 0)
    begin, end = queries, 0
    for chunk in range(0, queries, CHUNK):
        rows = chunk + tl.arange(0, CHUNK)
        first, last = visible_slots(visibility, batch, rows, rows < queries)
        if visibility.explicit is None:
            seen = (first <= last) & (first <= highest) & (last >= lowest)
        else:
            tile = is_visible(
                visibility, batch, first[:, None], last[:, None], slots[None, :], rows[:, None], columns[None, :]
            )
            seen = tl.max(tile.to(tl.int32), 1) == 1
        begin = tl.minimum(begin, tl.min(tl.where(seen, rows, queries), 0))
        end = tl.maximum(end, tl.max(tl.where(seen, rows + 1, 0), 0))
    _store_span(spans, begin, end)


def chunk_size(visibility: Visibility) -> int:
    """Slots that a search for a span looks at in one step."""
    return _CHUNK if visibility.explicit is None else _EXPLICIT_CHUNK


def key_spans(visibility: Visibility, block: int) -> Tensor:
    """int32 (b, query blocks, 2): begin and end of the keys that the queries of a block see between them."""
    return _spans(_key_spans, visibility, visibility.query_slots.shape[1], block)


def query_spans(visibility: Visibility, block: int) -> Tensor:
    """int32 (b, key blocks, 2): begin and end of the queries that see a key of a block."""
    return _spans(_query_spans, visibility, visibility.key_slots.shape[1], block)


def _spans(kernel, visibility: Visibility, length: int, block: int) -> Tensor:
    batch, keys = visibility.key_slots.shape
    blocks = triton.cdiv(length, block)
    spans = torch.empty(batch, blocks, 2, dtype=torch.int32, device=visibility.key_slots.device)
    launch(
        kernel, (blocks, 1, batch), spans, visibility_tensors(visibility), visibility.query_slots.shape[1], keys,
        BLOCK=block, CHUNK=chunk_size(visibility)
    )  # fmt: skip
    return spans
