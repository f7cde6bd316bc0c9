"""Schedulers and servers over tiny models, and what their texts are compared with."""

from typing import Any

import torch

import stochroute as sr
from stochroute.serving.jobs import Job, Piece, Work
from stochroute.serving.noise import Noise
from stochroute.serving.sampling import Sampling
from stochroute.serving.scheduler import Scheduler

SAMPLED = Sampling(temperature=1.2, top_k=None, top_p=0.95, min_p=None)
GREEDY = Sampling(temperature=0.0, top_k=None, top_p=1.0, min_p=None)


class Letters:
    """A tokenizer that writes token i as one character, so that texts tell their tokens."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(0x4E00 + i) for i in ids)


def tokens_of(text: str) -> list[int]:
    return [ord(character) - 0x4E00 for character in text]


def scheduler(routed: sr.RoutedModel, most_rows: int = 16, stops: frozenset[int] = frozenset()) -> Scheduler:
    return Scheduler(routed, Letters(), stops, 0, most_rows)


class Client:
    """One request to a scheduler, and what has come of it."""

    def __init__(
        self,
        at: Scheduler,
        prompts: list[list[int]],
        paths: list[int],
        max_tokens: int = 8,
        noise: Noise = Noise(),  # noqa: B008  (frozen)
        sampling: Sampling = SAMPLED,
        stops: tuple[str, ...] = (),
        streams: bool = False,
        top_logprobs: int | None = None,
        timeout: float = 600,
    ):
        variants = at.variants
        self.work = Work(
            prompts=[tuple(prompt) for prompt in prompts],
            paths=[paths] * len(prompts),
            noise=noise,
            all_noised=variants.span(noise) == "all" and not variants.is_clean(noise),
            sampling=sampling,
            max_tokens=[max_tokens] * len(prompts),
            stops=stops,
            top_logprobs=top_logprobs,
            streams=streams,
        )
        self.pieces: list[Piece] = []
        self.job: Job = at.new_job(self.work, self.pieces.append, timeout)
        at.add(self.job)

    @property
    def texts(self) -> list[str]:
        return ["".join(p.text for p in self.pieces if p.row == row.index) for row in self.job.rows]

    @property
    def finishes(self) -> list[Any]:
        return [[p.finish for p in self.pieces if p.row == row.index and p.finish] for row in self.job.rows]


def step(at: Scheduler) -> None:
    for piece in at.step():
        piece.job.receive(piece)


def finish(at: Scheduler, most: int = 2000) -> None:
    for _ in range(most):
        if at.idle:
            return
        step(at)
    raise AssertionError(f"not idle after {most} steps")


def written_alone(routed: sr.RoutedModel, prompt: list[int], path: int, max_tokens: int, sampling: Sampling) -> str:
    """The text that `routed.generate` writes for one prompt along one path."""
    asked: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        asked = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k or 0,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "spread": sampling.spread,
        }
    out = routed.generate(torch.tensor([prompt]), paths=[path], max_new_tokens=max_tokens, **asked)
    return Letters().decode(out.generated[0].tolist())
