"""transformers' Trainer, with paths.

    trainer = RoutedTrainer(
        sr.route(model, config), BoundPaths(), TrainingArguments("out", max_steps=1000), examples, path_seed=7
    )
    trainer.train()                               # or train(resume_from_checkpoint=True)
    routed.save_pretrained("routing")

What is Trainer's stays Trainer's: the loop, the optimizer, mixed precision, accumulation, processes, progress and
TensorBoard. Added are the paths of each batch, the objective, what a checkpoint holds, and what is logged.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalPrediction, rotate_checkpoints

from stochroute.measuring.nats import IGNORED, row_nats
from stochroute.paths import check_seed
from stochroute.routed import RoutedModel
from stochroute.storage import write_routing
from stochroute.training.binding import EVALUATION
from stochroute.training.checkpoints import fault_of, last_good, run_of, seal, unseal
from stochroute.training.data import Collate, check_examples
from stochroute.training.objectives import FreshPaths, Objective, text_kl
from stochroute.training.posterior import new_posterior
from stochroute.training.probing import Probe, mean_deviations
from stochroute.training.walked import Trained, WalkedModel, choose_trained, here, read_noise, weights_of_model, whole

_UNWRITTEN = ("PytorchStreamWriter", "inline_container", "iostream error")  # in what torch.save raises on a full disk
_POSTERIOR_FILE = "posterior.safetensors"
_COLUMNS = ("input_ids", "attention_mask", "labels", "example")


class TransmissionCollapsed(UserWarning):
    """The path no longer reaches the output: training has made the noise do nothing."""


class TrainingDiverged(ValueError):
    """The loss or a trained parameter is no longer a finite number."""


class CheckpointFailed(OSError):
    """A checkpoint could not be written, for want of space for example."""


class RoutedTrainer(Trainer):
    """Trains the noise of a routed model, and its weights or adapter where that is asked for.

    Args:
        routed: the model with its routing; for `trained="adapter"` a PEFT model that was routed.
        objective: what to minimise.
        args: transformers' arguments; of these, remove_unused_columns and label_names are not looked at.
        train_dataset: examples with input_ids, labels and example, from `prepare_examples`.
        eval_dataset: the same for evaluation, along fresh paths.
        path_seed: derives every path. Bound paths can be had again: `example_paths(path_seed, [key], draws)`.
        trained: "noise" (the base stays as it is), "adapter" (and the PEFT adapter), or "all".
        noise_learning_rate: for the noise, and what infers it; None takes that of args. The noise is never decayed:
            that would pull σ to 0.
        probe_paths: paths K for what is logged; 0 switches it off. Transmission cannot exceed ln K.
        probe_examples: examples for what is logged: the first of eval_dataset, or of train_dataset where there is none.
            Each logging step costs a forward of (K + 1) × that many rows.
        collapse_below: nats of transmission that TransmissionCollapsed warns of, where it falls under them and where it
            is under them in the end.
        callbacks: as in Trainer.

    At each logging step there is in the log, beside what Trainer logs: "transmission", I(next token; path) in nats;
    "kl_routed_clean", in nats; "sigma/KIND.LAYER", mean |σ| of a layer over its strength (1 at the start); with
    InferredPaths "inferred_nats", KL(q ‖ prior) of a text in the last batch, in the mean.

    Raises:
        ValueError: the objective does not fit the routing, nothing can be trained, or the examples have no key.
    """

    def __init__(
        self,
        routed: RoutedModel,
        objective: Objective,
        args: TrainingArguments,
        train_dataset: Any,
        eval_dataset: Any = None,
        *,
        path_seed: int,
        trained: Trained = "noise",
        noise_learning_rate: float | None = None,
        probe_paths: int = 8,
        probe_examples: int = 8,
        collapse_below: float = 1e-3,
        callbacks: list[TrainerCallback] | None = None,
    ):
        _check_arguments(args)
        choose_trained(routed, trained)
        objective.check(routed, base_trained=trained != "noise")
        for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
            if dataset is not None:
                check_examples(name, dataset)
        self.routed = routed
        self.objective = objective
        self.path_seed = check_seed(path_seed)
        self.trained: Trained = trained
        self.noise_learning_rate = noise_learning_rate
        self.collapse_below = collapse_below
        self._posterior = new_posterior(routed, args.seed) if objective.infers else None
        self._inferred_nats: Tensor | None = None
        cached = getattr(routed.model.config, "use_cache", None)
        super().__init__(
            model=WalkedModel(routed, self._posterior),
            args=args,
            data_collator=Collate(),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=_nats_a_token,
            callbacks=[*(callbacks or []), _LogWhatIsSaved()],
        )
        routed.model.config.use_cache = cached  # Trainer switches it off; here the forward does
        if self.is_fsdp_enabled and "FULL" not in str(cast(Any, self.accelerator.state.fsdp_plugin).state_dict_type):
            raise ValueError("fsdp_config: a routing can be saved with state_dict_type FULL_STATE_DICT only")
        self._signature_columns = list(_COLUMNS)
        probed = train_dataset if eval_dataset is None else eval_dataset
        self._probe: Probe | None = None
        if probe_paths:
            first = [probed[row] for row in range(min(probe_examples, len(probed)))]
            self._probe = Probe(self.data_collator(first), probe_paths, self.path_seed, routed.config.span)

    # ---- a step ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward within one follow(), as gradient checkpointing needs it.

        Raises:
            TrainingDiverged: the loss is no finite number.
        """
        rows = self.objective.rows(inputs, self.path_seed, self.state.global_step, self.routed.config.span)
        walked = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, "labels": inputs["labels"]}
        walked |= {} if rows.hidden is None else {"hidden": rows.hidden}
        with self.routed.follow(rows.paths, rows.starts):
            loss = super().training_step(model, walked, num_items_in_batch)
        if not bool(loss.isfinite()):
            raise TrainingDiverged(f"the loss is {loss.item()} at step {self.state.global_step + 1}: {self._remedy()}")
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective in nats a predicted token of the whole batch: of all processes and accumulation steps."""
        labels = inputs["labels"]
        logits = model(**{name: read for name, read in inputs.items() if name != "labels"})
        total = self.objective.total(logits, labels, self.routed, self.state.global_step)
        if self.objective.infers and (nats := text_kl(self.routed).detach()).numel():
            self._inferred_nats = nats.mean()
        targets = (labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            total = total * self.accelerator.num_processes  # which are averaged over
        loss = total / targets
        return (loss, logits) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Nothing, then −log p of each example along a fresh path, (b,) in nats, and its number of predicted tokens.

        The paths are the same in every evaluation. Of these `evaluate` makes "eval_loss", in nats a predicted token.
        """
        rows = FreshPaths().rows(inputs, self.path_seed, EVALUATION, self.routed.config.span)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.routed.follow(rows.paths, rows.starts), self.compute_loss_context_manager():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return None, row_nats(logits, inputs["labels"]), (inputs["labels"][:, 1:] != IGNORED).sum(1)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's optimizer, with the noise, and what infers it, in a group of its own."""
        optimizer = super().create_optimizer(model)
        names = self.routed.noise_parameters()
        noise = [p for n, p in self.routed.named_parameters() if n in names and p.requires_grad]
        noise += [] if self._posterior is None else self._posterior.parameters()
        own = {id(p) for p in noise}
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        # the learning rate that Trainer logs is that of the first group
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        rate = self.args.learning_rate if self.noise_learning_rate is None else self.noise_learning_rate
        optimizer.add_param_group({"params": noise, "lr": rate, "weight_decay": 0.0})
        return optimizer

    # ---- what is logged ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with transmission, KL and σ beside the loss."""
        if "loss" in logs and self._probe is not None:
            with self.compute_loss_context_manager():
                logs |= self._probe.measure(cast(nn.Module, self.model), self.routed, self.args.device)
            logs |= mean_deviations(self.routed)
            self._warn_of_collapse(logs["transmission"])
        if "loss" in logs and self._inferred_nats is not None:
            logs["inferred_nats"] = self._inferred_nats.item()
        super().log(logs, start_time)

    def _warn_of_collapse(self, now: float) -> None:
        earlier = [entry["transmission"] for entry in self.state.log_history if "transmission" in entry]
        most = max([*earlier, now])
        fell = bool(earlier) and earlier[-1] >= self.collapse_below
        at_the_end = self.state.global_step >= self.state.max_steps
        if now < self.collapse_below and (fell or at_the_end) and self.is_world_process_zero():
            what = "has collapsed" if most >= self.collapse_below else "never rose"
            warnings.warn(
                f"transmission {what}: at step {self.state.global_step} the path decides {now:.2g} nats of the next "
                f"token, under collapse_below={self.collapse_below:g} (the most so far: {most:.2g}), and all paths say "
                f"nearly the same. {self._advice()}",
                TransmissionCollapsed,
                stacklevel=2,
            )

    def _advice(self) -> str:
        if isinstance(self.objective, FreshPaths):
            return "Fresh paths say nothing of their text, so the model learns not to hear them: bind or infer them"
        if self.objective.infers:
            return "Raise free_nats, the strength or noise_learning_rate"
        return "Raise the strength, train longer, or lower noise_learning_rate"

    # ---- checkpoints ----

    def train(self, resume_from_checkpoint: str | bool | None = None, **arguments: Any) -> Any:
        """Trainer's train. True goes on from the newest whole checkpoint in output_dir.

        Raises:
            ValueError: there is no whole checkpoint, the one that is named is not whole or has made all steps, or it
                comes from a run with another objective, seed or routing.
        """
        output = self.args.output_dir
        if resume_from_checkpoint is True:
            newest = last_good(output or "")
            if newest is None:
                raise ValueError(f"resume: {output} holds no whole checkpoint; start without it")
            resume_from_checkpoint = str(newest)
        if resume_from_checkpoint:
            folder = Path(resume_from_checkpoint)
            fault = fault_of(folder)
            if fault is not None:
                good = last_good(folder.parent)
                raise ValueError(
                    f"checkpoint {folder} cannot be resumed: {fault}; the last good one is {good or 'missing'}"
                )
            self._check_same_run(folder)
            done = TrainerState.load_from_json(str(folder / TRAINER_STATE_NAME)).global_step
            if 0 < self.args.max_steps <= done:  # Trainer would make one more step
                raise ValueError(
                    f"checkpoint {folder} has made all of max_steps={self.args.max_steps}: raise max_steps to go on"
                )
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **arguments)

    def _run(self) -> dict[str, str | int]:
        return {
            "objective": repr(self.objective),
            "path_seed": str(self.path_seed),
            "trained": self.trained,
            "examples": len(self.train_dataset),  # type: ignore[arg-type]
        }

    def _check_same_run(self, folder: Path) -> None:
        read_noise(self.routed, folder)
        then, now = run_of(folder), self._run()
        for name, value in now.items():
            if then.get(name) != value:
                raise ValueError(
                    f"checkpoint {folder} was made with {name} {then.get(name)}, and this run has {value}: give the "
                    f"same, or start a new run in another output_dir"
                )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial), f"checkpoint-{self.state.global_step}")
        if not all(bool(here(p).isfinite().all()) for p in cast(nn.Module, self.model).parameters() if p.requires_grad):
            raise TrainingDiverged(
                f"a trained parameter is no finite number after step {self.state.global_step}: {self._remedy()}"
            )
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # nothing goes before this one is whole
        try:
            if self.args.should_save:
                unseal(folder)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(folder, self._run())
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch.save has no class of its own for a file that cannot be written
            if isinstance(error, RuntimeError) and not any(text in str(error) for text in _UNWRITTEN):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            free = shutil.disk_usage(folder.parent).free >> 20
            raise CheckpointFailed(
                f"checkpoint {folder} could not be written ({error}), {free} MiB are free there: make room, keep fewer "
                f"with save_total_limit, or choose another output_dir; {self._last_good()}"
            ) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(folder.parent), limit, best_model_checkpoint=best, use_mtime=True)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Into one folder: the routing, and what else was trained, as their own save_pretrained write it.

        Under FSDP `state_dict` is that of the whole WalkedModel; every process then takes part in gathering the noise.
        """
        folder = output_dir or self.args.output_dir
        assert folder is not None
        noise = {name: whole(parameter) for name, parameter in self.routed.noise_parameters().items()}
        inferring = {} if self._posterior is None else self._posterior.state_dict()
        inferring = {name: whole(parameter) for name, parameter in inferring.items()}
        if not self.args.should_save:
            return
        write_routing(Path(folder), self.routed.config, noise, self.routed.model)
        if inferring:
            save_file(inferring, Path(folder, _POSTERIOR_FILE))
        if self.trained != "noise":
            weights = None if state_dict is None else weights_of_model(state_dict)
            self.routed.model.save_pretrained(folder, state_dict=weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        parameters = read_noise(self.routed, Path(resume_from_checkpoint))
        if self.is_fsdp_enabled:  # which keeps the whole WalkedModel, noise and all, in a file of its own
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        for name, own in self.routed.noise_parameters().items():
            own.copy_(parameters[name])
        if self._posterior is not None:
            self._posterior.load_state_dict(load_file(Path(resume_from_checkpoint, _POSTERIOR_FILE)))
        if self.trained != "noise":
            super()._load_from_checkpoint(resume_from_checkpoint, cast(Any, self.routed.model))

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _remedy(self) -> str:
        return (
            f"lower learning_rate (now {self.args.learning_rate:g}), noise_learning_rate or the strength; "
            f"{self._last_good()}"
        )

    def _last_good(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            good = last_good(self.args.output_dir or "")
        return f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"


class _LogWhatIsSaved(TrainerCallback):
    """Logs wherever a checkpoint is written: the losses summed up since the last log are in no checkpoint, and a
    resumed run would average over fewer steps."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        control.should_log = control.should_log or control.should_save
        return control

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        return self.on_step_end(args, state, control)


def _nats_a_token(evaluated: EvalPrediction) -> dict[str, float]:
    """Trainer's own mean is over batches, whatever their size, and over what fills the last one up."""
    return {"loss": float(np.sum(evaluated.predictions) / np.sum(evaluated.label_ids))}


def _check_arguments(args: TrainingArguments) -> None:
    """What Trainer offers and paths cannot go along with."""
    if args.label_smoothing_factor:
        raise ValueError(f"label_smoothing_factor={args.label_smoothing_factor} has no effect here: leave it out")
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process would split the batch, but not its paths: start one process for each "
            f"with torchrun, or show one GPU by CUDA_VISIBLE_DEVICES"
        )
