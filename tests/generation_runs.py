"""Prompts, a routing, and what generation along paths is compared with."""

from torch import Tensor

import stochroute as sr
from matrix import padded, random_ids

IDS = random_ids(3, 9)
PROMPT = IDS[:1]
LENGTHS = [9, 4, 1]
MANY, MANY_MASK = padded(IDS, LENGTHS, 9)
NEW = 8


def config(span: str = "generated", strength: float = 1.0) -> sr.RoutingConfig:
    return sr.RoutingConfig(
        structural=sr.Structural(form="independent", layers="all", strength=0.4 * strength, hold=1),
        attention=sr.Attention(strength=strength),
        span=span,
    )


def unshared(routed: sr.RoutedModel, ids: Tensor, paths: list[int], start: int | None = None, **arguments) -> Tensor:
    """What transformers' generate writes for one prompt along the paths, computing the prompt once a row."""
    start = ids.shape[1] - 1 if start is None else start
    with routed.follow(paths, start=start):
        rows = ids.expand(len(paths), -1)
        return routed.model.generate(rows, **({"max_new_tokens": NEW} | arguments))


def forwards(routed: sr.RoutedModel, **arguments) -> tuple[sr.RoutedOutput, list[tuple[int, int]]]:
    """The output of generate, and (rows, tokens) of every forward pass that it took."""
    shapes = []
    hook = routed.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        return routed.generate(**({"max_new_tokens": NEW} | arguments)), shapes
    finally:
        hook.remove()


def end_of_one_row(out: sr.RoutedOutput) -> int:
    """A token that one row says before its last step, and that at least one row never says."""
    for row in out.generated[:, 1:-2].tolist():
        for token in row:
            if any(token not in other for other in out.generated.tolist()):
                return token
    raise AssertionError("every row says the same tokens")
