"""What a model with paths writes for a task with a known ceiling, and how creative it is.

task = TASKS["circle"]()
samples = write_samples(routed, task, Decoding(), paths=derive_paths(seed=2, n=1024))
task.score(samples).creativity, task.ceiling(1024)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from stochroute.generation.settings import UNTRUNCATED
from stochroute.routed import RoutedModel
from stochroute.tasks import TokenTask


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen: the likeliest one, or a draw. Nothing is hidden: no top-k, no other default.

    Attributes:
        temperature: None for greedy decoding.
        top_p, min_p: cut the tail off a draw; None for the whole vocabulary.
    """

    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is None and (self.top_p, self.min_p) != (None, None):
            raise ValueError(
                f"top_p={self.top_p}, min_p={self.min_p} have no effect on greedy decoding: leave them out"
            )

    def settings(self) -> dict[str, Any]:
        """As arguments of `generate`."""
        if self.temperature is None:
            return {"do_sample": False}
        asked = {name: value for name, value in asdict(self).items() if value is not None}
        return {"do_sample": True, **UNTRUNCATED, **asked}


def write_samples(
    routed: RoutedModel,
    task: TokenTask,
    decoding: Decoding,
    paths: Sequence[int],
    prefixes: np.ndarray | None = None,
) -> np.ndarray:
    """One sample of the task along each path: int64 (paths, up to sample_length), ready for `task.score`.

    Args:
        routed: a model over the task's vocabulary. Without noise the path still draws the tokens (token routing).
        task: what to write.
        decoding: how.
        paths: path ids, one a sample.
        prefixes: int64 (paths, k): what each sample is asked for with, as in `task.prompts`.
    """
    prompts = torch.from_numpy(task.prompts(len(paths), prefixes)).to(routed.model.device)
    written = routed.generate(
        prompts,
        paths=list(paths),
        max_new_tokens=task.sample_length,
        eos_token_id=task.vocabulary.end,
        pad_token_id=task.vocabulary.pad,
        **decoding.settings(),
    ).sequences
    return written[:, prompts.shape[1] :].cpu().numpy()
