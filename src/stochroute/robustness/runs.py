"""The experiment: every prompt under every attack, answered by every arm at equal cost.

    plan = Plan(perturbations=("typos", "drops"), rates=(0.1, 0.3), paths=8, seed=7)
    answers = Answers(model, tokenizer, {"0.1": RoutingConfig()})
    store = Store("samples.jsonl", identity(plan, items, answers), resume=True, check=check_sample)
    run(plan, items, answers, store)
    report(plan, items, store.samples)

Arms, for each prompt as it was attacked:

    clean      the original model, once
    routed     the routed model along one path
    vote       the majority over K paths
    smoothed   the majority of the original model over K perturbed copies of the attacked prompt: the form of SmoothLLM
               (Robey et al. 2023, arXiv 2310.03684), at the cost of `vote`

Strength of the noise and rate of the copies are chosen on a validation part of the prompts that is not reported, among
as many candidates each.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import transformers

from stochroute.generation.receipts import computed_in, fingerprint, routing_hash
from stochroute.paths import check_integer, check_seed, derive_paths
from stochroute.robustness.answers import ANSWERED, REFUSED, Answers, Question
from stochroute.robustness.items import Item, digest
from stochroute.robustness.perturbations import check_kind, check_rate, find_sites, perturb
from stochroute.robustness.tables import Tables
from stochroute.robustness.voting import Ballot, Label, majority

VALIDATION, TEST = "validation", "test"


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        perturbations: kinds of attack, see `perturbations.KINDS`.
        rates: strengths of the attack, each the share of words or letters changed.
        paths: K, the runs behind every vote.
        seed: derives attacks, paths, copies and the validation part.
        tries: attacks tried on each prompt; the one that leaves the right answer the least probable for the original
            model is kept. 1 is a random perturbation, more a search against the original model.
        smoothing: kind of perturbation of the copies.
        smoothing_rates: candidates for its strength.
        validation: share of the prompts that choose, where there is more than one candidate.
    """

    perturbations: tuple[str, ...]
    rates: tuple[float, ...]
    paths: int = 8
    seed: int = 0
    tries: int = 1
    smoothing: str = "characters"
    smoothing_rates: tuple[float, ...] = (0.1,)
    validation: float = 0.3

    def __post_init__(self) -> None:
        for name in ("perturbations", "rates", "smoothing_rates"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name}={values!r}: give at least one, and none twice")
        for kind in (*self.perturbations, self.smoothing):
            check_kind(kind)
        for rate in self.rates:
            check_rate("rate", rate)
        for rate in self.smoothing_rates:
            check_rate("smoothing rate", rate)
        check_rate("validation", self.validation)
        check_seed(self.seed)
        if check_integer("paths", self.paths, "give how many vote") < 2:
            raise ValueError(f"paths={self.paths} is no vote: give at least 2")
        if check_integer("tries", self.tries, "give how many attacks to try") < 1:
            raise ValueError(f"tries={self.tries}: give at least 1, a random perturbation")

    @property
    def conditions(self) -> list[tuple[str | None, float]]:
        """(kind, rate) of every attack, the prompt as it is first."""
        return [(None, 0.0), *((kind, rate) for kind in self.perturbations for rate in self.rates if rate > 0)]


@dataclass(frozen=True)
class Sample:
    """One prompt under one attack, and what every arm answered.

    Attributes:
        phase: "validation" or "test".
        item: index in the set.
        kind, rate: of the attack; None and 0 for the prompt as it is.
        prompt: as it was attacked.
        clean: the original model's answer.
        paths: routing -> its K answers.
        smoothed: rate of the copies -> the original model's K answers to them.
    """

    phase: str
    item: int
    kind: str | None
    rate: float
    prompt: str
    clean: Ballot
    paths: dict[str, list[Ballot]]
    smoothed: dict[str, list[Ballot]]

    @property
    def place(self) -> tuple[str, int, str | None, float]:
        """Which sample of a run it is."""
        return self.phase, self.item, self.kind, self.rate

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Sample":
        """The sample from JSON types; KeyError or TypeError for anything else."""

        def ballots(arm: str) -> dict[str, list[Ballot]]:
            return {name: [Ballot.from_json(one) for one in all_of] for name, all_of in data[arm].items()}

        return cls(
            phase=data["phase"],
            item=data["item"],
            kind=data["kind"],
            rate=data["rate"],
            prompt=data["prompt"],
            clean=Ballot.from_json(data["clean"]),
            paths=ballots("paths"),
            smoothed=ballots("smoothed"),
        )


