"""Attention on the processor: float32 and bfloat16, any strides, any head size; nothing is copied on the way in."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from stochroute.compiled import Strided, call, strided
from stochroute.kernels.cpu.codes import DISTRIBUTIONS, DTYPES
from stochroute.kernels.scores import AttentionGradients, AttentionInputs, empty_output, like_projection


class _Attention(ctypes.Structure):
    """Mirrors struct Attention of csrc/abi.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "heads", "groups", "queries", "keys", "width", "value_width")),
        ("buckets", ctypes.c_int64),
        ("window", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("dtype", "distribution", "threads")),
        *((name, ctypes.c_float) for name in ("scaling", "softcap")),
        *((name, Strided) for name in ("query", "key", "value", "key_slots", "query_slots", "listed", "row_keys")),
        *((name, Strided) for name in ("key_positions", "query_positions", "amplitude", "mean", "sigma", "sinks")),
        *((name, Strided) for name in ("out", "lse")),
    ]


class _AttentionBackward(ctypes.Structure):
    """Mirrors struct AttentionBackward of csrc/abi.h."""

    _fields_ = [
        ("forward", _Attention),
        *((name, Strided) for name in ("grad_out", "grad_query", "grad_key", "grad_value")),
        *((name, Strided) for name in ("grad_amplitude", "grad_mean", "grad_sigma", "delta")),
    ]


def forward(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """The attention, and the logarithm of each query's sum of weights.

    Returns:
        (b, h, q, d_v) in the value's dtype, which lies in memory as (b, q, h, d_v); float32 (b, h, q), +∞ where a
        query sees no key.
    """
    out = empty_output(inputs.query, inputs.value)
    lse = inputs.query.new_empty(inputs.query.shape[:3], dtype=torch.float32)
    arguments, _made_for_it = _describe(inputs, out, lse)
    call("attention_forward", arguments)
    return out, lse


def backward(inputs: AttentionInputs, out: Tensor, lse: Tensor, grad_out: Tensor) -> AttentionGradients:
    """The gradients; scores and noise are computed again.

    Args:
        inputs: what `forward` was given.
        out: what it returned; `lse` likewise.
        grad_out: (b, h, q, d_v), the gradient of `out`.
    """
    noise, sinks = inputs.noise, inputs.sinks
    forwards, _made_for_it = _describe(inputs, out, lse)
    grads = [like_projection(t) for t in (inputs.query, inputs.key, inputs.value)]
    delta = torch.empty_like(lse)
    amplitude = mean = sigma = None
    if noise is not None:
        amplitude = torch.empty_like(lse)
        if noise.buckets is not None:
            mean, sigma = (lse.new_empty(*lse.shape[:2], forwards.buckets) for _ in range(2))
    optional = {"grad_amplitude": amplitude, "grad_mean": mean, "grad_sigma": sigma}
    arguments = _AttentionBackward(
        forward=forwards,
        grad_out=strided(grad_out),
        **{f"grad_{name}": strided(t) for name, t in zip(("query", "key", "value"), grads, strict=True)},
        **{name: strided(t) for name, t in optional.items()},
        delta=strided(delta),
    )
    call("attention_backward", arguments)
    grad_sinks = None
    if sinks is not None:
        grad_sinks = -(torch.exp(sinks[None, :, None] - lse) * delta).sum((0, 2))
    return AttentionGradients(
        *grads,
        sinks=grad_sinks,
        amplitude=amplitude,
        mean=None if mean is None else mean.sum(0),
        sigma=None if sigma is None else sigma.sum(0),
    )


def _describe(inputs: AttentionInputs, out: Tensor, lse: Tensor) -> tuple[Any, Tensor | None]:
    """The struct, and a tensor that was made for it and has to outlive the call."""
    query, key, visibility, noise = inputs.query, inputs.key, inputs.visibility, inputs.noise
    arguments = _Attention(
        batch=query.shape[0],
        heads=query.shape[1],
        groups=key.shape[1],
        queries=query.shape[2],
        keys=key.shape[2],
        width=query.shape[3],
        value_width=inputs.value.shape[3],
        window=int(visibility.window),
        dtype=DTYPES[query.dtype],
        threads=torch.get_num_threads(),
        scaling=inputs.scaling,
        softcap=inputs.softcap or 0.0,
        query=strided(query),
        key=strided(key),
        value=strided(inputs.value),
        key_slots=strided(visibility.key_slots),
        query_slots=strided(visibility.query_slots),
        out=strided(out),
        lse=strided(lse),
    )
    listed = visibility.explicit
    if listed is not None:
        listed = listed.transpose(1, 2).contiguous()  # a key's queries side by side
        arguments.listed = strided(listed)
    if inputs.sinks is not None:
        arguments.sinks = strided(inputs.sinks)
    if noise is not None:
        arguments.distribution = DISTRIBUTIONS[noise.distribution]
        arguments.row_keys = strided(noise.row_keys)
        arguments.key_positions = strided(noise.key_positions)
        arguments.amplitude = strided(noise.amplitude)
        if noise.buckets is not None:
            arguments.buckets = noise.buckets.mean.shape[1]
            arguments.query_positions = strided(noise.buckets.query_positions)
            arguments.mean, arguments.sigma = strided(noise.buckets.mean), strided(noise.buckets.sigma)
    return arguments, listed
