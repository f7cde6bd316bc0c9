"""Rows with the same noise, written one token at a time by one forward pass for all of them."""

import inspect
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from stochroute.noise import key_words
from stochroute.serving.cache import RowCache
from stochroute.serving.jobs import Row, Token
from stochroute.serving.noise import Noise, Variants
from stochroute.serving.prefilling import Source
from stochroute.serving.sampling import choose_tokens

_LEAST_LOGPROB = -9999.0  # JSON has no infinity and no NaN; OpenAI writes this number


class Group:
    """Rows in flight.

    Attributes:
        rows: in the order of the cache's rows.
    """

    def __init__(self, variants: Variants, noise: Noise):
        self.rows: list[Row] = []
        self._variants = variants
        self._noise = noise
        self._model: Any = variants.routed.model
        self._cache = RowCache(self._model.config.get_text_config().num_hidden_layers)
        inner = getattr(self._model, "get_base_model", lambda: self._model)()
        self._accepted = inspect.signature(inner.forward).parameters
        self._keys: Tensor | None = None

    def join(self, rows: list[Row], sources: list[Source]) -> None:
        """Adds rows, each with the cache of its prompt."""
        self.rows += rows
        self._keys = None
        for source, alike in groupby(sources, key=lambda source: source):
            self._cache.join(source.cache, source.row, source.length, len(list(alike)))

    def leave(self, places: list[int]) -> None:
        """Removes the rows at these places."""
        if places:
            self.rows = [self.rows[place] for place in self._cache.leave(places)]
            self._keys = None

    def write(self) -> tuple[list[int], dict[int, Token]]:
        """Chooses the next token of every row. Returns the ids, and by place what was asked about probabilities."""
        rows, cache, device = self.rows, self._cache, self._model.device
        cache.make_room()
        first = torch.tensor(cache.first, device=device)
        arguments: dict[str, Any] = {
            "input_ids": torch.tensor([[row.last_token] for row in rows], device=device),
            "attention_mask": (torch.arange(cache.begin, cache.end + 1, device=device) >= first[:, None]).long(),
            "past_key_values": cache,
            "use_cache": True,
        }
        position = cache.end - first
        if "position_ids" in self._accepted:
            arguments["position_ids"] = position[:, None]
        starts = [row.start for row in rows]
        with self._variants.follow(self._noise, [row.path for row in rows], starts):
            logits: Tensor = self._model(**arguments).logits[:, -1].float()
        cache.step()
        if self._keys is None:
            self._keys = key_words([row.path for row in rows], device)
        samplings = [row.job.work.sampling for row in rows]
        chosen = choose_tokens(logits, samplings, self._keys, position + 1, [row.point for row in rows])
        return chosen.tolist(), self._probabilities(logits, chosen)

    def _probabilities(self, logits: Tensor, chosen: Tensor) -> dict[int, Token]:
        wanted = [place for place, row in enumerate(self.rows) if row.job.work.top_logprobs is not None]
        if not wanted:
            return {}
        places = torch.tensor(wanted, device=logits.device)
        log_p = logits[places].log_softmax(-1).nan_to_num(nan=_LEAST_LOGPROB, neginf=_LEAST_LOGPROB)
        own = log_p.gather(-1, chosen[places, None])[:, 0].tolist()
        most = max(self.rows[place].job.work.top_logprobs or 0 for place in wanted)
        values, ids = (tensor.tolist() for tensor in log_p.topk(most, -1))
        found: dict[int, Token] = {}
        for line, place in enumerate(wanted):
            count = self.rows[place].job.work.top_logprobs or 0
            top = list(zip(ids[line], values[line], strict=True))[:count]
            found[place] = Token(int(chosen[place]), own[line], top)
        return found
