"""One training run of the creativity benchmark: a model from nothing, checked on the way, its best checkpoints
scored."""

import math
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from creativity_arms import BASES, TRAININGS, Dropout, Training, Trial, arms_of
from creativity_away import AwayFrom
from creativity_floor import Floor, FlooredFreshPaths
from creativity_neurons import NeuronsTrainer, without_added
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import stochroute as sr
from stochroute.embedded.plain import start_as_identity
from stochroute.measuring.creativity import write_samples
from stochroute.tasks import Score, TokenTask, TrainingSet, Triangle
from stochroute.tasks.shuffled_edges import ShuffledEdges
from stochroute.training import BoundPaths, FreshPaths, InferredPaths, MarginalPreserving, RoutedTrainer
from stochroute.training.data import Collate
from stochroute.training.objectives import Batch, Rows

Shares = dict[str, float | None]  # of a score, by name
NO_NOISE = sr.RoutingConfig(structural=None)
HELD_OUT_SEED, TEST_SEEDS = 1, (2, 3, 4, 5)  # of the paths and prefixes that choose, and of those that are reported


@dataclass(frozen=True)
class Transmission:
    """How noise is trained on the model of another training, in place of its last steps.

    Attributes:
        steps: how many.
        examples, paths: rows of a step are examples · (paths + 1), as many as in a plain step.
        learning_rate: of the noise.
        budget: nats a token that the mixture over paths may move away from the model.
        temperature: of the model's sampler that the paths are to stand in for.
    """

    steps: int
    examples: int
    paths: int
    learning_rate: float
    budget: float
    temperature: float


@dataclass(frozen=True)
class Size:
    """How one task is trained, the same for every training.

    Attributes:
        model: arguments of LlamaConfig.
        steps, batch, learning_rate: AdamW with a cosine; every training makes as many steps of as many rows.
        weight_decay: of the trainings that are called so; the others have 0.01.
        free_nats: of a text, that an inferred path may decide.
        floor: nats of a sample under which none falls in the trainings that are called so.
        told_anew: whether an example is told otherwise from pass to pass: by other names (`renamed_training_set`), or
            from another corner (`turned_training_set`).
        checks: after which shares of the steps a checkpoint is considered.
        held_out: samples that choose; fewer than are reported would think too little of repetition.
        samples: samples that are reported.
        flattened: whether samplers far beyond temperature 2 are tried, and hot ones along paths of 0.3 of their
            strength, for tasks where many tokens are equally good.
        transmission: how its arms are trained.
    """

    model: dict[str, Any]
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    free_nats: float
    floor: float
    told_anew: bool
    checks: tuple[float, ...]
    held_out: int
    samples: int
    flattened: bool
    transmission: Transmission


@dataclass(frozen=True)
class ShuffledPaths(BoundPaths):
    """Bound paths, except that those of a batch change places: every path is seen as often, and says nothing."""

    def rows(self, batch: Batch, seed: int, step: int, span: Any) -> Rows:
        rows = super().rows(batch, seed, step, span)
        order = np.random.default_rng([seed, step]).permutation(len(rows.paths))
        return replace(rows, paths=[rows.paths[row] for row in order])


