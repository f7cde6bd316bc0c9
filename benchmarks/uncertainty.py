"""Uncertainty from paths on a made knowledge base, half of whose asked facts were never told: what is detected, and how well?

    python benchmarks/uncertainty.py --seed 0      # one knowledge base: two trainings, then all arms; on one core, an hour
    python benchmarks/uncertainty.py               # all seeds that are not there yet -> results/uncertainty.json

Every family of arms has the same number of answers a question and of trials; a trial is chosen on validation questions by
the AUROC of each score, among those whose accuracy is not below the model's own by more than MARGIN, and reported on test
questions. Interrupted, the same command goes on.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import record, save
from transformers import AutoModelForCausalLM, AutoTokenizer
from uncertainty_arms import FAMILIES, MAIN, RIVALS, Family, published
from uncertainty_training import Size, train

from stochroute.uncertainty import TASKS, AnswerFile, Answered, Arm, Asker, KnowledgeBase, Question, read_questions
from stochroute.uncertainty.detection import RESAMPLES, auroc
from stochroute.uncertainty.report import Measured

WORK = Path(__file__).parent / "work" / "uncertainty"  # checkpoints and answers; not kept in the repository
SEEDS = (0, 1, 2)
PEOPLE, VALIDATION, PATHS = 400, 400, 10
SIZE = Size()
DROPOUT = 0.1  # of the model that is trained with it
MARGIN = 0.02  # of accuracy, for a trial to be eligible
BATCH = 100  # questions at once
PUBLISHED_RIVAL = "temperature 0.5"


class Seed:
    """One knowledge base with its models, questions and answers."""

    def __init__(self, seed: int):
        self.seed = seed
        knowledge = KnowledgeBase(people=PEOPLE, unevenness=0.5, seed=seed)
        self.folder = WORK / str(seed)
        self.trainings = {
            name: train(self.folder / name, knowledge, Size(**{**asdict(SIZE), "dropout": rate}), seed)
            for name, rate in (("plain", 0.0), ("dropout", DROPOUT))
        }
        self.questions = read_questions(self.folder / "plain" / "questions.jsonl", TASKS["plain"])
        order = np.random.default_rng(seed).permutation(len(self.questions)).tolist()
        self.validation, self.test = order[:VALIDATION], order[VALIDATION:]
        self._models: dict[str, Any] = {}

    def measure(self, family: Family, arm: Arm, indices: Sequence[int], part: str, likelihoods: bool = False) -> Measured:
        """The arm on these questions; answers of an earlier run are read, not asked again."""
        asker = self._asker("dropout" if family.trained_with_dropout else "plain", likelihoods)
        asked = [self.questions[index] for index in indices]
        name = f"{family.name}, {arm.name}, {part}".replace(" ", "_")
        (self.folder / "answers").mkdir(exist_ok=True)
        file = AnswerFile(self.folder / "answers" / f"{name}.jsonl", asker.circumstances([arm], asked))
        for first in range(len(file.finished), len(asked), BATCH):
            file.append(asker.ask(arm, asked, range(first, min(first + BATCH, len(asked)))))
        file.close()
        return Measured.of(file.finished, asked)

    def groups(self, rows: Sequence[Question], measured: Measured) -> dict[str, float]:
        """Accuracy by group of questions."""
        names = sorted({question.group for question in rows})
        right = ~np.array(measured.wrong)
        return {n: float(right[[question.group == n for question in rows]].mean()) for n in names}

    def _asker(self, name: str, likelihoods: bool) -> Asker:
        if name not in self._models:
            folder = self.folder / name
            self._models[name] = (AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))
        model, tokenizer = self._models[name]
        return Asker(model, tokenizer, TASKS["plain"], PATHS, self.seed, new_tokens=4, likelihoods=likelihoods)


def run(seed: int) -> dict[str, Any]:
    """All families of one seed: what validation chose, and what it does on the test questions."""
    target = WORK / str(seed) / "record.json"
    if target.exists():
        return json.loads(target.read_text())
    base = Seed(seed)
    greedy = base.measure(FAMILIES[0], FAMILIES[0].trials[0], base.validation, "validation").accuracy
    chosen: dict[str, Any] = {}
    for family in (*FAMILIES, published()):
        found = {}
        for arm in family.trials:
            found[arm.name] = measured = base.measure(family, arm, base.validation, "validation")
            print(f"[{seed}] {family.name}, {arm.name}: {_line(measured)}", flush=True)
        for score in family.scores:
            chosen[f"{family.name} / {score}"] = _test(base, family, score, found, greedy)
    fixed = next(arm for arm in FAMILIES[1].trials if arm.name == PUBLISHED_RIVAL)
    chosen["T 0.5 / answer entropy"] = _reported(base, FAMILIES[1], fixed, "answer entropy", None)
    tests = [base.questions[index] for index in base.test]
    whole = {
        "seed": seed,
        "greedy": base.groups(tests, base.measure(FAMILIES[0], FAMILIES[0].trials[0], base.test, "test")),
        "trainings": base.trainings,
        "chosen": chosen,
        **record(),
    }
    target.write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def _test(base: Seed, family: Family, score: str, found: dict[str, Measured], greedy: float) -> dict[str, Any]:
    """The eligible trial with the best validation AUROC of the score, on the test questions."""
    eligible = [arm for arm in family.trials if found[arm.name].accuracy >= greedy - MARGIN]
    # where no trial keeps the accuracy, the one that comes nearest is reported, and its accuracy says so
    trials = eligible or [max(family.trials, key=lambda arm: found[arm.name].accuracy)]
    values = {arm.name: auroc(found[arm.name].wrong, found[arm.name].scores[score]) for arm in trials}
    best = max(trials, key=lambda arm: values[arm.name])
    return _reported(base, family, best, score, {"auroc": values[best.name], "eligible": len(eligible)})


def _reported(base: Seed, family: Family, arm: Arm, score: str, validation: dict[str, Any] | None) -> dict[str, Any]:
    measured = base.measure(family, arm, base.test, "test")
    return {
        "trial": arm.name,
        "validation": validation,
        "accuracy": measured.accuracy,
        "auroc": auroc(measured.wrong, measured.scores[score]),
        "wrong": measured.wrong,
        "score": measured.scores[score],
    }


def _line(measured: Measured) -> str:
    scores = ", ".join(f"{name} {auroc(measured.wrong, values):.4f}" for name, values in measured.scores.items())
    return f"accuracy {measured.accuracy:.3f}; {scores}"
