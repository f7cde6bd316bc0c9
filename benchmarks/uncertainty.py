"""Uncertainty from paths: which errors of a model that was told half of what it is asked are detected, and how well?

    python benchmarks/uncertainty.py --seed 2      # one knowledge base: a training, then all arms; 15 minutes on a core
    python benchmarks/uncertainty.py               # all seeds and parts that are not there yet
    python benchmarks/uncertainty.py --merge       # what is there -> results/uncertainty.json, as after every run

Every family of arms has as many answers a question, and no noise has more trials than temperature. A trial is chosen on
validation questions by the AUROC of each score, among those whose accuracy is not below the model's own by more than
MARGIN, and reported on test questions. Interrupted, the same command goes on.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import save
from transformers import AutoModelForCausalLM, AutoTokenizer
from uncertainty_arms import CORE, FORMS, MAIN, RIVALS, SINGLE, TRAINED_WITH_DROPOUT, Family
from uncertainty_training import Size, train

from stochroute.uncertainty import TASKS, AnswerFile, Arm, Asker, KnowledgeBase, Question, read_questions
from stochroute.uncertainty.detection import RESAMPLES, auroc, detect
from stochroute.uncertainty.report import Measured

WORK = Path(__file__).parent / "work" / "uncertainty"  # checkpoints and answers; not kept in the repository
SEEDS = (1, 2, 3)  # seed 0 is where strengths were looked for
PEOPLE, UNEVENNESS = 400, 0.5
VALIDATION, PATHS = 400, 10
SIZES = {"plain": Size(), "dropout": Size(dropout=0.1)}
FAMILIES = {"plain": CORE, "forms": FORMS, "dropout": TRAINED_WITH_DROPOUT}  # "forms" is of the plain model too
ONE_SEED = ("forms", "dropout")  # measured on the first seed only
MARGIN = 0.02  # of accuracy below the model's own, for a trial to be eligible
BATCH = 100  # questions at once


def asked_in(folder: Path, seed: int) -> dict[str, list[Question]]:
    """The validation and the test questions of a seed, as its training has written them."""
    questions = read_questions(folder / "questions.jsonl", TASKS["plain"])
    order = np.random.default_rng(seed).permutation(len(questions)).tolist()
    return {
        "validation": [questions[index] for index in order[:VALIDATION]],
        "test": [questions[index] for index in order[VALIDATION:]],
    }


class Model:
    """One training with its questions and answers."""

    def __init__(self, seed: int, name: str):
        size = "dropout" if name == "dropout" else "plain"
        self.folder = WORK / str(seed) / size
        knowledge = KnowledgeBase(people=PEOPLE, unevenness=UNEVENNESS, seed=seed)
        self.training = train(self.folder, knowledge, SIZES[size], seed)
        self.parts = asked_in(self.folder, seed)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(self.folder), AutoTokenizer.from_pretrained(self.folder)
        self._asker = Asker(model.eval(), tokenizer, TASKS["plain"], PATHS, seed, new_tokens=4)

    def measure(self, family: Family, arm: Arm, part: str) -> Measured:
        """The arm on the questions of a part; answers of an earlier run are read, not asked again."""
        asked = self.parts[part]
        folder = self.folder / "answers"
        folder.mkdir(exist_ok=True)
        name = f"{family.name} {arm.name} {part}".replace(" ", "_").replace(":", "")
        file = AnswerFile(folder / f"{name}.jsonl", self._asker.circumstances([arm], asked))
        for first in range(len(file.finished) // BATCH * BATCH, len(asked), BATCH):  # whole batches, for dropout's sake
            rows = self._asker.ask(arm, asked, range(first, min(first + BATCH, len(asked))))
            file.append(rows[len(file.finished) - first :])
        file.close()
        return Measured.of(file.finished, asked)

    def accuracy_by_group(self) -> dict[str, float]:
        """Of the single pass on the test questions."""
        right = ~np.array(self.measure(SINGLE, SINGLE.trials[0], "test").wrong)
        groups = [question.group for question in self.parts["test"]]
        return {name: float(right[[group == name for group in groups]].mean()) for name in sorted(set(groups))}


def run(seed: int, name: str) -> dict[str, Any]:
    """All families of one model: what validation chose, and how that does on the test questions."""
    target = WORK / str(seed) / f"{name}.json"
    if target.exists():
        return json.loads(target.read_text())
    model = Model(seed, name)
    greedy = model.measure(SINGLE, SINGLE.trials[0], "validation").accuracy
    chosen: dict[str, Any] = {}
    for family in FAMILIES[name]:
        found = {arm.name: model.measure(family, arm, "validation") for arm in family.trials}
        for arm, measured in found.items():
            print(f"[{seed}] {family.name}, {arm}: {_line(measured, family.scores)}", flush=True)
        for score in family.scores:
            chosen[f"{family.name} / {score}"] = _choose(model, family, score, found, greedy - MARGIN)
    whole = {
        "seed": seed,
        "chosen": chosen,
        "accuracy_by_group": model.accuracy_by_group(),
        "training": model.training,
    }
    target.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def _line(measured: Measured, scores: tuple[str, ...]) -> str:
    found = measured.undefined or ", ".join(f"{s} {auroc(measured.wrong, measured.scores[s]):.4f}" for s in scores)
    return f"accuracy {measured.accuracy:.3f}; {found}"


def _choose(model: Model, family: Family, score: str, found: dict[str, Measured], least: float) -> dict[str, Any]:
    """The eligible trial with the best validation AUROC of the score, measured on the test questions."""
    eligible = [arm for arm in family.trials if found[arm.name].accuracy >= least]
    # where no trial keeps the accuracy, the one that comes nearest is reported, and its accuracy says so
    trials = eligible or [max(family.trials, key=lambda arm: found[arm.name].accuracy)]
    values = {arm.name: auroc(found[arm.name].wrong, found[arm.name].scores[score]) for arm in trials}
    best = max(trials, key=lambda arm: values[arm.name])
    measured = model.measure(family, best, "test")
    return {
        "trial": best.name,
        "trials": len(family.trials),
        "eligible": len(eligible),
        "validation_auroc": values[best.name],
        "accuracy": measured.accuracy,
        "auroc": auroc(measured.wrong, measured.scores[score]),
        "wrong": measured.wrong,
        "score": measured.scores[score],
    }


def merge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds with 95 % intervals: a bootstrap over the test questions of every seed.

    Args:
        runs: of every seed what `run` returned for each of its models, put together.
    """
    names = list(dict.fromkeys(name for found in runs for name in found["chosen"]))
    resampled = {name: np.full((RESAMPLES, len(runs)), np.nan) for name in names}
    for column, found in enumerate(runs):
        chosen = {n: (np.array(a["wrong"]), np.array(a["score"])) for n, a in found["chosen"].items()}
        questions = len(chosen[MAIN][0])
        draws = np.random.default_rng(column).integers(0, questions, (RESAMPLES, questions))
        for row, drawn in enumerate(draws):  # the same questions for all arms, so that differences are paired
            for name, (wrong, score) in chosen.items():
                resampled[name][row, column] = auroc(wrong[drawn], score[drawn])
    published = ("U(0, α), T 0.5 / answer entropy", "T 0.5 / answer entropy")
    pairs = [*((MAIN, rival) for rival in RIVALS), published]
    return {
        "main": MAIN,
        "gains": {f"{a} over {b}": _gain(runs, resampled, a, b) for a, b in pairs if b in names},
        "arms": {name: _arm(runs, resampled, name) for name in names},
        "detections": {name: _detection(runs, name) for name in (MAIN, *RIVALS)},
        "means": {name: _means(runs, name) for name in (MAIN, *RIVALS[:2])},
        "accuracy_by_group": [found["accuracy_by_group"] for found in runs],
        "setting": {
            "questions_a_seed": {"validation": VALIDATION, "test": len(runs[0]["chosen"][MAIN]["wrong"])},
            "answers_a_question": PATHS,
            "accuracy_margin": MARGIN,
            "seeds": [found["seed"] for found in runs],
            "trainings": [training for found in runs for training in found["trainings"]],
        },
    }


