"""Creativity with a known ceiling: paths against tuned sampling, seed-conditioning and dropout, at equal training.

    python benchmarks/creativity.py circle --training null --seed 0     # one run: minutes on one core
    python benchmarks/creativity.py circle                              # every training and seed that is not there yet
    python benchmarks/creativity.py --merge                             # the runs -> results/creativity.json
    python benchmarks/creativity.py circle --ship                       # the best bound checkpoint -> the package

One rule for every arm: the same steps and rows, the same number of trials (checkpoints × decodings), chosen on held-out
paths, reported on others. A run writes results/creativity_runs/SIZE/TASK/TRAINING.SEED.json; killed before that, it
starts again. Sizes are in creativity_SIZE.yaml.
"""

import argparse
import json
import shlex
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from creativity_arms import TRAININGS, arms_of
from creativity_story import StoryRows
from creativity_training import TEST_SEEDS, Run, Size, Transmission, mean_of
from harness import record
from results import RESULTS, of_size
from scipy import stats

from stochroute.tasks import TASKS, TokenTask

RUNS = RESULTS / "creativity_runs"
WORK = Path(__file__).parent / "work"  # checkpoints; not kept in the repository
SHIPPED = Path(__file__).parents[1] / "src" / "stochroute" / "embedded" / "creative_weights"
SEEDS = (0, 1, 2)
SHARES = ("creativity", "coherence", "memorised", "unique")


def read_size(size: str, name: str) -> tuple[TokenTask, Size]:
    """The task and its size by their name in creativity_SIZE.yaml."""
    settings = yaml.safe_load((Path(__file__).parent / f"creativity_{size}.yaml").read_text())[name]
    tasks: dict[str, Any] = {**TASKS, "story": StoryRows}
    task: TokenTask = tasks[settings.pop("task", name)](**settings.pop("options", {}))
    settings["transmission"] = Transmission(**settings["transmission"])
    settings["checks"] = tuple(settings["checks"])
    return task, Size(samples=task.PUBLISHED_SAMPLES, **settings)


def names_in(size: str) -> list[str]:
    """The tasks of a size."""
    return list(yaml.safe_load((Path(__file__).parent / f"creativity_{size}.yaml").read_text()))


def run_file(size: str, name: str, training: str, seed: int) -> Path:
    """Where the record of a run is."""
    return RUNS / size / name / f"{training}.{seed}.json"


def run(size: str, name: str, training: str, seed: int) -> None:
    """Makes one run, unless its record is there."""
    target = run_file(size, name, training, seed)
    if not target.exists():
        write(target, size, name, open_run(size, name, training, seed).train())


def score_again(size: str, name: str, training: str, seed: int, how: str) -> None:
    """Scores the checkpoints of a finished run by the present rule, arms that end with `how`; trains nothing."""
    target = run_file(size, name, training, seed)
    if target.exists():
        before = json.loads(target.read_text())
        found = open_run(size, name, training, seed).record(before["minutes"], how)
        curve = [point for point in before["curve"] if not point["arm"].endswith(how)] + found["curve"]
        arms = {**before["arms"], **found["arms"]}
        write(target, size, name, {**found, "arms": arms, "curve": curve, "log": before["log"]})


def open_run(size: str, name: str, training: str, seed: int) -> Run:
    """The run, with its checkpoints where they belong."""
    task, settings = read_size(size, name)
    return Run(task, settings, training, seed, WORK / size / name / f"{training}.{seed}")


def write(target: Path, size: str, name: str, found: dict[str, Any]) -> None:
    """Writes the record of a run, whole or not at all."""
    words = ["python", "benchmarks/creativity.py", name, "--size", size]
    words += ["--training", found["training"], "--seed", str(found["seed"])]
    whole = {**record(), "command": shlex.join(words), **found}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(whole, indent=1) + "\n")
    partial.rename(target)


