"""Prefill once: the prompts are computed clean, and their cache is spread over all paths."""

import inspect
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    StaticLayer,
    StaticSlidingWindowLayer,
)

_SHARE_OF_FREE_MEMORY = 0.5


@dataclass(frozen=True, eq=False)
class Prefill:
    """Keys and values of all tokens of some prompts but the last.

    Attributes:
        cache: transformers' dynamic cache, one row a prompt.
        prompts: indices of the prompts, in the order of the cache's rows.
    """

    cache: DynamicCache
    prompts: list[int]

    def spread(self, model: Any, rows: list[int], max_length: int | None) -> Any:
        """A cache with one row for each entry of `rows`, each a prompt's index.

        Args:
            model: the model that computed it.
            rows: the prompt of each row.
            max_length: tokens a static cache must hold; None for a dynamic cache.
        """
        index = torch.tensor([self.prompts.index(row) for row in rows])
        target = (
            DynamicCache(config=model.config)
            if max_length is None
            else StaticCache(config=model.config, max_cache_len=max_length)
        )
        for number, layer in enumerate(self.cache.layers):
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            target.update(layer.keys[index.to(layer.device)], layer.values[index.to(layer.device)], number)
        return target


def prefill(model: Any, input_ids: Tensor, attention_mask: Tensor, prompts: list[int]) -> Prefill:
    """Computes the given prompts up to their last token.

    The cache keeps every key, sliding window or not: whatever cache it is spread into takes what it needs.
    """
    chosen = torch.tensor(prompts, device=input_ids.device)
    mask = attention_mask[chosen, :-1]
    arguments: dict[str, Any] = {
        "input_ids": input_ids[chosen, :-1].to(model.device),
        "attention_mask": mask.to(model.device),
        "past_key_values": DynamicCache(),
        "use_cache": True,
    }
    # a PEFT model hides the signature of the model inside it
    accepted = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters
    if "position_ids" in accepted:  # GPT-2 and others count padding when left alone
        arguments["position_ids"] = (mask.long().cumsum(-1) - 1).clamp_min(0).to(model.device)
    if "logits_to_keep" in accepted:
        arguments["logits_to_keep"] = 1
    return Prefill(model(**arguments).past_key_values, prompts)


def can_be_static(model: Any) -> bool:
    """Whether all layers of the model keep plain or sliding keys and values, of one dtype, so that a static cache can
    hold them."""
    if torch.is_autocast_enabled(model.device.type):
        return False  # keys are rotated in float32, values are not
    layers = StaticCache(config=model.config, max_cache_len=1).layers
    return all(type(layer) in (StaticLayer, StaticSlidingWindowLayer) for layer in layers)


def can_be_shared(model: Any) -> bool:
    """Whether the model's whole state is a key-value cache; recurrent layers keep more."""
    if getattr(model, "_is_stateful", False):
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def rows_that_fit(model: Any, length: int) -> int:
    """How many rows of `length` tokens half of the free memory holds, by the size of their keys and values."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_a_row = 2 * config.num_hidden_layers * heads * width * length * model.dtype.itemsize
    if model.device.type == "cuda":
        free = torch.cuda.mem_get_info(model.device)[0]
    else:
        free = psutil.virtual_memory().available
    return max(1, int(_SHARE_OF_FREE_MEMORY * free / bytes_a_row))
