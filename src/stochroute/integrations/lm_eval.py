"""Routed models as models of the lm-evaluation-harness (EleutherAI's lm-eval, 0.4.13 or later).

    stochroute lm-eval run --model stochroute --model_args pretrained=NAME,strength=0.1,paths=8,seed=7 --tasks hellaswag

    import stochroute.integrations.lm_eval                                  # adds the model "stochroute"
    lm_eval.simple_evaluate("stochroute", {"pretrained": NAME, "paths": 8}, tasks=["hellaswag"])

The harness has no way to find models of other packages by itself, so either the command above or the import is needed.
"""

# pyright: reportMissingImports=false
# (an extra, not among the development tools)
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils_hf import stop_sequences_criteria
from torch import Tensor
from tqdm import tqdm

from stochroute.config import RoutingConfig, Span, Structural
from stochroute.embedded import EMBEDDED, load
from stochroute.generation.settings import UNTRUNCATED
from stochroute.measuring.continuations import Continuation, log_probabilities
from stochroute.paths import check_integer, check_seed, derive_paths
from stochroute.routed import RoutedModel, route

Vote = Literal["mean", "majority"]
Request = tuple[Any, list[int], list[int]]  # (cache key, tokens of the context, tokens of the continuation)


@register_model("stochroute")
class RoutedLM(HFLM):
    """HFLM, the harness's model for transformers, along one path or a vote over K of them.

    Each context has K path ids of its own, derived from the seed and its tokens: the choices of a question are read
    along the same paths, and neither batch, order nor --limit changes them. The same seed gives the same results again;
    with strength 0 everything is HFLM's own.

    Args:
        pretrained: a folder, a name on the Hub, "embedded" for the embedded story model, or a loaded model.
        routing: the folder of a saved routing; None for a new one by the three below.
        strength, layers, span: of structural noise, as in `Structural` and `RoutingConfig`.
        paths: K.
        seed: derives the paths.
        vote: what K > 1 paths make of a request.
            "mean": the log of the mean probability over the paths, the likelihood of the mixture; a continuation is
            greedy where each token is the mixture's likeliest. Texts cannot be averaged.
            "majority": of the continuations of one context each path chooses the likeliest; a request's value is
            log((votes + mean share of probability) / (K + 1)), so that metrics by the likeliest choice, such as acc,
            see the vote. No likelihood: perplexity and length-normalised metrics make no sense of it. Of texts the one
            that was written most often, the first of equals.
        **arguments: HFLM's.

    Raises:
        ValueError: an argument is out of its range, or one excludes another.
    """

    def __init__(
        self,
        pretrained: Any = EMBEDDED,
        routing: str | None = None,
        strength: float | None = None,
        layers: Any = None,
        span: Span | None = None,
        paths: int = 1,
        seed: int = 0,
        vote: Vote = "mean",
        **arguments: Any,
    ):
        if check_integer("paths", paths, "give how many") < 1:
            raise ValueError(f"paths={paths}: give at least 1")
        if vote not in get_args(Vote):
            raise ValueError(f"vote={vote!r} is unknown: choose one of {', '.join(get_args(Vote))}")
        if routing is not None and (strength, layers, span) != (None, None, None):
            raise ValueError(f"strength, layers and span have no effect beside routing={routing!r}: leave them out")
        config = _config(strength, layers, span)
        if arguments.get("backend", "default") == "seq2seq":
            raise ValueError("backend='seq2seq': encoder-decoder models have no paths; choose a causal model")
        self.path_seed = check_seed(seed)
        self.number_of_paths = paths
        self.vote = vote
        if pretrained == EMBEDDED:
            pretrained, arguments["tokenizer"] = load()
        super().__init__(pretrained, **arguments)
        model = cast(Any, self.model)
        if routing is None:
            self.routed = route(model, config)
        else:
            self.routed = RoutedModel.from_pretrained(model, routing)
        self._sample = 0  # which of the K paths texts are written along

    def paths_of(self, context: Sequence[int]) -> list[int]:
        """The K path ids of a context, given by its tokens."""
        digest = hashlib.blake2b(",".join(map(str, context)).encode(), digest_size=4).digest()
        return derive_paths(self.path_seed, self.number_of_paths, prompt=int.from_bytes(digest, "little"))

    # ---- likelihoods ----

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if self.routed.silent or not requests:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        rows, k = [], self.number_of_paths
        for _, context, continuation in requests:
            kept = max(1, self.max_length + 1 - len(continuation))  # what is too long is cut at the left, as in HFLM
            rows += [Continuation(tuple(context[-kept:]), tuple(continuation), p) for p in self.paths_of(context)]
        size = override_bs or self.batch_size
        if not isinstance(size, int):
            raise ValueError(f"batch_size={size!r}: give a number of rows, which K paths share")
        along: list[list[Tensor | None]] = [[None] * k for _ in requests]
        found: list[tuple[float, bool]] = [(-math.inf, False)] * len(requests)
        totals = torch.zeros(len(requests), k, dtype=torch.float64)
        with tqdm(total=len(rows), disable=disable_tqdm or self.rank != 0, desc="Running paths") as bar:
            for index, log_p in log_probabilities(self.routed, rows, size):
                request, path = divmod(index, k)
                along[request][path] = log_p
                if all(one is not None for one in along[request]):
                    every = torch.stack(cast(list[Tensor], along[request]))  # (K, tokens, v)
                    along[request] = [None] * k  # a vocabulary wide: kept no longer than needed
                    totals[request], greedy = _read(every, torch.tensor(requests[request][2], device=every.device))
                    found[request] = float(totals[request].logsumexp(0)) - math.log(k), greedy
                bar.update(1)
        if self.vote == "majority" and k > 1:
            found = [(value, greedy) for value, (_, greedy) in zip(_votes(requests, totals), found, strict=True)]
        for (key, _, _), answer in zip(requests, found, strict=True):
            if key is not None:  # None for windows of a rolling likelihood, which is cached as a whole
                self.cache_hook.add_partial("loglikelihood", key, answer)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """HFLM's, the mixture taken window by window. ValueError for a majority, which has no likelihood."""
        if self.vote == "majority" and self.number_of_paths > 1:
            raise ValueError("vote='majority' has no likelihood of a whole text: choose vote=mean, or paths=1")
        return super().loglikelihood_rolling(requests, disable_tqdm)

    # ---- texts ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One text a request: along its path, or of the texts along its K paths the most frequent."""
        if self.number_of_paths > 1 and self.vote == "mean":
            raise ValueError("vote='mean' cannot average texts: choose vote=majority, or paths=1")
        texts = []
        try:
            for sample in range(self.number_of_paths):
                self._sample = sample
                texts.append(super().generate_until(requests, disable_tqdm))
        finally:
            self._sample = 0
        return [Counter(of_one).most_common(1)[0][0] for of_one in zip(*texts, strict=True)]

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **settings: Any) -> Tensor:
        samples = bool(settings.get("do_sample", settings.get("temperature", 0.0) > 0.0))
        if self.routed.silent and not samples:
            return super()._model_generate(context, max_length, stop, **settings)
        mask = settings.pop("attention_mask")
        temperature = settings.pop("temperature", 0.0)
        settings |= {"do_sample": samples}
        if samples:
            settings = {**UNTRUNCATED, "temperature": temperature or 1.0, **settings}
        contexts = [ids[on.bool()].tolist() for ids, on in zip(context, mask, strict=True)]
        return self.routed.generate(
            input_ids=context,
            attention_mask=mask,
            paths=[self.paths_of(ids)[self._sample] for ids in contexts],
            max_length=max_length,
            stopping_criteria=stop_sequences_criteria(self.tokenizer, stop, context.shape[1], context.shape[0]),
            pad_token_id=self.tokenizer.pad_token_id,
            rows_at_once=context.shape[0],  # the criteria above know this batch
            **settings,
        ).sequences

    def get_model_info(self) -> dict[str, Any]:
        """HFLM's, and what a replay needs."""
        from stochroute.generation.receipts import routing_hash

        own = {"routing": routing_hash(self.routed), "paths": self.number_of_paths, "path_seed": self.path_seed}
        return {**super().get_model_info(), **own, "vote": self.vote}


