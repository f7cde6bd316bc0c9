"""Total entropy = what the sampler would still draw + what the path decides, along a text and for whole answers.

nats = decompose(routed, prompt_ids, text_ids, sr.derive_paths(7, 16))
nats.transmission                                                   # float32 (tokens,): where the path decides
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stochroute.measuring.nats import entropy, mixture
from stochroute.routing.attached import AttachedRouting

Ids = Sequence[int]

_LOGITS_AT_ONCE = 1 << 26  # numbers kept at once: 256 MB in float32


@dataclass(frozen=True, eq=False)
class TokenNats:
    """The decomposition at every token of a text, in nats: float32 (tokens,) each.

    total = conditional + transmission, exactly: H[mean_k p_k] = mean_k H[p_k] + I(token; path).

    Attributes:
        total: entropy of the mixture over paths.
        conditional: mean entropy along a path, what the sampler would still draw.
        transmission: I(token; path), what the path decides; in 0 … ln K for K paths.
        clean: entropy of the original model.
        surprise: −log p of the text's own token in the original model.
    """

    total: Tensor
    conditional: Tensor
    transmission: Tensor
    clean: Tensor
    surprise: Tensor


def decompose(routed: AttachedRouting, prompt: Ids, text: Ids, paths: Ids, temperature: float = 1.0) -> TokenNats:
    """The decomposition along a text that follows a prompt, every path forced through the same tokens.

    Noise enters where `generate` would let it: from the last prompt token on with span "generated", everywhere with
    "all".

    Args:
        routed: a routed model in eval mode.
        prompt: token ids, at least one: the last of them predicts the text's first.
        text: token ids, at least one.
        paths: ids, at least two.
        temperature: divides the logits, as in sampling; above 0.

    Raises:
        ValueError: prompt or text are empty, fewer than two paths, or the temperature is not above 0.
    """
    return decompose_each(routed, [prompt], [text], [paths], temperature)[0]


@torch.no_grad()
def decompose_each(
    routed: AttachedRouting,
    prompts: Sequence[Ids],
    texts: Sequence[Ids],
    paths: Sequence[Ids],
    temperature: float = 1.0,
) -> list[TokenNats]:
    """`decompose` for several texts, each with its prompt and its paths, computed together."""
    for ids in paths:
        check_paths(ids)
    rows: list[tuple[Ids, Ids, int | None]] = [
        (prompt, text, path) for prompt, text, ids in zip(prompts, texts, paths, strict=True) for path in (*ids, None)
    ]
    log_p = _forced(routed, rows, temperature)
    found: list[TokenNats] = []
    for text, ids in zip(texts, paths, strict=True):
        walked = torch.stack([next(log_p) for _ in (*ids, None)])  # (K + 1, tokens, v)
        along, clean = walked[:-1], walked[-1]
        total, conditional = entropy(mixture(along)), entropy(along).mean(0)
        own = clean.gather(-1, torch.tensor(text, device=clean.device)[:, None])[:, 0]
        parts = (total, conditional, total - conditional, entropy(clean), -own)
        found.append(TokenNats(*(part.cpu() for part in parts)))
    return found


@torch.no_grad()
def log_likelihoods(
    routed: AttachedRouting, prompt: Ids, answers: Sequence[Ids], paths: Ids, temperature: float = 1.0
) -> Tensor:
    """log p(answer | prompt, path) of every answer along every path, in nats: float32 (answers, paths).

    Args:
        routed, prompt, paths, temperature: as in `decompose`.
        answers: token ids each, with the token that ends it where it has ended.
    """
    rows = [(prompt, answer, path) for answer in answers for path in paths]
    sums = [
        log_p.gather(-1, torch.tensor(answer, device=log_p.device)[:, None]).sum().item()
        for log_p, (_, answer, _) in zip(_forced(routed, rows, temperature), rows, strict=True)
    ]
    return torch.tensor(sums).view(len(answers), len(paths))


def transmission_of_answers(log_p: Tensor, written_by: Sequence[int]) -> float:
    """I(answer; path) in nats, estimated from answers that the paths themselves have written.

    The mean over answers of log p(answer | its path) − log mean_k p(answer | path k). Over answers drawn from their
    paths its expectation is the transmission of these K paths; never above ln K, and below 0 only by the luck of few
    answers.

    Args:
        log_p: float (answers, K) from `log_likelihoods`.
        written_by: for each answer, the column of the path that wrote it.
    """
    own = log_p[torch.arange(len(written_by)), torch.tensor(list(written_by))]
    return float((own - (log_p.logsumexp(-1) - math.log(log_p.shape[1]))).mean())


def check_paths(paths: Sequence[int]) -> None:
    """ValueError for fewer than two paths."""
    if len(paths) < 2:
        raise ValueError(f"paths={list(paths)}: one path has nothing to differ from; give at least two, better ten")


def _forced(
    routed: AttachedRouting, rows: Sequence[tuple[Ids, Ids, int | None]], temperature: float
) -> Iterator[Tensor]:
    """For each (prompt, text, path) the log-probabilities that predict the text's tokens: float32 (tokens, v).

    Rows are padded at the right, where a causal model never looks back from.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0: at 0 no distribution is left to measure")
    for prompt, text, _ in rows:
        if not prompt or not text:
            raise ValueError(f"a prompt of {len(prompt)} and a text of {len(text)} tokens: give at least one of each")
    device = next(routed.model.parameters()).device
    generated = routed.config.span == "generated"
    longest = max(len(prompt) + len(text) for prompt, text, _ in rows)
    at_once = max(1, _LOGITS_AT_ONCE // (longest * routed.model.config.get_text_config().vocab_size))
    for first in range(0, len(rows), at_once):
        chunk = rows[first : first + at_once]
        width = max(len(prompt) + len(text) for prompt, text, _ in chunk)
        ids = torch.tensor([[*p, *t, *[0] * (width - len(p) - len(t))] for p, t, _ in chunk], device=device)
        mask = torch.tensor([[i < len(p) + len(t) for i in range(width)] for p, t, _ in chunk], device=device).long()
        starts = [len(prompt) - 1 if generated else 0 for prompt, _, _ in chunk]
        with routed.follow([path for _, _, path in chunk], starts):
            logits = routed.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for row, (prompt, text, _) in zip(logits, chunk, strict=True):
            predicting = row[len(prompt) - 1 : len(prompt) + len(text) - 1]
            yield (predicting.float() / temperature).log_softmax(-1)
