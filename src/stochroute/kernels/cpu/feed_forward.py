"""Structural noise on the processor: drawn and added in one pass, in float32 or bfloat16."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from stochroute.compiled import Strided, call, strided
from stochroute.kernels.cpu.codes import DISTRIBUTIONS, DTYPES
from stochroute.kernels.feed_forward import FeedForwardNoise

_TOKENS_PER_CHUNK = 64  # as in csrc/abi.h
_LONGEST_VECTOR = 16  # float32 numbers


class _FeedForward(ctypes.Structure):
    """Mirrors struct FeedForward of csrc/abi.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "length", "hidden", "layer")),
        *((name, ctypes.c_int32) for name in ("dtype", "distribution", "threads", "relative")),
        *((name, Strided) for name in ("states", "path_keys", "blocks", "factor", "mu", "sigma", "out")),
        *((name, Strided) for name in ("grad_out", "grad_partial")),
    ]


def add_noise(states: Tensor, noise: FeedForwardNoise) -> Tensor:
    """states (b, s, hidden) with their noise, as `stochroute.kernels.feed_forward.add_noise`."""
    out = torch.empty_like(states)
    call("feed_forward", _describe(states, noise, out))
    return out


def add_noise_backward(grad_out: Tensor, states: Tensor, noise: FeedForwardNoise) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of states (b, s, hidden), mu and sigma (hidden,), the noise drawn again."""
    batch, length, hidden = states.shape
    chunks = -(-batch * length // _TOKENS_PER_CHUNK)
    padded = -(-hidden // _LONGEST_VECTOR) * _LONGEST_VECTOR
    partial = torch.empty(chunks, 2, padded)
    grad_states = torch.empty_like(states)
    arguments = _describe(states, noise, grad_states)
    arguments.grad_out, arguments.grad_partial = strided(grad_out), strided(partial)
    call("feed_forward_backward", arguments)
    grad_mu, grad_sigma = partial.sum(0)[:, :hidden]
    return grad_states, grad_mu.to(noise.mu.dtype), grad_sigma.to(noise.sigma.dtype)


def _describe(states: Tensor, noise: FeedForwardNoise, out: Tensor) -> Any:
    return _FeedForward(
        batch=states.shape[0],
        length=states.shape[1],
        hidden=states.shape[2],
        layer=noise.layer,
        dtype=DTYPES[states.dtype],
        distribution=DISTRIBUTIONS[noise.distribution],
        threads=torch.get_num_threads(),
        relative=noise.relative,
        states=strided(states),
        path_keys=strided(noise.keys),
        blocks=strided(noise.blocks),
        factor=strided(noise.factor),
        mu=strided(noise.mu),
        sigma=strided(noise.sigma),
        out=strided(out),
    )
