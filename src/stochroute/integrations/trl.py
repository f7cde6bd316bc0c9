"""GRPO on a routed model, by TRL (1.16 or later): each completion walks a path of its own, and the loss walks it again.

    routed = sr.route(model, config)                       # a PEFT model is wrapped first, then routed
    trainer = RoutedGRPOTrainer(routed, reward, GRPOConfig("out"), dataset, processing_class=tokenizer)
    trainer.train()

Completions come from `PathRollout`, as TRL's `rollout_func`. TRL hands on nothing of a rollout to its loss but tokens
and log-probabilities, so the trainer here adds the path of each row to the batch, where TRL shuffles and splits it with
the row's tokens.
"""

import hashlib
import json
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from stochroute.integrations.rollouts import PathRollout, Rollout, mispaired
from stochroute.paths import format_path
from stochroute.routed import RoutedModel
from stochroute.training.walked import read_noise

ROUTING_FOLDER = "routing"  # within a checkpoint
_PATH, _MARK = "stochroute_path", "stochroute_mark"  # columns of TRL's batch
_OVERRIDDEN = ("_generate_and_score_completions", "_get_per_token_logps_and_entropies", "_tokenize_prompts")
_LARGEST_DIFFERENCE = 0.05  # nats a token; the embedded model under bfloat16 autocast is at 0.002


class SamplingMismatch(UserWarning):
    """The log-probabilities in the loss are not those that the completions were written with."""


class RoutedGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer for a routed model: the policy is p(completion | prompt, path), and each row has its path.

    All log-probabilities of a row are those along the path that wrote it: in the loss, the old ones that the importance
    ratio divides by, and the reference's. What is trained are the weights, or the adapter of a PEFT model; the noise
    stays as it is. Checkpoints hold the routing beside the model, in the folder "routing".

    Args:
        routed: the model with its routing; for an adapter a PEFT model that was routed. It is trained in place.
        reward_funcs: as in GRPOTrainer; they get "path", "start" and "receipt" of each completion as well.
        args: TRL's arguments. With `log_completions` its tables have the columns "path" and "receipt".
            `generation_kwargs={"do_sample": False}` leaves all exploration to the paths; see docs/rl.md for what that
            does to the gradient.
        train_dataset, eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers: as there.
        path_seed: derives every path; None takes `args.seed`.

    Raises:
        ValueError: completions are to be written by another engine, the model has dropout (a forward would not be
            repeatable), it is sharded by FSDP, a `sites=` of the routing cannot be had for the reference model, or this
            version of TRL is unknown.
    """

    model: Any

    def __init__(
        self,
        routed: RoutedModel,
        reward_funcs: Any,
        args: GRPOConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        *,
        path_seed: int | None = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ):
        missing = [name for name in _OVERRIDDEN if not hasattr(GRPOTrainer, name)]
        if missing:
            raise ValueError(f"this version of TRL has no {', '.join(missing)}: install trl 1.16")
        for option in ("use_vllm", "use_transformers_continuous_batching"):
            if getattr(args, option, False):
                raise ValueError(f"{option}=True would write completions off the paths: leave it out")
        self.routed = routed
        self._reference: RoutedModel | None = None
        self._scoring: Rollout | None = None  # while TRL computes old and reference log-probabilities
        self._walk: ExitStack | None = None  # from a row's forward to the end of its backward
        self._expected: tuple[Tensor, Tensor] | None = None
        self._weights_of: int | None = None  # the step whose weights wrote the present completions
        for noise in routed.kinds().values():
            noise.requires_grad_(False)
        super().__init__(
            model=routed.model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            rollout_func=PathRollout(routed, args.seed if path_seed is None else path_seed),
        )
        if self.is_fsdp_enabled:
            raise ValueError("fsdp: rollouts along paths are not supported on sharded weights; use data parallelism")
        _check_repeatable(routed.model)
        for noise in routed.kinds().values():
            noise.to(self.accelerator.device)
        if self.ref_model is not None:
            self._reference = _routed_like(routed, self.accelerator.unwrap_model(self.ref_model))

    # ---- completions, and what is scored of them at once ----

    def begin_scoring(self, written: Rollout) -> None:
        """Takes note of what a rollout has just written, and puts paths into TRL's table of completions."""
        self._scoring = written
        if self.model.training:
            self._weights_of = self.state.global_step
        self._log_completion_extra("path", [format_path(path) for path in written.paths])
        # as text: a table would give every receipt the settings of all
        self._log_completion_extra("receipt", [json.dumps(receipt.to_dict()) for receipt in written.receipts])

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        taken = sorted({"path", "start", "receipt"} & inputs[0].keys())
        if taken:
            raise ValueError(f"the dataset has a column {taken[0]!r}, which paths need for themselves: rename it")
        try:
            output = super()._generate_and_score_completions(inputs)
            written = self._scoring
        finally:
            self._scoring = None
        assert written is not None, "TRL calls the rollout function for every generation batch"
        input_ids = _whole_rows(output)
        written.check_rows(0, input_ids, output["completion_ids"].shape[1])
        # an int64 column holds ids modulo 2⁶⁴
        signed = [path - (1 << 64) if path >> 63 else path for path in written.paths]
        output[_PATH] = torch.tensor(signed, device=input_ids.device)
        output[_MARK] = _marks(output[_PATH], input_ids)
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        score = super()._get_per_token_logps_and_entropies
        written = self._scoring
        if written is None:  # in the loss, whose rows are followed already
            result = score(model, input_ids, attention_mask, logits_to_keep, batch_size, **others)
            self._compare(result[0])
            return result
        walked = self._reference if self._reference is not None and model is self.ref_model else self.routed
        size = batch_size or input_ids.shape[0]
        chunks: list[Any] = []
        for first in range(0, input_ids.shape[0], size):
            rows = slice(first, first + size)
            written.check_rows(first, input_ids[rows], logits_to_keep)
            with walked.follow(written.paths[rows], written.starts[rows]):
                chunks.append(score(model, input_ids[rows], attention_mask[rows], logits_to_keep, **others))
        logps, entropies, losses = zip(*chunks, strict=True)
        return (
            torch.cat(logps),
            None if entropies[0] is None else torch.cat(entropies),
            None if losses[0] is None else torch.stack(losses).mean(),
        )

    # ---- a step ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """TRL's step, its backward on the same paths as its forward, as gradient checkpointing needs it."""
        with ExitStack() as self._walk:
            return super().training_step(model, inputs, num_items_in_batch)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """TRL's evaluation of a batch, on the paths that wrote its completions."""
        with ExitStack() as self._walk:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """TRL's loss, each row along its path.

        Raises:
            RuntimeError: a row's path is not the one that wrote its tokens, or there is none.
        """
        if self._walk is None or _PATH not in inputs:
            raise RuntimeError("these completions have no paths: let training_step or prediction_step prepare them")
        paths: list[int] = [path % (1 << 64) for path in inputs[_PATH].tolist()]
        right = (_marks(inputs[_PATH], _whole_rows(inputs)) == inputs[_MARK]).tolist()
        if not all(right):
            raise mispaired(paths[right.index(False)])
        generated = self.routed.config.span == "generated"
        starts = [length - 1 if generated else 0 for length in inputs["prompt_mask"].sum(1).tolist()]
        unchanged = not self.model.training or self.state.global_step == self._weights_of
        self._expected = (inputs["sampling_per_token_logps"], inputs["completion_mask"]) if unchanged else None
        self._walk.enter_context(self.routed.follow(paths, starts))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _compare(self, logps: Tensor) -> None:
        """Logs how far the loss is from what the completions were written with, under TRL's name for it."""
        if self._expected is None:
            return
        expected, mask = self._expected
        # a batch all of whose completions were cut off and masked has nothing to compare
        apart = ((logps.detach() - expected).abs() * mask).double()
        mean, largest = apart.sum() / mask.sum().clamp_min(1), apart.max()
        metrics = self._metrics["train" if self.model.training else "eval"]
        gather: Any = self.accelerator.gather
        mean = gather(mean).mean().item()
        metrics["sampling/sampling_logp_difference/mean"].append(mean)
        metrics["sampling/sampling_logp_difference/max"].append(gather(largest).max().item())
        if mean > _LARGEST_DIFFERENCE:
            warnings.warn(
                f"the log-probabilities in the loss differ by {mean:.2g} nats a token from those that the completions "
                f"were written with. Usual causes: a model with learned positions, which TRL pads at the left without "
                f"position ids (give prompts of one length); repetition_penalty; a precision that is too low",
                SamplingMismatch,
                stacklevel=2,
            )

    # ---- checkpoints ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
            self.routed.save_pretrained(folder / ROUTING_FOLDER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Trainer's, after a ValueError where the checkpoint was made with another routing."""
        found = read_noise(self.routed, Path(resume_from_checkpoint, ROUTING_FOLDER))
        if any(not torch.equal(value.cpu(), found[name]) for name, value in self.routed.noise_parameters().items()):
            raise ValueError(f"{resume_from_checkpoint} holds other noise parameters: load its routing first")
        super()._load_from_checkpoint(resume_from_checkpoint, model)


def _whole_rows(batch: dict[str, Any]) -> Tensor:
    return torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)


