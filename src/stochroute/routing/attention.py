"""Attention routing: softmax((QKᵀ + N)/√d_k) V through transformers' attention and mask interfaces.

While a path is followed, the model's config names our implementation; at all other times it names the stock one,
so that the original model runs on its own attention and mask.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from stochroute.config import Attention, layer_indices, layer_strengths
from stochroute.kernels import ATTENTION, AUTOMATIC, AttentionInputs, DistanceBuckets, ScoreNoise, Visibility, attend
from stochroute.kernels.scores import score_dtype
from stochroute.noise import attention_row_keys
from stochroute.routing.compact_mask import compact_mask, read_compact_mask
from stochroute.routing.walk import Context, Passage

IMPLEMENTATION = "stochroute"
_SITE = "_stochroute_attention"  # a plain attribute of each attention module
_SHARED = "attention"


class AttentionNoise(nn.Module):
    """The attention noise of one model.

    Parameters (float32, both multiplied by the strength):
        sigma: (n noised layers, heads), or with distance buckets (n noised layers, heads, buckets); starts at 1.
        mean: (n noised layers, heads, buckets), with distance buckets only; starts at 0.
    """

    strength: Tensor
    layer_words: Tensor

    def __init__(
        self,
        config: Attention,
        context: Context,
        model: PreTrainedModel,
        sites: dict[int, nn.Module],
        depth: int,
        kernel: str,
    ):
        super().__init__()
        if kernel not in (AUTOMATIC, *ATTENTION):
            known = ", ".join((AUTOMATIC, *ATTENTION))
            raise ValueError(f"attention_kernel={kernel!r} is unknown: choose one of {known}")
        self.config = config
        self.context = context
        self.kernel = kernel
        self.layers = layer_indices(config.layers, list(sites), depth)
        strengths = layer_strengths(config.proportion, self.layers)
        self.heads = int(model.config.num_attention_heads)
        buckets = () if config.distance_buckets is None else (config.distance_buckets,)
        self.sigma = nn.Parameter(torch.ones(len(self.layers), self.heads, *buckets))
        if buckets:
            self.mean = nn.Parameter(torch.zeros(len(self.layers), self.heads, *buckets))
        self.register_buffer("strength", torch.tensor(strengths), persistent=False)
        self.register_buffer("layer_words", torch.tensor(self.layers, dtype=torch.int64), persistent=False)
        self.silent = not any(strengths)
        self._attachment = _Attachment(model, list(sites.values()))
        if not self.silent:
            context.switch = self._attachment.switched
        for layer, module in sites.items():
            row = self.layers.index(layer) if layer in self.layers else None
            object.__setattr__(module, _SITE, _Site(self, row))

    def detach(self) -> None:
        """Gives the model its own config back and takes the attributes off its attention modules."""
        self._attachment.undo()

    def begin_passage(self, passage: Passage) -> None:
        """Prepares what the noise of each layer is made from, for all layers at once."""
        blocks = passage.blocks(self.config.hold).expand_as(passage.positions)
        row_keys = attention_row_keys(passage.walk.keys, self.heads, blocks, self.layer_words)
        factor = passage.factor(self.config.schedule)
        amplitude = factor[:, None] * self.strength.to(factor.device)[:, None, None, None]
        if self.config.distance_buckets is None:
            sigma, mean = self.sigma[:, None, :, None], [None] * len(self.layers)
        else:
            sigma, mean = self.sigma, self.mean.unbind()
        tensors = row_keys.unbind(), amplitude.unbind(), sigma.unbind(), mean
        passage.shared[_SHARED] = [_LayerShare(*own) for own in zip(*tensors, strict=True)]

    def score_noise(self, row: int, passage: Passage, key_positions: Tensor, query: Tensor) -> ScoreNoise:
        """The noise of one layer for one call of its attention."""
        own: _LayerShare = passage.shared[_SHARED][row]
        dtype, device = score_dtype(query.dtype), query.device
        amplitude, sigma, buckets = own.amplitude.to(device, dtype), own.sigma.to(device, dtype), None
        if own.mean is None:
            amplitude = amplitude * sigma
        else:
            amplitude = amplitude.expand(-1, self.heads, -1)
            buckets = DistanceBuckets(own.mean.to(device, dtype), sigma, passage.positions.to(device))
        return ScoreNoise(
            row_keys=own.row_keys.to(device),
            key_positions=key_positions,
            amplitude=amplitude,
            distribution=self.config.distribution,
            buckets=buckets,
        )


class _LayerShare(NamedTuple):
    """One layer's share of what a pass prepares.

    Attributes:
        row_keys: int64 (b, heads, q, 2).
        amplitude: float32 (b, 1, q), strength times schedule.
        sigma: float32 (1, heads, 1), or with distance buckets (heads, buckets).
        mean: with distance buckets only: float32 (heads, buckets).
    """

    row_keys: Tensor
    amplitude: Tensor
    sigma: Tensor
    mean: Tensor | None


@dataclass(eq=False)
class _Site:
    """What an attention module knows of its routing; no nn.Module, so that it is no submodule of the model."""

    noise: AttentionNoise
    row: int | None  # None: a layer that stays clean


class _Attachment:
    """The model's own copy of its config, so that a second model made from the same config object is left alone."""

    def __init__(self, model: PreTrainedModel, sites: list[nn.Module]):
        self._sites = sites
        # a PEFT model shows the attributes of the transformers model inside it
        able = getattr(model, "_can_set_attn_implementation", None)
        if able is None or not able():
            raise ValueError(
                f"{type(model).__name__} keeps its own attention code and does not use transformers' attention "
                f"interface: attention routing cannot reach it, set attention=None"
            )
        copies: dict[int, Any] = {}
        copy.deepcopy(model.config, copies)
        self._owners: list[tuple[nn.Module, Any, Any]] = []
        for module in model.modules():
            original = module.__dict__.get("config")
            if original is not None and id(original) in copies:
                self._owners.append((module, original, copies[id(original)]))
                module.config = copies[id(original)]
        self._configs = list({id(own): own for _, _, own in self._owners}.values())
        self._stock = [config._attn_implementation for config in self._configs]

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        """Names our implementation in the model's config, or the stock one, for as long as it is entered."""
        before = [config._attn_implementation for config in self._configs]
        for config, stock in zip(self._configs, self._stock, strict=True):
            config._attn_implementation = IMPLEMENTATION if on else stock
        try:
            yield
        finally:
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation = name

    def undo(self) -> None:
        for module, original, own in self._owners:
            # what the user changed meanwhile stays changed
            original.__dict__.update({k: v for k, v in own.__dict__.items() if k not in original.__dict__ or _plain(v)})
            module.config = original
        for module in self._sites:
            object.__delattr__(module, _SITE)