def _config(strength: Any, layers: Any, span: Any) -> RoutingConfig:
    given = {name: value for name, value in (("strength", strength), ("layers", layers)) if value is not None}
    return RoutingConfig(structural=Structural(**given), span=span or "generated")


def _read(log_p: Tensor, tokens: Tensor) -> tuple[Tensor, bool]:
    """Of one continuation along K paths: its log-probability along each, float64 (K,), and whether it is greedy.

    The mixture's next token is weighed by how likely each path made the tokens before it:
    p(v | y_<t) ∝ Σ_k p_k(y_<t) p_k(v | y_<t).

    Args:
        log_p: (K, tokens, v).
        tokens: int64 (tokens,).
    """
    own = log_p.gather(-1, tokens.expand(log_p.shape[0], -1)[..., None])[..., 0].double()  # (K, tokens)
    before = own.cumsum(-1) - own
    likeliest = (before[..., None] + log_p.double()).logsumexp(0).argmax(-1)
    return own.sum(-1).cpu(), bool((likeliest == tokens).all())


def _votes(requests: Sequence[Request], totals: Tensor) -> list[float]:
    """log((votes + mean share) / (K + 1)) of each request, K paths voting among the continuations of its context.

    Raises:
        ValueError: a context has a single continuation.
    """
    groups: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for index, (_, context, continuation) in enumerate(requests):
        groups.setdefault(tuple(context), {}).setdefault(tuple(continuation), []).append(index)
    k, values = totals.shape[1], [0.0] * len(requests)
    for choices in groups.values():
        if len(choices) < 2:
            raise ValueError(
                "vote='majority' needs several choices for one context, and a request of this task stands alone: "
                "choose vote=mean"
            )
        own = totals[[indices[0] for indices in choices.values()]]  # (choices, K)
        votes = torch.bincount(own.argmax(0), minlength=len(choices))
        share = own.softmax(0).mean(1)
        for position, indices in enumerate(choices.values()):
            value = math.log((float(votes[position]) + float(share[position])) / (k + 1))
            for index in indices:
                values[index] = value
    return values
