"""The tensors of `AttentionInputs` as kernels take them: each with its strides, so that none is copied first.

A tuple that a kernel compares with None holds no None itself, which Triton 3.6 cannot unpack; hence buckets stand
beside the noise, not in it.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from stochroute.kernels.scores import ScoreNoise, Visibility


class Strided(NamedTuple):
    """A tensor and its strides, in elements."""

    start: Tensor
    strides: tuple[int, ...]


class VisibilityTensors(NamedTuple):
    """`Visibility` for a kernel; explicit is uint8."""

    key_slots: Strided
    query_slots: Strided
    window: Tensor
    explicit: Strided | None


class NoiseTensors(NamedTuple):
    """`ScoreNoise` for a kernel."""

    row_keys: Strided
    key_positions: Strided
    amplitude: Strided


class BucketTensors(NamedTuple):
    """`DistanceBuckets` for a kernel; count is the number of buckets."""

    mean: Strided
    sigma: Strided
    query_positions: Strided
    count: int


def strided(tensor: Tensor) -> Strided:
    """The tensor as it lies."""
    return Strided(tensor, tensor.stride())


def visibility_tensors(visibility: Visibility) -> VisibilityTensors:
    """The same for a kernel, nothing copied."""
    explicit = visibility.explicit
    return VisibilityTensors(
        key_slots=strided(visibility.key_slots),
        query_slots=strided(visibility.query_slots),
        window=visibility.window,
        explicit=None if explicit is None else strided(explicit.view(torch.uint8)),
    )


def noise_tensors(noise: ScoreNoise | None) -> NoiseTensors | None:
    """The noise without its buckets, for a kernel."""
    if noise is None:
        return None
    return NoiseTensors(strided(noise.row_keys), strided(noise.key_positions), strided(noise.amplitude))


def bucket_tensors(noise: ScoreNoise | None) -> BucketTensors | None:
    """The buckets of the noise, for a kernel; None where there are none."""
    if noise is None or noise.buckets is None:
        return None
    buckets = noise.buckets
    return BucketTensors(
        mean=strided(buckets.mean),
        sigma=strided(buckets.sigma),
        query_positions=strided(buckets.query_positions),
        count=buckets.mean.shape[1],
    )


def padded_width(width: int) -> int:
    """The power of two that holds a head; 16 is the least that a matrix product takes."""
    return max(16, triton.next_power_of_2(width))
