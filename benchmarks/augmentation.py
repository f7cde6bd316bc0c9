"""Does augmentation along paths help where data is little, and more than by temperature? In the story world.

    python benchmarks/augmentation.py               # about a quarter of an hour on one core

Two learners, each on a few stories alone, with rows made by temperature beside them, with the same rows spread over the
model's distribution, and with rows made along paths:

- a classifier (TF-IDF of words, logistic regression) that reads which of four kinds of wish a story is about. New
  stories begin as a labelled one does, up to the sentence of its wish, so that their label is known, and the embedded
  model tells the rest. Scored by accuracy on stories that nobody has seen.
- a language model of 0.2 million parameters, trained on dialogues and then fine-tuned on stories. New stories begin
  with four words of a given one. Scored by nats per token on unseen stories.

All ways of making rows have the same number of settings, each chosen on seeds (sets of given stories) that are not
reported, together with the learner's own: the classifier's C, the language model's number of steps. Beside them stands
what as many true stories would give. Differences are paired by seed, their intervals Student's.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import record, save
from results import RESULTS, read
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import LlamaConfig, LlamaForCausalLM

import stochroute as sr
from stochroute.applications.augment import Augmentation, Filters, Template, augment
from stochroute.applications.augment.duplicates import Near
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, load_model
from stochroute.world import WORLD, draw_plot, draw_text

KINDS = ("somewhere to get to", "something to make", "something to find", "something to show")
TEST_SEED, DIALOGUE_SEED = 99_000_001, 99_000_002
PATHS = 8  # new rows a row
COSTS = (1.0, 10.0, 100.0)  # C of the logistic regression
BATCH = 8  # texts a step of the language model
STEPS = (25, 50, 100, 150)  # of the fine-tuning


@dataclass(frozen=True)
class Setting:
    """One way to make rows."""

    arm: str
    label: str
    routing: sr.RoutingConfig
    temperature: float | None = None
    spread: bool = False


def _structural(strength: float, hold: Any) -> sr.RoutingConfig:
    return sr.RoutingConfig(structural=sr.Structural(strength=strength, hold=hold))


NO_NOISE = sr.RoutingConfig(structural=None)
TEMPERATURES = (0.5, 0.8, 1.0, 1.3)
SETTINGS = (
    *(Setting("temperature", f"T {t}", NO_NOISE, t) for t in TEMPERATURES),
    *(Setting("spread", f"T {t}, spread", NO_NOISE, t, spread=True) for t in TEMPERATURES),
    Setting("paths", "strength 0.1, a draw a text, greedy", _structural(0.1, "sequence")),
    Setting("paths", "strength 0.2, a draw a text, greedy", _structural(0.2, "sequence")),
    Setting("paths", "strength 0.3, a draw a token, greedy", _structural(0.3, 1)),
    Setting("paths", "strength 0.6, a draw a token, greedy", _structural(0.6, 1)),
)


def stories(seed: int, count: int) -> list[dict[str, Any]]:
    """Labelled stories: text, label, and the beginning up to the sentence of the wish."""
    rows = []
    for index in range(count):
        text, plot = draw_text(seed, index), draw_plot(seed, index)
        label = next(number for number, branch in enumerate(WORLD.branches) if plot.goal in branch.goals)
        rows.append({"text": text, "label": label, "beginning": _first_sentences(text, 2)})
    return rows


def balanced(seed: int, each: int) -> list[dict[str, Any]]:
    """The first `each` stories of every label."""
    rows = stories(seed, 40 * each)
    return [row for label in range(len(KINDS)) for row in [r for r in rows if r["label"] == label][:each]]


def _first_sentences(text: str, count: int) -> str:
    end = -1
    for _ in range(count):
        end = text.index(". ", end + 1)
    return text[: end + 1]


class Maker:
    """Makes rows by any setting, and remembers them."""

    def __init__(self, loaded: LoadedModel, folder: Path):
        self._loaded, self._folder = loaded, folder
        self._made: dict[tuple[str, str, int], tuple[list[dict[str, Any]], dict[str, Any]]] = {}

    def rows(self, setting: Setting, given: list[dict[str, Any]], template: str, seed: int) -> list[dict[str, Any]]:
        """The new rows of these."""
        key = (setting.label, template, seed)
        if key not in self._made:
            settings = Augmentation(
                template=Template(template),
                paths=PATHS,
                seed=seed,
                decoding=Decoding(setting.temperature, spread=setting.spread),
                new_tokens=200,
                keep_prompt=True,
                filters=Filters(ended=True),
                near=Near("minhash", 0.8),
                batch=8,
            )
            routed = sr.route(self._loaded.model, setting.routing)
            file = self._folder / f"{len(self._made)}.jsonl"
            try:
                report = augment(given, file, settings, self._loaded, routed)
            finally:
                routed.detach()
            assert report is not None
            lines = file.read_text(encoding="utf-8").splitlines()
            self._made[key] = [json.loads(line) for line in lines], {"kept": report.kept, "dropped": report.dropped}
        return self._made[key][0]

    def counts(self, setting: Setting, template: str, seed: int) -> dict[str, Any]:
        """How many of them were kept, and dropped why."""
        return self._made[setting.label, template, seed][1]


# --- the classifier


def accuracy(rows: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], cost: float) -> float:
    """Share of the test stories whose label the classifier reads rightly after learning these rows."""
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=cost, max_iter=1000))
    model.fit([row["text"] for row in rows], [row["label"] for row in rows])
    return float(np.mean(model.predict([row["text"] for row in test]) == np.array([row["label"] for row in test])))


def classify(maker: Maker, tuning: range, report: range, each: int, tests: int) -> dict[str, Any]:
    """The whole experiment with the classifier."""
    test, validation = stories(TEST_SEED, tests), stories(TEST_SEED + 1, tests)

    def rows(arm: str, setting: Setting | None, seed: int) -> list[dict[str, Any]]:
        given = balanced(seed, each)
        if arm == "true stories":
            return given + balanced(seed + 50_000, each * PATHS)
        return given if setting is None else given + maker.rows(setting, given, "{beginning}", seed)

    found: dict[str, Any] = {"given": each * len(KINDS), "arms": {}}
    for arm, candidates in _candidates().items():
        tuned = {
            (setting, cost): float(np.mean([accuracy(rows(arm, setting, seed), validation, cost) for seed in tuning]))
            for setting in candidates
            for cost in COSTS
        }
        setting, cost = max(tuned, key=lambda key: tuned[key])
        scores = [accuracy(rows(arm, setting, seed), test, cost) for seed in report]
        found["arms"][arm] = _arm(setting, {"C": cost}, scores, {_name(*key): value for key, value in tuned.items()})
        if setting is not None:
            found["arms"][arm]["rows"] = [maker.counts(setting, "{beginning}", seed) for seed in report]
        print("classifier:", arm, found["arms"][arm]["chosen"], np.mean(scores), flush=True)
    return found | {"differences": _differences(found["arms"])}


# --- the language model


class Learner:
    """A small language model, trained on dialogues, and what fine-tuning makes of it."""

    def __init__(self, loaded: LoadedModel, steps: int):
        self._tokenizer = loaded.tokenizer
        torch.manual_seed(0)
        self._base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(loaded.tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=512,
                tie_word_embeddings=True,
            )
        )
        dialogues = [draw_text(DIALOGUE_SEED, index, form="dialogue") for index in range(BATCH * steps)]
        self._train(self._base, dialogues, steps, 3e-3, lambda step: None, seed=0)

    def fine_tune(self, texts: list[str], held_out: list[list[str]], seed: int) -> list[list[float]]:
        """For each of STEPS, nats per token on each set of held-out texts."""
        model = copy.deepcopy(self._base)
        found: list[list[float]] = []

        def look(step: int) -> None:
            if step in STEPS:
                found.append([self.nats(model, each) for each in held_out])

        self._train(model, texts, max(STEPS), 3e-3, look, seed)
        return found

    @torch.no_grad()
    def nats(self, model: LlamaForCausalLM, texts: list[str]) -> float:
        """Mean loss per token."""
        model.eval()
        total = count = 0.0
        for first in range(0, len(texts), 64):
            ids, labels = self._batch(texts[first : first + 64])
            tokens = int((labels[:, 1:] != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * tokens
            count += tokens
        model.train()
        return total / count

    def _train(
        self, model: LlamaForCausalLM, texts: list[str], steps: int, rate: float, look: Callable[[int], None], seed: int
    ) -> None:
        model.train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 20))
        draws = np.random.default_rng(seed)
        order: list[int] = []
        for step in range(1, steps + 1):
            while len(order) < BATCH:
                order += draws.permutation(len(texts)).tolist()
            chosen, order = order[:BATCH], order[BATCH:]
            ids, labels = self._batch([texts[index] for index in chosen])
            optimiser.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            optimiser.step()
            warm_up.step()
            look(step)

    def _batch(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ended = [text + self._tokenizer.eos_token for text in texts]
        batch = self._tokenizer(ended, return_tensors="pt", padding=True, padding_side="right")
        return batch["input_ids"], batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)


def model_language(maker: Maker, learner: Learner, tuning: range, report: range, given: int) -> dict[str, Any]:
    """The whole experiment with the language model."""
    validation = [draw_text(TEST_SEED + 1, index) for index in range(96)]
    test = [draw_text(TEST_SEED, index) for index in range(128)]

    def curve(arm: str, setting: Setting | None, seed: int) -> list[list[float]]:
        rows = stories(seed, given)
        texts = [row["text"] for row in rows]
        if arm == "true stories":
            texts += [row["text"] for row in stories(seed + 50_000, given * PATHS)]
        elif setting is not None:
            texts += [row["text"] for row in maker.rows(setting, rows, "{text:4}", seed)]
        return learner.fine_tune(texts, [validation, test], seed)

    found: dict[str, Any] = {"given": given, "arms": {}}
    for arm, candidates in _candidates().items():
        tuned = {}
        for setting in candidates:
            curves = np.mean([[step[0] for step in curve(arm, setting, seed)] for seed in tuning], axis=0)
            tuned |= {(setting, steps): float(value) for steps, value in zip(STEPS, curves, strict=True)}
        setting, steps = min(tuned, key=lambda key: tuned[key])
        scores = [curve(arm, setting, seed)[STEPS.index(steps)][1] for seed in report]
        found["arms"][arm] = _arm(
            setting, {"steps": steps}, scores, {_name(*key): value for key, value in tuned.items()}
        )
        print("language model:", arm, found["arms"][arm]["chosen"], np.mean(scores), flush=True)
    return found | {"differences": _differences(found["arms"])}


def _candidates() -> dict[str, list[Setting | None]]:
    arms: dict[str, list[Setting | None]] = {"given alone": [None]}
    for setting in SETTINGS:
        arms.setdefault(setting.arm, []).append(setting)
    return arms | {"true stories": [None]}


def _name(setting: Setting | None, own: float) -> str:
    return f"{'–' if setting is None else setting.label}, {own:g}"


def _arm(setting: Setting | None, own: dict[str, Any], scores: list[float], tuned: dict[str, float]) -> dict[str, Any]:
    chosen = {"setting": None if setting is None else setting.label, **own}
    return {"chosen": chosen, "mean": float(np.mean(scores)), "scores": scores, "tuning": tuned}


def _differences(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """First minus second, paired by seed, with Student's interval of 95 %."""
    found = []
    for first, second in (
        ("paths", "given alone"),
        ("temperature", "given alone"),
        ("spread", "given alone"),
        ("spread", "temperature"),
        ("paths", "temperature"),
        ("true stories", "paths"),
    ):
        tested = stats.ttest_rel(arms[first]["scores"], arms[second]["scores"])
        low, high = tested.confidence_interval(0.95)
        value = float(np.mean(np.array(arms[first]["scores"]) - np.array(arms[second]["scores"])))
        found.append({"first": first, "second": second, "value": value, "low": float(low), "high": float(high)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--seeds", type=int, default=10, help="sets of given stories reported, for the classifier (default 10)")
    option("--each", type=int, default=2, help="given stories of every label (default 2)")
    option("--model-seeds", type=int, default=4, help="the same for the language model (default 4)")
    option("--model-given", type=int, default=8, help="given stories for the language model (default 8)")
    option("--tuning-seeds", type=int, default=2, help="sets that choose (default 2; the language model: 1)")
    option("--tests", type=int, default=1000, help="stories that test the classifier (default 1000)")
    option("--only", choices=("classifier", "language model"), help="one experiment; the other's result stays")
    options = parser.parse_args()
    loaded = load_model(None, "cpu", "auto")
    result = read("augmentation") if (RESULTS / "augmentation.json").exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        maker = Maker(loaded, Path(folder))
        if options.only != "language model":
            tuning = range(1_000, 1_000 + options.tuning_seeds)
            reported = range(2_000, 2_000 + options.seeds)
            result["classifier"] = classify(maker, tuning, reported, options.each, options.tests) | record()
            save("augmentation", {"classifier": result["classifier"]})
        if options.only != "classifier":
            learner = Learner(loaded, steps=400)
            reported = range(4_000, 4_000 + options.model_seeds)
            found = model_language(maker, learner, range(3_000, 3_001), reported, options.model_given)
            result["language model"] = found | record()
    parts = {name: result[name] for name in ("classifier", "language model") if name in result}
    print("written:", save("augmentation", {"paths_a_row": PATHS, **parts}))


if __name__ == "__main__":
    main()
