"""Arms without paths: beam search, diverse beam search and Monte Carlo dropout, through transformers' own generate."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from stochroute.evaluation.arms import WithoutPaths
from stochroute.routing.sites import find_feed_forward, find_layers


@torch.no_grad()
def write_without_paths(
    model: Any, inputs: dict[str, Tensor], samples: int, way: WithoutPaths, new_tokens: int, pad: int, seed: int
) -> Tensor:
    """`samples` texts of each prompt: int64 (prompts · samples, length), prompts included, rows of one together.

    Args:
        model: a transformers causal language model that is not routed.
        inputs: input_ids and attention_mask, (prompts, width), padded at the left.
        samples: texts a prompt.
        way: beams, diversity_penalty or dropout.
        new_tokens: at most.
        pad: token id that fills up ended rows.
        seed: of the dropout masks; searches draw nothing.
    """
    stops = model.generation_config.eos_token_id
    common: dict[str, Any] = {
        "do_sample": False,
        "max_new_tokens": new_tokens,
        "pad_token_id": pad,
        "eos_token_id": stops,
        "use_cache": True,
    }
    if way.beams is not None:
        settings = GenerationConfig(num_beams=way.beams, num_return_sequences=samples, **common)
        return model.generate(**inputs, generation_config=settings)
    rows = {name: tensor.repeat_interleave(samples, 0) for name, tensor in inputs.items()}
    settings = GenerationConfig(**common)
    if way.diversity_penalty is not None:
        groups = DiverseGroups(samples, way.diversity_penalty)
        return model.generate(**rows, generation_config=settings, logits_processor=LogitsProcessorList([groups]))
    assert way.dropout is not None, "a setting without paths is a search or dropout"
    with dropped(model, way.dropout, seed):
        return model.generate(**rows, generation_config=settings)


class DiverseGroups(LogitsProcessor):
    """Diverse beam search with one beam a group (Vijayakumar et al. 2018, arXiv 1610.02424, algorithm 1 with B' = 1).

    At each step the groups of a prompt choose one after the other: log p(token) − λ · (earlier groups that took it).
    transformers has dropped its own diverse beam search. Under greedy decoding the row's argmax is the group's choice.
    """

    def __init__(self, groups: int, penalty: float):
        self._groups = groups
        self._penalty = penalty

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_p = scores.float().log_softmax(-1).view(-1, self._groups, scores.shape[-1])  # (prompts, groups, v)
        taken = torch.zeros_like(log_p[:, 0])
        chosen = torch.full_like(log_p, -torch.inf)
        for group in range(self._groups):
            best = (log_p[:, group] - self._penalty * taken).argmax(-1, keepdim=True)
            chosen[:, group].scatter_(-1, best, 0.0)
            taken.scatter_add_(-1, best, torch.ones_like(best, dtype=taken.dtype))
        return chosen.view_as(scores)


@contextmanager
def dropped(model: Any, rate: float, seed: int) -> Iterator[None]:
    """Inside, a share `rate` of every feed-forward output is dropped, the rest scaled up (Gal & Ghahramani 2016).

    Modern models come without dropout modules, so hooks do it. torch's global generator is as before afterwards.
    """

    def drop(module: Any, arguments: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.nn.functional.dropout(output[0], rate), *output[1:])
        return torch.nn.functional.dropout(output, rate)

    blocks = find_feed_forward(model, find_layers(model), None).values()
    devices = [model.device] if model.device.type == "cuda" else []
    handles = [block.register_forward_hook(drop) for block in blocks]
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed % (1 << 63))
            yield
    finally:
        for handle in handles:
            handle.remove()