def _plain(value: object) -> bool:
    return not hasattr(value, "to_dict")  # sub-configs are restored as objects of their own


def routed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention along the current paths; arguments and result as transformers' attention interface has them.

    Returns:
        (b, q, h, d_v), and no attention weights.
    """
    site: _Site = getattr(module, _SITE)
    passage = site.noise.context.current()
    if passage is None:
        raise RuntimeError("the attention implementation was switched to stochroute by hand: use follow() instead")
    visibility, key_positions = _sight(passage, attention_mask, query.shape[2], key.shape[2])
    noise = None if site.row is None else site.noise.score_noise(site.row, passage, key_positions, query)
    inputs = AttentionInputs(
        query=query,
        key=key,
        value=value,
        visibility=visibility,
        noise=noise,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        sinks=s_aux,
        dropout=dropout,
    )
    out = attend(inputs, site.noise.kernel)
    return out.transpose(1, 2).contiguous(), None


def _sight(passage: Passage, mask: Tensor | None, queries: int, keys: int) -> tuple[Visibility, Tensor]:
    """Who sees whom, and the key positions: int64 (b, k). Layers share their masks, so each is read once a pass."""
    for known, sight in passage.masks:
        if known is mask:
            return sight
    visibility, key_positions = read_compact_mask(mask, queries, keys)
    if visibility.explicit is not None and keys == passage.positions.shape[1]:
        # packed sequences count their positions anew, which the padding mask cannot know
        key_positions = torch.where(key_positions >= 0, passage.positions.to(key_positions.device), -1)
    sight = visibility, key_positions
    if mask is not None:
        passage.masks.append((mask, sight))
    return sight


AttentionInterface.register(IMPLEMENTATION, routed_attention)
AttentionMaskInterface.register(IMPLEMENTATION, compact_mask)
