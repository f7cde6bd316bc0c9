"""Does another engine walk a path as transformers does? Greedy texts, compared token by token.

In float32 and below kernels round differently, so a text may part from another where two tokens are all but equally
likely. Such a tie is told from a mistake by its gap: it is less than twice what the engines' numbers differ by anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stochroute.routing.attached import AttachedRouting


@dataclass(frozen=True)
class Text:
    """What an engine wrote, greedily.

    Attributes:
        tokens: new token ids.
        logprobs: the engine's log-probability of each, in nats; None where it was not asked for them.
    """

    tokens: list[int]
    logprobs: list[float] | None = None


@dataclass(frozen=True)
class Parting:
    """The first token of a text that transformers would not have chosen.

    Attributes:
        text: index of the text.
        step: index of the token in it.
        token: what the engine chose.
        expected: what transformers chooses there.
        gap: by how much its logit is larger, in nats.
    """

    text: int
    step: int
    token: int
    expected: int
    gap: float


@dataclass(frozen=True)
class Agreement:
    """How an engine's texts compare with transformers.

    Attributes:
        texts, tokens: how many were compared; tokens after a parting are not.
        difference: the largest difference of a token's log-probability before any parting, in nats; 0 without them.
        partings: where texts part, at most one a text.
    """

    texts: int
    tokens: int
    difference: float
    partings: list[Parting]

    @property
    def mistakes(self) -> list[Parting]:
        """The partings that are no ties."""
        return [parting for parting in self.partings if parting.gap >= 2 * self.difference]


@torch.no_grad()
def agreement(
    routed: AttachedRouting,
    prompts: Sequence[Sequence[int]],
    paths: Sequence[int | None],
    texts: Sequence[Text],
) -> Agreement:
    """Whether each text, greedy and of one prompt along one path, is what transformers writes.

    Each text is fed to the routed model whole, on its path; every token must be the likeliest after those before it.

    Args:
        routed: the model in transformers, with the routing of the engine.
        prompts: token ids, one prompt a text.
        paths: one path id a text; None for a plain text.
        texts: what the engine wrote.
    """
    difference, compared = 0.0, 0
    partings: list[Parting] = []
    for index, (prompt, path, text) in enumerate(zip(prompts, paths, texts, strict=True)):
        logits = _logits(routed, prompt, path, text.tokens)
        chosen = torch.tensor(text.tokens)
        wrong = (logits.argmax(-1) != chosen).nonzero()
        agreed = int(wrong[0, 0]) if len(wrong) else len(chosen)
        own = logits.log_softmax(-1).gather(-1, chosen[:, None])[:agreed, 0]
        if agreed and text.logprobs is not None:
            difference = max(difference, float((own - torch.tensor(text.logprobs[:agreed])).abs().max()))
        compared += agreed
        if agreed < len(chosen):
            best, token = int(logits[agreed].argmax()), int(chosen[agreed])
            gap = float(logits[agreed, best] - logits[agreed, token])
            partings.append(Parting(index, agreed, token, best, gap))
    return Agreement(len(texts), compared, difference, partings)


def _logits(routed: AttachedRouting, prompt: Sequence[int], path: int | None, tokens: Sequence[int]) -> Tensor:
    """float32 or wider (new tokens, vocabulary): what stands before each new token."""
    ids = torch.tensor([[*prompt, *tokens]], device=routed.model.device)
    start = len(prompt) - 1 if routed.config.span == "generated" else 0
    with routed.follow([path], start):
        logits = routed.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu()
