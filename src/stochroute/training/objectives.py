"""What training minimises: one small frozen class for each objective, with its formula and where it comes from.

    objective = BoundPaths()
    rows = objective.rows(batch, seed=7, step=0, span="generated")
    with routed.follow(rows.paths, rows.starts):
        logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
        (objective.total(logits, batch["labels"], routed, step=0) / targets).backward()

Every total is a sum over the examples of the batch, in nats, so that batches add up over accumulation steps and
processes. y is the text of an example, x what stands before its first label, z the noise of a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stochroute.config import Span
from stochroute.measuring.nats import (
    IGNORED,
    divergence,
    kl_to_prior,
    mixture,
    row_nats,
    target_log_probabilities,
    transmission,
)
from stochroute.routed import RoutedModel
from stochroute.training.binding import example_paths, start_positions

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rows:
    """A batch with every example repeated once for each path it walks, the rows of one example together.

    Attributes:
        input_ids, attention_mask: int64 (b · copies, s).
        paths: one a row; None for a row that stays clean.
        starts: the first position that carries noise, one a row.
        hidden: bool (b · copies, s), the tokens that the model does not read; None where it reads all.
    """

    input_ids: Tensor
    attention_mask: Tensor
    paths: list[int | None]
    starts: list[int]
    hidden: Tensor | None = None


class Objective:
    """What all objectives have in common.

    Attributes:
        draws: paths that an example walks in one step.
        bound: whether an example keeps its paths through all of training; else they are fresh in every step.
        clean_row: whether each example has one more row, the last, that stays clean.
        infers: whether a `Posterior` is trained beside the model, and tells what z explains each example.
    """

    draws: int = 1
    bound: bool = False
    clean_row: bool = False
    infers: bool = False

    def check(self, routed: RoutedModel, base_trained: bool) -> None:
        """ValueError when the objective makes no sense for this routing, or for a model whose weights are trained."""

    def rows(self, batch: Batch, seed: int, step: int, span: Span) -> Rows:
        """The rows to compute: each example along its paths (see `example_paths`), and clean where that is wanted.

        Args:
            batch: "input_ids", "attention_mask", "labels" (b, s), and "example" (b,), the keys of the examples.
            seed: derives the paths.
            step: the number of the training step.
            span: of the routing.
        """
        keys = [int(key) for key in batch["example"].tolist()]
        drawn = example_paths(seed, keys, self.draws, None if self.bound else step)
        starts = start_positions(batch["labels"], batch["attention_mask"], span)
        copies = self.draws + self.clean_row
        paths: list[int | None] = []
        for index in range(len(keys)):
            paths += drawn[index * self.draws : (index + 1) * self.draws]
            paths += [None] * self.clean_row
        return Rows(
            input_ids=batch["input_ids"].repeat_interleave(copies, 0),
            attention_mask=batch["attention_mask"].repeat_interleave(copies, 0),
            paths=paths,
            starts=[start for start in starts for _ in range(copies)],
        )

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        """The sum over the batch's examples, a scalar in nats.

        Args:
            logits: (b · copies, s, v) of the model along `rows`.
            labels: int64 (b, s).
            routed: for objectives that look at the noise parameters.
            step: the number of the training step, for what is annealed.
        """
        return row_nats(logits, labels).sum()


@dataclass(frozen=True)
class FreshPaths(Objective):
    """−log p(y | x, z) with a fresh z in every step: the article's recipe, and the control.

    z says nothing about y, so the likelihood is best served by σ → 0 and the path goes unread: transmission falls
    (the design's "Why 'just train the noise' fails"). What remains is a regulariser.
    """


@dataclass(frozen=True)
class BoundPaths(Objective):
    """−log p(y | x, z_y) with z_y the example's own path through all epochs, so that the model learns to read it.

    Seed-conditioning (Nagarajan et al. 2025, arXiv 2504.15266) moved inside the model.
    """

    bound = True


@dataclass(frozen=True)
class InferredPaths(Objective):
    """−log p(y | x, z) + β · max(0, KL(q(z | x, y) ‖ N(0, 1)) − λ) with z ~ q: the path is inferred from the text.

    A variational autoencoder (Kingma & Welling 2014, arXiv 1312.6114; over texts Bowman et al. 2016, arXiv
    1511.06349) whose code is the z of the latent form, and whose draw is the path's own: z = mean + deviation ⊙ ξ.
    Where a bound path has to be learned by heart, this one is given its meaning by the texts, and fresh paths, whose z
    is ξ, are what the decoder was trained to follow. λ = `free_nats` a text cost nothing (free bits, Kingma et al.
    2016, arXiv 1606.04934): so much the path is to decide, and without them it decides nothing. The posterior is
    needed in training alone.

    Attributes:
        free_nats: λ, in nats a text.
        beta: weight of the KL; 1 is the bound on the likelihood.
        hidden_tokens: the share of y's tokens that the model does not read in a training step, others in every step,
            so that what they say has to come from the path (word dropout: Bowman et al. 2016). The posterior reads
            all, and so does the model after training.
        hidden_steps: steps at the start of training in which tokens are hidden; None for all. A model that reads all
            tokens in the end learns again to go by them, and keeps what the path says.
        path_dropout: the share of examples that walk no path and hide no tokens in a training step, others in every
            step, so that the model without a path stays, or becomes, one of the same texts.
    """

    free_nats: float = 4.0
    beta: float = 1.0
    hidden_tokens: float = 0.0
    hidden_steps: int | None = None
    path_dropout: float = 0.0
    infers = True

    def __post_init__(self) -> None:
        _at_least("free_nats", self.free_nats, 0)
        _at_least("beta", self.beta, 0)
        _share("hidden_tokens", self.hidden_tokens, "tokens")
        if self.hidden_steps is not None:
            _at_least("hidden_steps", self.hidden_steps, 0)
        _share("path_dropout", self.path_dropout, "examples")
        if self.path_dropout == 1:
            raise ValueError("path_dropout=1 leaves no path to be inferred: give a share below 1, such as 0.3")

    def check(self, routed: RoutedModel, base_trained: bool) -> None:
        noise = None if routed.structural is None else routed.structural.config
        if noise is None or noise.form != "latent" or noise.hold != "sequence" or noise.distribution != "normal":
            found = noise and f"form={noise.form!r}, hold={noise.hold!r}, distribution={noise.distribution!r}"
            raise ValueError(
                f"objective inferred needs structural noise with one normal z a text, and here it is {found}: route "
                f"with Structural(form='latent', hold='sequence')"
            )

    def rows(self, batch: Batch, seed: int, step: int, span: Span) -> Rows:
        rows = super().rows(batch, seed, step, span)
        draws = [np.random.default_rng(path) for path in rows.paths]  # so that neither batch nor process matters
        walks = np.array([own.random() >= self.path_dropout for own in draws])
        rows = replace(rows, paths=[path if kept else None for path, kept in zip(rows.paths, walks, strict=True)])
        if not self.hidden_tokens or (self.hidden_steps is not None and step >= self.hidden_steps):
            return rows
        labels = batch["labels"]
        hidden = np.stack([own.random(labels.shape[1]) for own in draws]) < self.hidden_tokens
        return replace(rows, hidden=torch.from_numpy(hidden & walks[:, None]).to(labels.device) & (labels != IGNORED))

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        charged = (text_kl(routed) - self.free_nats).clamp_min(0).sum()
        return row_nats(logits, labels).sum() + self.beta * charged.to(logits.device)


@dataclass(frozen=True)
class Variational(Objective):
    """−log p(y | x, z) + β_t · Σ_layers max(λ, KL_layer), with a fresh z ~ N(μ, σ²) in every step.

    KL_layer = Σ_channels KL(N(sμ, s²σ²) ‖ N(0, prior²)) with s the layer's strength: the negative evidence lower
    bound (Kingma & Welling 2014, arXiv 1312.6114) of the independent form with one draw a sequence, counted once an
    example. In the shared form the layers move together, so that there the sum is a regulariser and no bound. The
    prior holds σ up. β_t = β · min(1, (step + 1)/anneal_steps) anneals (Bowman et al. 2016, arXiv 1511.06349);
    λ = `free_nats` a *layer* costs nothing (free bits, Kingma et al. 2016, arXiv 1606.04934, appendix C.8, a layer
    being one group of latents).

    Attributes:
        beta: weight of the KL; 1 is the bound.
        anneal_steps: steps until β is reached; 0 for none.
        free_nats: λ, in nats a layer.
        prior: standard deviation of the prior, in the units of ε; None takes each layer's strength, which is where
            the noise starts.
    """

    beta: float = 1.0
    anneal_steps: int = 0
    free_nats: float = 0.0
    prior: float | None = None

    def __post_init__(self) -> None:
        _at_least("beta", self.beta, 0)
        _at_least("anneal_steps", self.anneal_steps, 0)
        _at_least("free_nats", self.free_nats, 0)
        if self.prior is not None and not 0 < self.prior < float("inf"):
            raise ValueError(f"prior={self.prior!r} is no standard deviation: give a number > 0, or None")

    def check(self, routed: RoutedModel, base_trained: bool) -> None:
        noise = routed.structural
        if noise is None or noise.config.scale != "absolute" or noise.config.form == "latent":
            form = None if noise is None else f"form={noise.config.form!r}, scale={noise.config.scale!r}"
            raise ValueError(
                f"objective variational needs structural noise with learned μ and σ in absolute units, and here it is "
                f"{form}: route with Structural(form='independent' or 'shared', scale='absolute')"
            )
        if noise.config.distribution != "normal" or noise.config.hold != "sequence":
            raise ValueError(
                f"objective variational has a closed form for one normal draw a sequence, not for distribution="
                f"{noise.config.distribution!r}, hold={noise.config.hold!r}: take 'normal' and 'sequence'"
            )
        if not bool((noise.strength > 0).all()):
            raise ValueError("objective variational needs a strength > 0 in every noised layer: name fewer layers")

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        likelihood = row_nats(logits, labels).sum()
        charged = self.layer_kl(routed).clamp_min(self.free_nats).sum()
        return likelihood + self.beta_at(step) * labels.shape[0] * charged.to(likelihood.device)

    def beta_at(self, step: int) -> float:
        """β in the given step, counted from 0."""
        return self.beta * min(1.0, (step + 1) / self.anneal_steps) if self.anneal_steps else self.beta

    def layer_kl(self, routed: RoutedModel) -> Tensor:
        """KL of each noised layer, in nats: (n,)."""
        noise = routed.structural
        assert noise is not None
        strength = noise.strength[:, None].to(noise.mu.device)
        prior = strength if self.prior is None else torch.full_like(strength, self.prior)
        return kl_to_prior(strength * noise.mu, strength * noise.sigma, prior).sum(-1)


@dataclass(frozen=True)
class BestOfK(Objective):
    """Σ_k w_k · −log p(y | x, z_k) with w = 1 − ε for the likeliest of K paths and ε/(K − 1) for the others.

    Relaxed winner-takes-all (Rupprecht et al. 2017, arXiv 1612.00197; over language models LoRA-MCL,
    arXiv 2507.10419, there with ε = 0.05): the gradient goes mostly to the best path, a little to all, so that paths
    specialise. Costs K rows an example.

    Attributes:
        draws: K, at least 2.
        epsilon: ε in [0, 1).
        bound: whether an example keeps its K paths; else they are fresh in every step.
    """

    draws: int = 4
    epsilon: float = 0.05
    bound: bool = False

    def __post_init__(self) -> None:
        _at_least("draws", self.draws, 2)
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon!r} is outside [0, 1): 0.05 is usual")

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        nats = row_nats(logits, labels.repeat_interleave(self.draws, 0)).view(-1, self.draws)
        return relaxed_winner(nats, self.epsilon).sum()


@dataclass(frozen=True)
class MarginalPreserving(Objective):
    """Σ_t −I_t(y; z) + penalty · max(0, KL_t(p_τ ‖ mean_k p_k) − budget), self-supervised, for a frozen model.

    I_t = H[mean_k p_k] − mean_k H[p_k] over the next token at each position t that has a label, with K fresh paths:
    the path comes to decide what the sampler decided before, while the mixture over paths stays p_τ ∝ p_clean^(1/τ),
    the clean model under that sampler's temperature. The labels' values are not read. The hinge is the penalty form of
    the constraint KL ≤ budget (exact for a penalty above the multiplier; Bertsekas 1975, Mathematical Programming 9),
    taken at every position, so that batches add up and that the mean over positions keeps the budget too. Both
    estimates err on the safe side for a finite K: I is below that of all paths on average, KL above, so that few paths
    allow little transmission. Costs K + 1 rows an example.

    Attributes:
        draws: K, at least 2; I cannot exceed ln K.
        budget: in nats a position.
        penalty: nats of objective for a nat over the budget.
        temperature: τ > 0, of the sampler that the path is to stand in for.
    """

    draws: int = 8
    budget: float = 0.05
    penalty: float = 10.0
    temperature: float = 1.0
    clean_row = True

    def __post_init__(self) -> None:
        _at_least("draws", self.draws, 2)
        _at_least("budget", self.budget, 0)
        _at_least("penalty", self.penalty, 0)
        _at_least("temperature", self.temperature, 0)
        if not self.temperature:
            raise ValueError("temperature=0 leaves nothing for a path to decide: give a number > 0, such as 0.5")

    def check(self, routed: RoutedModel, base_trained: bool) -> None:
        if base_trained:
            raise ValueError(
                "objective marginal keeps to the clean model, which therefore must stay as it is: set train to 'noise'"
            )

    def total(self, logits: Tensor, labels: Tensor, routed: RoutedModel, step: int) -> Tensor:
        log_p = target_log_probabilities(logits, labels, self.draws + 1)
        along, clean = log_p[:-1], (log_p[-1].detach() / self.temperature).log_softmax(-1)
        excess = (divergence(clean, mixture(along)) - self.budget).clamp_min(0)
        return (self.penalty * excess - transmission(along)).sum()


OBJECTIVES: dict[str, type[Objective]] = {
    "fresh": FreshPaths,
    "bound": BoundPaths,
    "inferred": InferredPaths,
    "variational": Variational,
    "best_of_k": BestOfK,
    "marginal": MarginalPreserving,
}


def _at_least(name: str, value: float, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
        raise ValueError(f"{name}={value!r} must be a finite number ≥ {least}")


def _share(name: str, value: float, whole: str) -> None:
    _at_least(name, value, 0)
    if value > 1:
        raise ValueError(f"{name}={value!r} is no share of the {whole}: give 0 to 1")


def text_kl(routed: RoutedModel) -> Tensor:
    """KL(q(z | text) ‖ N(0, 1)) of each row that walks a path, in nats: (rows,)."""
    known = routed.inferred
    assert known is not None
    return kl_to_prior(known.mean, known.deviation, torch.ones_like(known.mean)).sum(-1)


def relaxed_winner(nats: Tensor, epsilon: float) -> Tensor:
    """Σ_k w_k · nats_k with w = 1 − ε for the smallest and ε/(K − 1) for the others: (b, K) -> (b,).

    The relaxed winner-takes-all of Rupprecht et al. 2017 (arXiv 1612.00197), as LoRA-MCL (arXiv 2507.10419) uses it
    over whole sequences. The weights carry no gradient. ε = 0 is the hard form, which starves the others;
    ε = 1 − 1/K is the plain mean.
    """
    others = nats.shape[1] - 1
    weights = torch.full_like(nats, epsilon / others)
    weights.scatter_(1, nats.detach().argmin(1, keepdim=True), 1 - epsilon)
    return (weights * nats).sum(1)