def merge(size: str) -> dict[str, Any]:
    """All runs of a size by task and arm: means over seeds, with 95 % intervals (Student's t) for creativity."""
    merged: dict[str, Any] = {}
    for name in names_in(size):
        runs = [json.loads(path.read_text()) for path in sorted((RUNS / size / name).glob("*.json"))]
        if not runs:
            continue
        arms: dict[str, Any] = {}
        for training in TRAININGS:
            seeds = [run for run in runs if run["training"] == training]
            for arm in dict.fromkeys(arm for run in seeds for arm in run["arms"]):
                having = [run for run in seeds if arm in run["arms"]]  # an arm may be younger than a run
                arms[arm] = _over_seeds([run["arms"][arm] for run in having], having[0])
        merged[name] = {**arms, "ceiling": runs[0]["ceiling"]}
    return merged


def _over_seeds(found: list[dict[str, Any]], run: dict[str, Any]) -> dict[str, Any]:
    values = np.array([arm["test"]["creativity"] for arm in found])
    means = mean_of([arm["test"] for arm in found])
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return {
        **{share: means[share] for share in SHARES},
        "low": None if np.isnan(half) else float(values.mean() - half),
        "high": None if np.isnan(half) else float(values.mean() + half),
        "chance": found[0]["test"]["chance"],
        "seeds": len(found),
        "chosen": [f"step {arm['step']}, {arm['trial']}" for arm in found],
        **{key: run[key] for key in ("command", "date", "processor", "gpu", "torch", "transformers") if key in run},
    }


def ship(size: str, name: str) -> Path:
    """Writes the bound checkpoint with the best held-out score into the package, as `load_creative` reads it."""
    runs = [json.loads(path.read_text()) for path in sorted((RUNS / size / name).glob("bound *.json"))]
    found = [(run, arm) for run in runs for arm in run["arms"]]
    run, arm = max(found, key=lambda pair: pair[0]["arms"][pair[1]]["held_out"]["creativity"])
    scores, training = run["arms"][arm], run["training"]
    opened = open_run(size, name, training, run["seed"])
    trials = arms_of(training, opened.size.flattened)[arm]
    trial = next(trial for trial in trials if str(trial) == scores["trial"])
    routed = opened.restore(scores["step"], trial.strength)
    target = SHIPPED / name
    routed.model.save_pretrained(target)
    routed.save_pretrained(target)
    provenance = {
        "what": "a model of a creativity task with paths, trained from nothing on the task's own training set",
        "licence": "Apache-2.0, as the package",
        "task": {key: value for key, value in asdict(opened.task).items() if key != "prefix_tokens"},
        "arm": arm,
        "decoding": asdict(trial.decoding),
        "paths": {"seed": TEST_SEEDS[0], "prompt": run["seed"]},
        "test": asdict(opened.score(scores["step"], trial, opened.size.samples, TEST_SEEDS[0])),
        **{key: run[key] for key in ("command", "date", "processor", "torch", "transformers")},
    }
    (target / "PROVENANCE.json").write_text(json.dumps(provenance, indent=2) + "\n")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", help="names in creativity_SIZE.yaml; none: all of them")
    parser.add_argument("--size", default="cpu", help="cpu (default) or published")
    parser.add_argument(
        "--training",
        action="append",
        choices=list(TRAININGS),
        metavar="NAME",
        help="of creativity_arms.TRAININGS, a mistaken one lists them; again for more; none: all",
    )
    parser.add_argument("--seed", action="append", type=int, help=f"again for more; none: {', '.join(map(str, SEEDS))}")
    parser.add_argument("--merge", action="store_true", help="train nothing")
    parser.add_argument(
        "--again",
        metavar="HOW",
        help="train nothing; score again, by the present rule, the arms of finished runs whose names end so; '': all",
    )
    parser.add_argument("--ship", action="store_true", help="train nothing; write the best bound checkpoint")
    options = parser.parse_args()
    if unknown := set(options.task) - set(names_in(options.size)):
        parser.error(f"{shlex.join(unknown)}: choose from {shlex.join(names_in(options.size))}")
    torch.set_num_threads(1)
    if options.ship:
        for name in options.task:
            print("written:", ship(options.size, name))
        return
    make = run if options.again is None else partial(score_again, how=options.again)
    if not options.merge:
        for name in options.task or names_in(options.size):
            for seed in options.seed or SEEDS:
                for training in options.training or TRAININGS:
                    make(options.size, name, training, seed)
    target = RESULTS / f"{of_size('creativity', options.size)}.json"
    target.write_text(json.dumps(merge(options.size), indent=2) + "\n")
    print("written:", target)


if __name__ == "__main__":
    main()
