"""Attention with noise in Triton: the kernel that suits the number of queries."""

from torch import Tensor

from stochroute.kernels.scores import AttentionInputs
from stochroute.kernels.triton.attention_decode import DECODE_QUERIES, decode
from stochroute.kernels.triton.attention_forward import forward


def attention(inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """The output and its log-sum-exp, see `stochroute.kernels.triton.attention_forward.forward`."""
    return (decode if inputs.query.shape[2] <= DECODE_QUERIES else forward)(inputs)
