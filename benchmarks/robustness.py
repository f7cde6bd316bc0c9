"""Robustness against attacked prompts: a clean run, a routed run, a vote over paths, SmoothLLM's form at equal cost.

    python benchmarks/robustness.py --tables textattack_lists.json     # six trainings, nine runs: an hour

The task is reading comprehension in the story world: the embedded model is trained on questions about stories, with and
without fresh noise in training, three seeds each (`story_questions.py`), and asked about other stories. Strength of the
noise and rate of SmoothLLM's copies are chosen on half of the prompts among four candidates each; the other half is
reported. Two attacks: a random perturbation, and the worst of eight for the original model. Samples are kept in
benchmarks/work/, so that an interrupted run goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from harness import save
from rich.console import Console
from rich.progress import track
from story_questions import QUESTIONS, questions, trained

import stochroute as sr
from stochroute.resumable import ResumableFile
from stochroute.robustness import Answers, Item, Plan, Sample, Tables, read_tables, report, run
from stochroute.robustness.items import item_of
from stochroute.robustness.report import ARMS, by_prompt, interval
from stochroute.robustness.runs import TEST, Chosen, identity

WORK = Path(__file__).parent / "work" / "robustness"
STEPS = 250
STRENGTHS = (0.05, 0.1, 0.2, 0.4)
COPY_RATES = (0.01, 0.02, 0.05, 0.1)
NOISE_IN_TRAINING = 0.2
POOLED = Chosen("chosen", "chosen")  # of several trainings, each under its own settings
KINDS = ("typos", "swaps", "homoglyphs", "synonyms", "drops")


def routing(strength: float) -> sr.RoutingConfig:
    """One draw a text, shared by all layers, over all positions: the reading of the prompt is routed too."""
    return sr.RoutingConfig(structural=sr.Structural(layers="all", strength=strength), span="all")


TRAININGS = {"plain": None, "fresh noise": routing(NOISE_IN_TRAINING)}


class Attack(NamedTuple):
    """A plan, and the trainings of the models that it is run on."""

    plan: Plan
    trainings: tuple[str, ...]


def attacks(with_names: bool, paths: int) -> dict[str, Attack]:
    """A random perturbation of every kind, and a search against the original model."""
    shared: dict[str, Any] = {"paths": paths, "smoothing_rates": COPY_RATES, "validation": 0.5}
    kinds = (*KINDS, "names") if with_names else KINDS
    every = Plan(perturbations=kinds, rates=(0.1, 0.3), seed=11, **shared)
    searched = Plan(perturbations=("typos",), rates=(0.1, 0.3), seed=12, tries=8, **shared)
    return {"random": Attack(every, tuple(TRAININGS)), "worst of 8": Attack(searched, ("plain",))}


def samples_of(
    name: str, plan: Plan, model: Any, tokenizer: Any, items: Sequence[Item], tables: Tables
) -> tuple[list[Sample], Chosen]:
    """All samples of one run, from its file as far as they are there."""
    answers = Answers(model, tokenizer, {str(strength): routing(strength) for strength in STRENGTHS}, rows_at_once=32)
    results = ResumableFile(WORK / f"{name}.jsonl", identity(plan, items, answers, tables), True, Sample.from_json)
    samples = [Sample.from_json(sample) for sample in results.entries]
    try:
        chosen = run(plan, items, answers, tables, samples, keep=lambda sample: results.add(asdict(sample)))
    finally:
        results.close()
        answers.close()
    return samples, chosen


def pool(runs: Sequence[tuple[Sequence[Item], list[Sample], Chosen]]) -> tuple[list[Item], list[Sample]]:
    """The test prompts of several trainings as one set, each under the settings that its own prompts chose."""
    items: list[Item] = []
    samples: list[Sample] = []
    for own_items, own_samples, chosen in runs:
        samples += [
            replace(
                sample,
                item=len(items) + sample.item,
                paths={POOLED.routing: sample.paths[chosen.routing]},
                smoothed={POOLED.smoothing: sample.smoothed[chosen.smoothing]},
            )
            for sample in own_samples
            if sample.phase == TEST
        ]
        items += own_items
    return items, samples


def difference(pools: dict[str, tuple[list[Item], list[Sample]]]) -> dict[str, Any]:
    """Arm -> accuracy with fresh noise in training minus accuracy without, over all attacks, paired by prompt."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        noisy, plain = (
            by_prompt(items, [s for s in samples if s.kind], POOLED, arm)
            for items, samples in (pools["fresh noise"], pools["plain"])
        )
        found[arm] = interval([noisy[prompt] - plain[prompt] for prompt in noisy])
    return found


def by_question(runs: Sequence[tuple[Sequence[Item], list[Sample], Chosen]]) -> dict[str, float]:
    """Kind of question -> accuracy of one clean run where nothing is attacked."""
    right: dict[str, list[bool]] = {role: [] for role in QUESTIONS}
    for items, samples, _ in runs:
        for sample in samples:
            if sample.phase == TEST and sample.kind is None:
                role = list(QUESTIONS)[sample.item % len(QUESTIONS)]  # `questions` asks them in turn
                right[role].append(items[sample.item].is_right(sample.clean.label))
    return {role: fmean(found) for role, found in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, help="lists in TextAttack's format, for attacked names")
    parser.add_argument("--prompts", type=int, default=120, help="prompts a training (default 120)")
    parser.add_argument("--paths", type=int, default=8, help="runs behind a vote (default 8)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind (default 3)")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    tables = Tables() if options.tables is None else read_tables(options.tables)
    result: dict[str, Any] = {
        "steps": STEPS,
        "noise_in_training": NOISE_IN_TRAINING,
        "strengths": STRENGTHS,
        "copy_rates": COPY_RATES,
        "dtype": "bfloat16",
        "prompts": options.prompts,
        "paths": options.paths,
        "seeds": options.seeds,
        "attacks": {},
    }
    for attack, (plan, trainings) in attacks(options.tables is not None, options.paths).items():
        pools, trained_models = {}, {}
        for training in trainings:
            noise, runs = TRAININGS[training], []
            for seed in track(range(options.seeds), f"{attack}, {training}", console=Console(stderr=True)):
                name = f"{training}-{seed}".replace(" ", "-")
                model, tokenizer = trained(seed, noise, STEPS, WORK / f"{name}.safetensors")
                items = [item_of(row) for row in questions(100 + seed, options.prompts)]
                file = f"{name}-{attack}".replace(" ", "-")
                samples, chosen = samples_of(file, plan, model.to(torch.bfloat16), tokenizer, items, tables)
                runs.append((items, samples, chosen))
            pools[training] = pool(runs)
            trained_models[training] = {
                "chosen": [asdict(chosen) for _, _, chosen in runs],
                "clean_by_question": by_question(runs),
                "attacked_by_seed": [report(plan, *one)["attacked"] for one in runs],
                "all_seeds": report(plan, *pools[training], POOLED),
            }
        result["attacks"][attack] = {"plan": asdict(plan), "trainings": trained_models}
        if len(pools) > 1:
            result["attacks"][attack]["fresh noise - plain"] = difference(pools)
        print("written:", save("robustness", result), flush=True)


if __name__ == "__main__":
    main()