@dataclass(frozen=True)
class Chosen:
    """The settings that are reported: a routing's name, and a rate of the copies as a text."""

    routing: str
    smoothing: str
    validated: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def identity(plan: Plan, items: Sequence[Item], answers: Answers, tables: Tables) -> dict[str, Any]:
    """What tells this run from another, as JSON types."""
    return {
        **asdict(plan),
        "prompts": digest(items),
        "model": fingerprint(answers.model),
        "dtype": computed_in(answers.model),
        "routings": {name: routing_hash(answers.routed(name)) for name in answers.routings},
        "tables": tables.digest(),
        "max_new_tokens": answers.max_new_tokens,
        "refusals": list(answers.refusals),
        "chat": answers.chat,
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
    }


def is_right(item: Item, label: Label) -> bool:
    """Whether a label is the right answer, or the right reaction to a prompt to be declined or not."""
    if item.refuse is not None:
        return label == (REFUSED if item.refuse else ANSWERED)
    return item.is_right(label)


def split(plan: Plan, items: Sequence[Item], candidates: int) -> tuple[list[int], list[int]]:
    """Indices of the prompts that choose, and of those that are reported; where nothing is to be chosen, all of these.

    Raises:
        ValueError: one of the parts is too small.
    """
    order = sorted(range(len(items)), key=lambda index: (random.Random(plan.seed ^ index << 64).random(), index))
    chosen = round(plan.validation * len(items)) if candidates > 1 else 0
    first, rest = sorted(order[:chosen]), sorted(order[chosen:])
    if len(rest) < 2 or (candidates > 1 and not first):
        raise ValueError(
            f"{len(items)} prompts with validation={plan.validation} leave {len(first)} to choose and {len(rest)} to "
            f"report: give more prompts, or another share"
        )
    return first, rest


def check_plan(plan: Plan, items: Sequence[Item], answers: Answers, tables: Tables) -> None:
    """ValueError when arms have unlike numbers of candidates, or a perturbation finds nothing to change."""
    if len(answers.routings) != len(plan.smoothing_rates):
        raise ValueError(
            f"{len(answers.routings)} strengths against {len(plan.smoothing_rates)} smoothing rates: give as many, so "
            f"that both arms are tuned alike"
        )
    for kind in plan.perturbations:
        if not any(find_sites(item.prompt, kind, tables, item.words_of_the_answer) for item in items):
            raise ValueError(
                f"perturbation {kind!r} finds nothing to change in any prompt: leave it out, or give tables that know "
                f"their words"
            )


