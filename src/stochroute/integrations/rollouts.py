"""What TRL trains on: completions along paths, each with its path, its receipt and the log-probabilities it was written
with.

    rollout = PathRollout(routed, seed=7)                # TRL's rollout_func; RoutedGRPOTrainer makes its own
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import unwrap_model_for_generation

from stochroute.generation.padding import pad_left
from stochroute.generation.receipts import Receipt
from stochroute.paths import check_seed, format_path
from stochroute.routed import RoutedModel
from stochroute.training.binding import EVALUATION, example_key, example_paths


@dataclass(frozen=True, eq=False)
class Rollout:
    """What was written for one generation batch, one entry a row.

    Attributes:
        prompt_ids, completion_ids: tokens; a completion ends with the first end token.
        logprobs: log p of every token of a completion, in nats, along its path, at the temperature of the loss and with
            nothing cut off.
        paths, starts: the path of each row, and the first position that carried noise.
        receipts: what writing the row again needs.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    logprobs: list[list[float]]
    paths: list[int]
    starts: list[int]
    receipts: list[Receipt]

    def check_rows(self, first: int, input_ids: Tensor, completion_width: int) -> None:
        """RuntimeError where rows `first` and following are not these tokens, int64 (b, prompt + completion width)."""
        middle = input_ids.shape[1] - completion_width
        for row, tokens in enumerate(input_ids.tolist(), first):
            prompt, completion = self.prompt_ids[row], self.completion_ids[row]
            if tokens[middle - len(prompt) : middle + len(completion)] != prompt + completion:
                raise mispaired(self.paths[row])


class PathRollout:
    """TRL's `rollout_func(prompts, trainer)`, along one fresh path a row.

    The path of a row is a pure function of (seed, global step, micro-step within it, the row in the generation batch of
    all processes, its prompt), so a resumed run draws the paths that an uninterrupted one would have drawn, and none
    that were drawn before. In evaluation the step is a constant: each evaluation walks the same paths.

    Completions are drawn with the settings of GRPOConfig. Sampled tokens come from the path too (token routing).

    Args:
        routed: the routed model.
        seed: of the paths.
    """

    def __init__(self, routed: RoutedModel, seed: int):
        self.routed = routed
        self.seed = check_seed(seed)

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        """TRL's fields, and "path" (16 hex digits), "start" and "receipt" (JSON types) for the reward functions.

        Raises:
            TypeError: the trainer is no RoutedGRPOTrainer, whose loss would be that of the clean model.
            ValueError: a prompt holds images.
        """
        begin_scoring = getattr(trainer, "begin_scoring", None)
        if begin_scoring is None:
            raise TypeError(
                f"PathRollout works within RoutedGRPOTrainer; {type(trainer).__name__} would compute its loss off the "
                f"paths"
            )
        prompt_ids, images, _ = trainer._tokenize_prompts(prompts)
        if images is not None:
            raise ValueError("the prompts hold images: only text models can be routed")
        written = self.write(prompt_ids, self.paths_of(prompt_ids, trainer), trainer)
        begin_scoring(written)
        return {
            "prompt_ids": written.prompt_ids,
            "completion_ids": written.completion_ids,
            "logprobs": written.logprobs,
            "path": [format_path(path) for path in written.paths],
            "start": written.starts,
            "receipt": [receipt.to_dict() for receipt in written.receipts],
        }

    def paths_of(self, prompt_ids: list[list[int]], trainer: Any) -> list[int]:
        """One path id a row, for the trainer's present step."""
        step, micro = EVALUATION, 0
        if trainer.model.training:
            step, micro = trainer.state.global_step, trainer._step % trainer.args.gradient_accumulation_steps
        first = trainer.accelerator.process_index * len(prompt_ids)
        keys = [example_key(f"{micro} {row} {ids}") for row, ids in enumerate(prompt_ids, first)]
        return example_paths(self.seed, keys, draws=1, step=step)

    def write(self, prompt_ids: list[list[int]], paths: list[int], trainer: Any) -> Rollout:
        """A completion for each row; equal prompts are computed once."""
        unique = list(dict.fromkeys(map(tuple, prompt_ids)))
        rows = [[row for row, ids in enumerate(prompt_ids) if tuple(ids) == prompt] for prompt in unique]
        width = max(map(len, unique))
        pad, device = trainer.generation_config.pad_token_id, trainer.accelerator.device
        spoken = _LogProbs(trainer.temperature, width)
        settings = copy.deepcopy(trainer.generation_config)
        if trainer.accelerator.mixed_precision != "no" and settings.cache_implementation is None:
            settings.cache_implementation = "dynamic"  # under autocast keys and values differ in dtype
        with unwrap_model_for_generation(  # switches checkpointing off, which would do without a cache
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ):
            out = self.routed.generate(
                **pad_left(unique, pad, device),
                paths=[[paths[row] for row in group] for group in rows],
                generation_config=settings,
                logits_processor=[spoken.read],
                stopping_criteria=[spoken.note],
            )
        completions = [_until_end(ids, trainer.eos_token_ids) for ids in out.generated.tolist()]
        logprobs = [values[: len(ids)] for values, ids in zip(spoken.rows(), completions, strict=True)]
        # rows of one prompt stand together in the output, wherever they stood in the batch
        place = {row: position for position, row in enumerate(row for group in rows for row in group)}
        order = [place[row] for row in range(len(prompt_ids))]
        return Rollout(
            prompt_ids=prompt_ids,
            completion_ids=[completions[i] for i in order],
            logprobs=[logprobs[i] for i in order],
            paths=[out.paths[i] for i in order],
            starts=[out.starts[i] for i in order],
            receipts=[out.receipts[i] for i in order],
        )


class _LogProbs:
    """log p of each token as it is chosen: float32, one number a row and step, where all logits would fill memory.

    `read` and `note` go into generate as logits processor and stopping criterion: before and after the choice.
    """

    def __init__(self, temperature: float, prompt_width: int):
        self._temperature = temperature
        self._prompt_width = prompt_width
        self._chunks: list[list[Tensor]] = []
        self._step = torch.empty(0)

    def read(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores as they are."""
        if input_ids.shape[1] == self._prompt_width:  # the first step of another chunk of rows
            self._chunks.append([])
        self._step = torch.log_softmax(scores / self._temperature, dim=-1)
        return scores

    def note(self, input_ids: Tensor, scores: Any, **unused: Any) -> Tensor:
        """bool (rows,): never a reason to stop."""
        self._chunks[-1].append(self._step.gather(1, input_ids[:, -1:]))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    def rows(self) -> list[list[float]]:
        """One list a row, as long as its chunk's texts."""
        return [row for chunk in self._chunks for row in torch.cat(chunk, dim=1).tolist()]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    end = next((position for position, token in enumerate(ids) if token in ends), len(ids))
    return ids[: end + 1]


def mispaired(path: int) -> RuntimeError:
    """The error for a row that is about to walk a path of another row."""
    return RuntimeError(f"the row of path {format_path(path)} holds other tokens than the path has written")