def _detection(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """AURC and selective accuracy as well, over the questions of all seeds together."""
    found = [run["chosen"][name] for run in runs]
    wrong, score = (np.concatenate([arm[key] for arm in found]) for key in ("wrong", "score"))
    return detect(wrong, score).to_dict()


def _means(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Mean score by whether the fact was told and how many right answers it has, over all seeds."""
    values = defaultdict(list)
    for found in runs:
        for (group, answers), score in zip(found["asked"], found["chosen"][name]["score"], strict=True):
            values[f"{'told' if group == 'told' else 'never told'}, right answers: {answers}"].append(score)
    return {key: float(np.mean(values[key])) for key in sorted(values, reverse=True)}


def _arm(runs: list[dict[str, Any]], resampled: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    found = [each["chosen"][name] for each in runs if name in each["chosen"]]
    kept = ("trial", "trials", "eligible", "validation_auroc", "auroc", "accuracy")
    return {
        **_interval([arm["auroc"] for arm in found], resampled[name]),
        "accuracy": float(np.mean([arm["accuracy"] for arm in found])),
        "by_seed": [{key: arm[key] for key in kept} for arm in found],
    }


def _gain(runs: list[dict[str, Any]], resampled: dict[str, np.ndarray], arm: str, rival: str) -> dict[str, Any]:
    """In AUROC and in accuracy, over the seeds that have both."""
    found = [(each["chosen"][arm], each["chosen"][rival]) for each in runs if rival in each["chosen"]]
    gains = [ours["auroc"] - theirs["auroc"] for ours, theirs in found]
    return {
        **_interval(gains, resampled[arm] - resampled[rival]),
        "share_of_the_gap_to_1": float(np.mean(gains) / (1 - np.mean([theirs["auroc"] for _, theirs in found]))),
        "accuracy": float(np.mean([ours["accuracy"] - theirs["accuracy"] for ours, theirs in found])),
        "by_seed": gains,
    }


def _interval(values: list[float], resampled: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(np.nanmean(resampled, axis=1), [2.5, 97.5])
    return {"auroc": float(np.mean(values)), "low": float(low), "high": float(high)}


def finished() -> list[dict[str, Any]]:
    """Of every seed whose plain model is measured, all its parts put together."""
    whole = []
    for seed in SEEDS:
        files = [file for name in FAMILIES if (file := WORK / str(seed) / f"{name}.json").exists()]
        parts = [json.loads(file.read_text()) for file in files]
        if parts and files[0].stem == "plain":
            chosen = {arm: result for part in parts for arm, result in part["chosen"].items()}
            trainings = {str(part["training"]["size"]): part["training"] for part in parts}
            asked = [(q.group, len(q.references)) for q in asked_in(WORK / str(seed) / "plain", seed)["test"]]
            whole.append({**parts[0], "chosen": chosen, "asked": asked, "trainings": list(trainings.values())})
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", action="append", type=int, choices=SEEDS, help="again for more; none: all")
    parser.add_argument("--part", action="append", choices=list(FAMILIES), help="again for more; none: all")
    parser.add_argument("--merge", action="store_true", help="measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in () if options.merge else options.seed or SEEDS:
        for name in options.part or FAMILIES:
            if seed == SEEDS[0] or name not in ONE_SEED:
                run(seed, name)
    print("written:", save("uncertainty", {"command": "python benchmarks/uncertainty.py", **merge(finished())}))


if __name__ == "__main__":
    main()