def run(
    plan: Plan,
    items: Sequence[Item],
    answers: Answers,
    tables: Tables,
    samples: list[Sample],
    keep: Callable[[Sample], None] = lambda sample: None,
) -> Chosen:
    """Makes the samples that are missing, in a fixed order, and returns the settings that were chosen.

    Args:
        plan: what to run.
        items: the labelled prompts.
        answers: the model, with as many routings as the plan has smoothing rates.
        tables: for the perturbations.
        samples: those that are there already; the new ones are added.
        keep: called with each new sample.

    Raises:
        ValueError: see `check_plan` and `split`; or the samples that are there belong to another run.
    """
    check_plan(plan, items, answers, tables)
    validation, test = split(plan, items, len(answers.routings))
    worker = _Worker(plan, items, answers, tables)

    def fill(
        first: int, places: list[tuple[str, int, str | None, float]], settings: tuple[list[str], list[float]]
    ) -> None:
        for number, place in enumerate(places, first):
            if number < len(samples):
                if samples[number].place != place:
                    raise ValueError(f"sample {number + 1} is {samples[number].place}, and this run has {place} there")
                continue
            samples.append(worker.sample(*place, *settings))
            keep(samples[-1])

    conditions = plan.conditions
    # each prompt that chooses meets one attack: all of them together meet all
    places = [(VALIDATION, item, *conditions[turn % len(conditions)]) for turn, item in enumerate(validation)]
    fill(0, places, (list(answers.routings), list(plan.smoothing_rates)))
    chosen = choose(items, samples[: len(places)], list(answers.routings), list(plan.smoothing_rates))
    fill(
        len(places),
        [(TEST, item, *condition) for item in test for condition in conditions],
        ([chosen.routing], [float(chosen.smoothing)]),
    )
    return chosen


def number_of_samples(plan: Plan, items: Sequence[Item], candidates: int) -> int:
    """How many samples a run has."""
    validation, test = split(plan, items, candidates)
    return len(validation) + len(test) * len(plan.conditions)


def choose(items: Sequence[Item], validation: Sequence[Sample], routings: list[str], rates: list[float]) -> Chosen:
    """The candidates whose votes are right most often on the validation samples; of equals the first."""
    names = [str(rate) for rate in rates]
    if len(routings) == 1:
        return Chosen(routings[0], names[0])

    def accuracy(arm: str, name: str) -> float:
        votes = [is_right(items[s.item], majority(getattr(s, arm)[name])) for s in validation]
        return sum(votes) / len(votes)

    found = {
        "paths": {name: accuracy("paths", name) for name in routings},
        "smoothed": {name: accuracy("smoothed", name) for name in names},
    }
    best = {arm: max(scores, key=lambda name, scores=scores: scores[name]) for arm, scores in found.items()}
    return Chosen(best["paths"], best["smoothed"], found)


class _Worker:
    """Makes one sample after another."""

    def __init__(self, plan: Plan, items: Sequence[Item], answers: Answers, tables: Tables):
        self._plan, self._items, self._answers, self._tables = plan, items, answers, tables
        self._attack_seed, self._path_seed, self._copy_seed = derive_paths(plan.seed, 3)

    def sample(
        self, phase: str, index: int, kind: str | None, rate: float, routings: list[str], rates: list[float]
    ) -> Sample:
        item = self._items[index]
        prompt, clean = self._attack(item, index, kind, rate)
        paths = derive_paths(self._path_seed, self._plan.paths, prompt=index)
        along = {
            name: self._answers.ask([Question.along(item, prompt, path) for path in paths], name) for name in routings
        }
        keys = derive_paths(self._copy_seed, self._plan.paths, prompt=index)
        copies = {
            str(each): [
                Question.clean(item, perturb(prompt, self._plan.smoothing, each, key, self._tables), key)
                for key in keys
            ]
            for each in rates
        }
        smoothed = {name: self._answers.ask(questions) for name, questions in copies.items()}
        return Sample(phase, index, kind, rate, prompt, clean, along, smoothed)

    def _attack(self, item: Item, index: int, kind: str | None, rate: float) -> tuple[str, Ballot]:
        """The attacked prompt, and the original model's answer to it."""
        texts = [item.prompt]
        if kind is not None:
            keys = derive_paths(self._attack_seed, self._plan.tries, prompt=index)
            texts = [perturb(item.prompt, kind, rate, key, self._tables, item.words_of_the_answer) for key in keys]
        ballots = self._answers.ask([Question.clean(item, text) for text in texts])
        worst = min(range(len(texts)), key=lambda number: _rightness(item, ballots[number]))
        return texts[worst], ballots[worst]


def _rightness(item: Item, ballot: Ballot) -> float:
    if isinstance(item.answer, int):
        return ballot.probabilities[item.answer]
    return float(is_right(item, ballot.label))
