"""What a model with paths writes for a task with a known ceiling, and how creative it is.

task = TASKS["circle"]()
samples = write_samples(routed, task, Decoding(), paths=derive_paths(seed=2, n=1024))
task.score(samples).creativity, task.ceiling(1024)
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from stochroute.generation.decoding import Decoding
from stochroute.routed import RoutedModel
from stochroute.tasks import TokenTask


def write_samples(
    routed: RoutedModel,
    task: TokenTask,
    decoding: Decoding,
    paths: Sequence[int],
    prefixes: np.ndarray | None = None,
    logits_processor: Sequence[LogitsProcessor] = (),
) -> np.ndarray:
    """One sample of the task along each path: int64 (paths, up to sample_length), ready for `task.score`.

    Args:
        routed: a model over the task's vocabulary. Without noise the path still draws the tokens (token routing).
        task: what to write.
        decoding: how.
        paths: path ids, one a sample.
        prefixes: int64 (paths, k): what each sample is asked for with, as in `task.prompts`.
        logits_processor: what changes the logits before a temperature and a cut do, as in transformers' `generate`.
    """
    prompts = torch.from_numpy(task.prompts(len(paths), prefixes)).to(routed.model.device)
    written = routed.generate(
        prompts,
        paths=list(paths),
        max_new_tokens=task.sample_length,
        eos_token_id=task.vocabulary.end,
        pad_token_id=task.vocabulary.pad,
        logits_processor=LogitsProcessorList(logits_processor),
        **decoding.arguments(),
    ).sequences
    return written[:, prompts.shape[1] :].cpu().numpy()