def new_model(task: TokenTask, size: Size, seed: int) -> LlamaForCausalLM:
    """An untrained model whose blocks start as the identity, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    vocabulary = task.vocabulary
    config = LlamaConfig(
        vocab_size=vocabulary.size,
        max_position_embeddings=task.sample_length + 16,  # room for a prefix
        bos_token_id=vocabulary.start,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
        attn_implementation="eager",  # on rows this short, faster than the fused kernel's backward
        **size.model,
    )
    model = LlamaForCausalLM(config)
    start_as_identity(model)
    return model


def add_dropout(model: LlamaForCausalLM, dropout: Dropout) -> None:
    """Drops activations from now on, in train mode."""
    if dropout.site == "tokens":
        model.model.layers[0].register_forward_pre_hook(_Hide(dropout.rate))
        return
    drop = nn.Dropout(dropout.rate)
    for layer in model.model.layers:
        layer.dropped = drop  # a child, so that train() and eval() reach it
        if dropout.site == "attention":
            layer.self_attn.attention_dropout = dropout.rate
        else:
            layer.mlp.register_forward_hook(lambda module, args, output: drop(output))
        if dropout.site == "residual":
            layer.self_attn.register_forward_hook(lambda module, args, output: (drop(output[0]), *output[1:]))


@dataclass(frozen=True)
class _Hide:
    """Makes nothing of the embeddings of whole tokens in train mode; the first, the prompt, always stays."""

    rate: float

    def __call__(self, layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if not layer.training:
            return None
        embeddings, *others = args
        seen = torch.rand(embeddings.shape[:2], device=embeddings.device) >= self.rate
        seen[:, 0] = True
        return embeddings * seen[..., None], *others


def training_rows(task: TokenTask, size: Size, prefix: int, seed: int) -> TrainingSet:
    """What a run of this seed learns from."""
    if size.told_anew:
        assert isinstance(task, ShuffledEdges | Triangle)
        tell = task.turned_training_set if isinstance(task, Triangle) else task.renamed_training_set
        rows = tell(math.ceil(size.steps * size.batch / task.training_size), seed)
    else:
        rows = task.training_set()
    if prefix:
        rows = rows.with_prefixes(task.vocabulary.seed_prefixes(task.training_size, prefix, seed)[rows.ids])
    return rows


class Run:
    """One training of one task with one seed.

    Args:
        task, size, name, seed: what is trained; `name` is a key of TRAININGS.
        folder: for the checkpoints considered, checkpoint-STEP.safetensors each.
    """

    def __init__(self, task: TokenTask, size: Size, name: str, seed: int, folder: Path):
        self.task, self.size, self.name, self.seed, self.folder = task, size, name, seed, folder
        self.training: Training = TRAININGS[name]
        own = size.transmission.steps if self.training.objective == "transmission" else size.steps
        shares = (1.0,) if self.training.objective == "untrained" else size.checks
        self.steps = {max(1, round(share * own)) for share in shares}
        self.model = new_model(task, size, seed)
        self.routed = sr.route(self.model, self.training.routing or NO_NOISE)
        self.log: list[dict[str, float]] = []
        self.curve: list[dict[str, Any]] = []
        self._best: dict[str, tuple[Score, int, Trial]] = {}
        # the trials of a checkpoint share it
        self.restore = lru_cache(maxsize=1)(self.restore)
        self.known = lru_cache(maxsize=1)(self.known)

    def train(self) -> dict[str, Any]:
        """Trains, and returns the record of the run.

        Raises:
            FileNotFoundError: the run of this seed that it takes a model from is missing; nothing was trained.
        """
        if self.training.known and self.size.flattened:  # elsewhere no arm goes away from it
            self._file_of(self.training.known, self.size.steps)
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        if self.training.objective == "untrained":
            self._take_base(self.size.steps)
            self.keep(self.size.steps)
        else:
            trainer = self._transmission() if self.training.objective == "transmission" else self._whole()
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_KeepCheckpoints(self))
            trainer.train()
            self.model.config.use_cache = True  # Trainer switches it off, and samples would be written without
            self.log = [entry for entry in trainer.state.log_history if "loss" in entry]
        return self.record(round((time.monotonic() - started) / 60, 2))

    def record(self, minutes: float, how: str = "") -> dict[str, Any]:
        """What came of the checkpoints kept: the trial of each arm that the held-out draw chose, and its test.

        Only of the arms whose names end with `how`.
        """
        for step in sorted(self.steps):
            self._consider(step, how)
        arms = {}
        for arm, (held_out, step, trial) in self._best.items():
            test = self.test(step, trial)
            arms[arm] = {"step": step, "trial": str(trial), "held_out": asdict(held_out), "test": test}
            print(f"{self.name} [{self.seed}] {arm}: step {step}, {trial}: {test}", flush=True)
        return {
            "training": self.name,
            "seed": self.seed,
            "parameters": self.model.num_parameters(),
            "minutes": minutes,
            "arms": arms,
            "curve": self.curve,
            "log": self.log,
            "ceiling": self.task.ceiling(self.size.samples),
        }

    def _whole(self) -> Trainer:
        """All steps, from new weights."""
        size, training = self.size, self.training
        rows = training_rows(self.task, size, training.prefix, self.seed)
        args = self._arguments(size.steps, size.batch, size.learning_rate)
        if training.dropout:
            add_dropout(self.model, training.dropout)
        if training.neurons:
            length = self.task.sample_length
            return NeuronsTrainer(
                training.neurons, length, self.seed, self.model, args, train_dataset=rows, data_collator=Collate()
            )
        floor = Floor(size.floor, self.task.sample_length)
        if training.routing is None:
            loss = floor.loss if training.objective == "plain, floor" else None  # None: the model's own
            return Trainer(self.model, args, train_dataset=rows, data_collator=_without_example, compute_loss_func=loss)  # pyright: ignore[reportArgumentType]
        inferred = InferredPaths(size.free_nats)
        objectives = {
            "bound": BoundPaths(),
            "fresh": FreshPaths(),
            "fresh, floor": FlooredFreshPaths(floor),
            "shuffled": ShuffledPaths(),
            "inferred": inferred,
            "inferred, shuffled": inferred,
        }
        objective = objectives[training.objective]
        trainer = RoutedTrainer(self.routed, objective, args, rows, path_seed=self.seed, trained="all")
        if training.objective == "inferred, shuffled":
            posterior = cast(nn.Module, trainer.model).posterior
            posterior.register_forward_hook(lambda module, args, output: tuple(part.roll(1, 0) for part in output))
        if not training.learns_noise:
            for noise in (self.routed.structural, self.routed.attention):
                if noise is not None:
                    noise.requires_grad_(False)
        return trainer

    def _transmission(self) -> Trainer:
        """The noise alone, on what the base was before its last steps."""
        size, how = self.size, self.size.transmission
        self._take_base(size.steps - how.steps)
        args = self._arguments(how.steps, how.examples, how.learning_rate)
        rows = training_rows(self.task, size, 0, self.seed)
        objective = MarginalPreserving(draws=how.paths, budget=how.budget, temperature=how.temperature)
        return RoutedTrainer(self.routed, objective, args, rows, path_seed=self.seed, trained="noise")

    def _take_base(self, step: int) -> None:
        self.model.load_state_dict(of_model(load_file(self._file_of(self.training.base, step))))

    def _arguments(self, steps: int, batch: int, learning_rate: float) -> TrainingArguments:
        return TrainingArguments(
            output_dir=tempfile.gettempdir(),  # nothing is written there
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(200, steps // 10),
            weight_decay=self.training.decay * self.size.weight_decay or 0.01,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            seed=self.seed,
            bf16=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            logging_steps=max(1, steps // 20),
            disable_tqdm=True,
            report_to="none",
            dataloader_pin_memory=False,
        )

    def keep(self, step: int) -> None:
        """Writes the checkpoint of a step."""
        state = {
            **self.model.state_dict(),
            **{f"noise.{n}": p for n, p in self.routed.noise_parameters().items()},
        }
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, self._file(step))

    def _consider(self, step: int, how: str) -> None:
        """Scores every trial of every arm on the held-out draw."""
        for arm, trials in arms_of(self.name, self.size.flattened).items():
            if not arm.endswith(how):
                continue
            scores = [self.score(step, trial, self.size.held_out, HELD_OUT_SEED) for trial in trials]
            best = max(range(len(trials)), key=lambda index: scores[index].creativity)
            self.curve.append({"step": step, "arm": arm, "trial": str(trials[best]), **asdict(scores[best])})
            print(f"{self.name} [{self.seed}] step {step}, {arm}: {trials[best]}: {scores[best]}", flush=True)
            if arm not in self._best or scores[best].creativity > self._best[arm][0].creativity:
                self._best[arm] = (scores[best], step, trials[best])

    def test(self, step: int, trial: Trial) -> Shares:
        """The mean score over the reported draws, each of the published number of samples."""
        return mean_of([asdict(self.score(step, trial, self.size.samples, seed)) for seed in TEST_SEEDS])

    def score(self, step: int, trial: Trial, samples: int, seed: int) -> Score:
        """The score of a step's checkpoint along fresh paths of a seed."""
        routed = self.restore(step, trial.strength)
        away = [AwayFrom(self.known(step), trial.away)] if trial.away else []
        paths = sr.derive_paths(seed, samples, prompt=self.seed, spread=trial.decoding.spread)
        prefix = self.training.prefix
        prefixes = self.task.vocabulary.seed_prefixes(samples, prefix, paths[0]) if prefix else None
        return self.task.score(write_samples(routed, self.task, trial.decoding, paths, prefixes, logits_processor=away))

    def restore(self, step: int, factor: float) -> sr.RoutedModel:
        """The checkpoint of a step, with every strength times `factor`, without added neurons."""
        state = load_file(self._file(step))
        config = self.training.routing or NO_NOISE
        kinds = {
            kind: replace(noise, strength=noise.strength * factor)
            for kind, noise in (("structural", config.structural), ("attention", config.attention))
            if noise is not None
        }
        model = LlamaForCausalLM(self.model.config)
        model.load_state_dict(without_added(of_model(state)))
        routed = sr.route(model.to(self.model.device).eval(), replace(config, **kinds))
        for name, own in routed.noise_parameters().items():
            own.copy_(state[f"noise.{name}"])
        return routed

    def known(self, step: int) -> LlamaForCausalLM:
        """The model that knows the examples by heart: a step's checkpoint with its added neurons, or the last
        checkpoint of another training."""
        model = LlamaForCausalLM(self.model.config)
        if self.training.neurons:
            self.training.neurons.add_to(model)
            file = self._file(step)
        else:
            file = self._file_of(self.training.known, self.size.steps)
        model.load_state_dict(of_model(load_file(file)))
        return model.to(self.model.device).eval()

    def _file(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}.safetensors"

    def _file_of(self, training: str, step: int) -> Path:
        file = self.folder.parent / f"{training}.{self.seed}" / self._file(step).name
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing: train {training!r} with seed {self.seed} first")
        return file


def _without_example(rows: list[Any]) -> dict[str, Tensor]:
    batch = Collate()(rows)
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


def mean_of(scores: list[Shares]) -> Shares:
    """The mean of each share over the scores that have it; None where none has, since nothing was coherent."""
    known = {name: [score[name] for score in scores if score[name] is not None] for name in scores[0]}
    return {name: float(np.mean(shares)) if shares else None for name, shares in known.items()}


def of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("noise.")}


class _KeepCheckpoints(TrainerCallback):
    """Keeps the checkpoints of a run to consider, and the one that transmission goes on from."""

    def __init__(self, run: Run):
        self.run = run
        size = run.size
        self.steps = run.steps | ({size.steps - size.transmission.steps} if run.name in BASES else set())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.steps:
            self.run.keep(state.global_step)
