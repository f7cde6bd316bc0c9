"""Robustness against attacked prompts: a clean run, a routed run, a vote over paths, SmoothLLM's form at equal cost.

    python benchmarks/robustness.py --tables textattack_lists.json     # six trainings, twelve runs: two hours

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
from typing import Any

import torch
from harness import save
from rich.console import Console
from rich.progress import track
from story_questions import questions, trained

import stochroute as sr
from stochroute.robustness import Answers, Item, Plan, Sample, Tables, read_tables, report, run
from stochroute.robustness.items import item_of
from stochroute.robustness.runs import TEST, Chosen, identity
from stochroute.robustness.store import Store

WORK = Path(__file__).parent / "work" / "robustness"
STEPS = 250
STRENGTHS = (0.05, 0.1, 0.2, 0.4)
COPY_RATES = (0.01, 0.02, 0.05, 0.1)
NOISE_IN_TRAINING = 0.2
KINDS = ("typos", "swaps", "homoglyphs", "synonyms", "drops")


def routing(strength: float) -> sr.RoutingConfig:
    """One draw a text, shared by all layers, over all positions: the reading of the prompt is routed too."""
    return sr.RoutingConfig(structural=sr.Structural(layers="all", strength=strength), span="all")


TRAININGS = {"plain": None, "fresh noise": routing(NOISE_IN_TRAINING)}


def plans(with_names: bool, paths: int) -> dict[str, Plan]:
    """The attacks."""
    shared: dict[str, Any] = {"paths": paths, "smoothing_rates": COPY_RATES, "validation": 0.5}
    kinds = (*KINDS, "names") if with_names else KINDS
    return {
        "random": Plan(perturbations=kinds, rates=(0.1, 0.3), seed=11, **shared),
        "worst of 8": Plan(perturbations=("typos",), rates=(0.1, 0.3), seed=12, tries=8, **shared),
    }


def samples_of(
    name: str, plan: Plan, model: Any, tokenizer: Any, items: Sequence[Item], tables: Tables
) -> tuple[list[Sample], Chosen]:
    """All samples of one run, from its file as far as they are there."""
    answers = Answers(model, tokenizer, {str(strength): routing(strength) for strength in STRENGTHS}, rows_at_once=32)
    store = Store(WORK / f"{name}.jsonl", identity(plan, items, answers, tables), True, Sample.from_json)
    samples = [Sample.from_json(sample) for sample in store.samples]
    try:
        chosen = run(plan, items, answers, tables, samples, keep=lambda sample: store.add(asdict(sample)))
    finally:
        store.close()
        answers.close()
    return samples, chosen


def pooled(plan: Plan, runs: Sequence[tuple[Sequence[Item], list[Sample], Chosen]]) -> dict[str, Any]:
    """One report over the test prompts of several trainings, each under the settings that its own prompts chose."""
    items: list[Item] = []
    samples: list[Sample] = []
    for own_items, own_samples, chosen in runs:
        samples += [
            replace(
                sample,
                item=len(items) + sample.item,
                paths={"chosen": sample.paths[chosen.routing]},
                smoothed={"chosen": sample.smoothed[chosen.smoothing]},
            )
            for sample in own_samples
            if sample.phase == TEST
        ]
        items += own_items
    return report(plan, items, samples, Chosen("chosen", "chosen"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, help="lists in TextAttack's format, for attacked names")
    parser.add_argument("--prompts", type=int, default=120, help="prompts a training (default 120)")
    parser.add_argument("--paths", type=int, default=8, help="runs behind a vote (default 8)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind (default 3)")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    tables = Tables() if options.tables is None else read_tables(options.tables)
    settings = {"steps": STEPS, "strengths": STRENGTHS, "copy_rates": COPY_RATES, "dtype": "bfloat16"}
    result: dict[str, Any] = {**settings, **{k: v for k, v in vars(options).items() if k != "tables"}, "attacks": {}}
    for attack, plan in plans(options.tables is not None, options.paths).items():
        result["attacks"][attack] = {"plan": asdict(plan), "trainings": {}}
        for training, noise in TRAININGS.items():
            runs = []
            for seed in track(range(options.seeds), f"{attack}, {training}", console=Console(stderr=True)):
                name = f"{training}-{seed}".replace(" ", "-")
                model, tokenizer = trained(seed, noise, STEPS, WORK / f"{name}.safetensors")
                items = [item_of(row) for row in questions(100 + seed, options.prompts)]
                file = f"{name}-{attack}".replace(" ", "-")
                samples, chosen = samples_of(file, plan, model.to(torch.bfloat16), tokenizer, items, tables)
                runs.append((items, samples, chosen))
            result["attacks"][attack]["trainings"][training] = {
                "chosen": [asdict(chosen) for _, _, chosen in runs],
                "seeds": [report(plan, *one) for one in runs],
                "all_seeds": pooled(plan, runs),
            }
            print("written:", save("robustness", result), flush=True)


if __name__ == "__main__":
    main()