def _marks(paths: Tensor, input_ids: Tensor) -> Tensor:
    """int64 (b,): 63 bits of a hash of each path with its row, padding included, which no batch of TRL's changes."""
    rows = torch.cat([paths[:, None], input_ids], dim=1).cpu().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows]
    return torch.tensor([int.from_bytes(digest, "little") >> 1 for digest in digests], device=paths.device)


def _check_repeatable(model: nn.Module) -> None:
    for name, module in model.named_modules():
        settings = {"p": module.p} if isinstance(module, nn.Dropout) else vars(module)
        for setting, value in settings.items():
            drops = setting == "p" or "drop" in setting
            if drops and isinstance(value, float) and value > 0:
                raise ValueError(
                    f"{name}.{setting}={value}: with dropout the loss would not be that of the completions; load the "
                    f"model without, or pass GRPOConfig(disable_dropout=True) where it is a layer"
                )


def _routed_like(routed: RoutedModel, model: Any) -> RoutedModel:
    """The reference model with the same routing, so that it can walk the policy's paths."""
    reference = RoutedModel(model, routed.config)
    own = reference.noise_parameters()
    for name, value in routed.noise_parameters().items():
        own[name].copy_(value)
    for noise in reference.kinds().values():
        noise.requires_grad_(False)
    if _hooked(routed) != _hooked(reference):
        raise ValueError("beta > 0: the reference model cannot take over sites= of the routing; leave sites= out")
    return reference


def _hooked(routed: RoutedModel) -> list[str]:
    """The modules that structural noise is added to."""
    return [
        name
        for name, module in routed.model.named_modules()
        for hook in module._forward_hooks.values()
        if isinstance(hook, partial) and getattr(hook.func, "__self__", None) is routed.structural
    ]
