"""One evaluation from beginning to end: strengths, texts, scores, figures, report; every stage can be gone on with."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import transformers

from stochroute import __version__
from stochroute.evaluation.arms import Arm, Setting
from stochroute.evaluation.assessment import Assessment, assess
from stochroute.evaluation.budgets import find_strengths
from stochroute.evaluation.checkers import Checker
from stochroute.evaluation.costs import PLAIN, cost_of
from stochroute.evaluation.embedding import Embedder, Entailment
from stochroute.evaluation.inputs import Inputs
from stochroute.evaluation.judging import Judge, Reward
from stochroute.evaluation.quality import mauve
from stochroute.evaluation.report import write_report
from stochroute.evaluation.run import RESULT_FILE, Run, Sample
from stochroute.evaluation.sampling import Sampler
from stochroute.evaluation.scoring import Score, Scorer, Thresholds, score_missing, thresholds_of
from stochroute.generation.receipts import computed_in, fingerprint
from stochroute.loading import LoadedModel, encode
from stochroute.noise import NOISE_VERSION

COST_FILE = "costs.json"
STANDARD = "temperature: T 1.0"  # sets the thresholds where there are no references: the model's own distribution


class Progress(Protocol):
    """Told how far a stage is."""

    def stage(self, name: str, total: int) -> Callable[[int], None]:
        """Begins a stage of `total` steps; what it returns is called with the steps done since."""
        ...


@dataclass(frozen=True)
class Judges:
    """Whoever judges; None where there is none.

    Attributes:
        judge: likelihood.
        checker: exact.
        reward: a reward model.
        embedder: vectors of texts.
        same_above: cosine from which two texts say the same.
        entailment: decides that instead.
        mauve: whether MAUVE against the references is measured, on the judge's hidden states.
    """

    judge: Judge | None
    checker: Checker | None
    reward: Reward | None
    embedder: Embedder
    same_above: float
    entailment: Entailment | None
    mauve: bool


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and how.

    Attributes:
        loaded: the model that writes.
        inputs: what it continues.
        arms: with budgets whose strengths are still to be found.
        samples: texts of each prompt and setting.
        new_tokens: of a text, at most.
        seed: of all paths, masks and resamples.
        batch: rows computed at once.
        judges: whoever judges.
    """

    loaded: LoadedModel
    inputs: Inputs
    arms: Sequence[Arm]
    samples: int
    new_tokens: int
    seed: int
    batch: int
    judges: Judges

    def plan(self) -> dict[str, Any]:
        """Everything that decides the samples and scores, as JSON types."""
        judge, checker, reward = self.judges.judge, self.judges.checker, self.judges.reward
        return {
            "model": self.loaded.name,
            "fingerprint": fingerprint(self.loaded.model),
            "dtype": computed_in(self.loaded.model),
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "noise_version": NOISE_VERSION,
            "seed": self.seed,
            "samples": self.samples,
            "max_new_tokens": self.new_tokens,
            "batch": self.batch,
            "judge": None if judge is None else judge.fingerprint,
            "checker": None if checker is None else checker.name,
            "reward": None if reward is None else reward.name,
            "prompts": list(self.inputs.prompts),
            "references": None if self.inputs.references is None else list(self.inputs.references),
            "corpus": len(self.inputs.corpus),
            "settings": [s.to_dict() for arm in self.arms for s in arm.settings],
        }


def evaluate(evaluation: Evaluation, run: Run, command: str, progress: Progress) -> dict[str, Any]:
    """Does whatever the run does not hold yet, writes evaluation.json and report.html, and returns the figures.

    Args:
        command: the command line, for the report.

    Raises:
        ValueError: a prompt has fewer than two tokens, a budget cannot be reached, a judge cannot read the texts, or
            the run holds something else. What was written until then stays.
    """
    loaded, judges = evaluation.loaded, evaluation.judges
    tokens = _tokens(evaluation)
    sampler = Sampler(loaded, tokens, evaluation.samples, evaluation.new_tokens, evaluation.seed, evaluation.batch)
    arms = _with_strengths(evaluation, run, sampler, progress)
    settings = [s for arm in arms for s in arm.settings]
    total = len(settings) * len(tokens) * evaluation.samples
    sampler.write_missing(run, settings, progress.stage("texts", total))
    samples = run.samples()
    scorer = Scorer(evaluation.inputs.prompts, judges.judge, judges.checker, judges.reward)
    scores = score_missing(run, samples, scorer, progress.stage("scores", total))
    real = _cut(evaluation, evaluation.inputs.corpus)
    thresholds, standard = _thresholds(samples, scores, evaluation, real)
    assessment = Assessment(arms, evaluation.inputs.prompts, samples, scores, thresholds, evaluation.seed)
    step = progress.stage("measures", len(settings) * len(tokens))
    found = assess(assessment, judges.embedder, judges.same_above, judges.entailment, lambda: step(1))
    if judges.mauve:
        _add_mauve(found, samples, real, evaluation, progress)
    result = {
        "command": command,
        "stochroute": __version__,
        **{
            name: value
            for name, value in evaluation.plan().items()
            if name not in ("settings", "references", "samples")
        },
        "samples_each": evaluation.samples,
        "judge": None if judges.judge is None else judges.judge.name,
        "embedder": judges.embedder.name if judges.entailment is None else judges.entailment.name,
        "same_above": judges.same_above,
        "mauve": judges.mauve,
        "standard": standard,
        "costs": _costs(arms, evaluation, run, sampler, len(tokens[0]) + evaluation.new_tokens, progress),
        **found,
    }
    run.write(RESULT_FILE, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    write_report(run, result)
    return result


def _tokens(evaluation: Evaluation) -> list[list[int]]:
    tokens = encode(evaluation.loaded, list(evaluation.inputs.prompts), chat=False)
    context = evaluation.loaded.context
    for number, (ids, prompt) in enumerate(zip(tokens, evaluation.inputs.prompts, strict=True), 1):
        if len(ids) < 2:
            raise ValueError(
                f"prompt {number} ({prompt[:40]!r}) has {len(ids)} token in {evaluation.loaded.name}: give at "
                f"least 2, a clean one and one that carries noise"
            )
        if context is not None and len(ids) + evaluation.new_tokens > context:
            raise ValueError(
                f"prompt {number} has {len(ids)} tokens, with {evaluation.new_tokens} new ones more than the "
                f"{context} that {evaluation.loaded.name} holds: shorten it, or ask for fewer"
            )
    return tokens


def _with_strengths(evaluation: Evaluation, run: Run, sampler: Sampler, progress: Progress) -> list[Arm]:
    """The arms with the strengths of their budgets, from the run where it knows them."""
    asked = [s for arm in evaluation.arms for s in arm.settings]
    step = progress.stage("strengths", len({(s.routing, s.budget) for s in asked if s.budget is not None}))
    model, tokenizer = evaluation.loaded.model, evaluation.loaded.tokenizer
    # noise is measured where it will stand: on what follows the prompts
    found = find_strengths(model, tokenizer, asked, lambda: _what_follows(evaluation, sampler), run, step)
    named = {s.name: s for s in found}
    return [replace(arm, settings=tuple(named[s.name] for s in arm.settings)) for arm in evaluation.arms]


def _what_follows(evaluation: Evaluation, sampler: Sampler) -> list[str]:
    """Every prompt with its reference, or with a text of plain sampling where there is none."""
    prompts, references = evaluation.inputs.prompts, evaluation.inputs.references
    if references is None:
        follows: Iterable[str] = sampler.plain_texts(PLAIN)
    else:
        follows = _cut(evaluation, zip(prompts, references, strict=True))
    return [prompt + rest for prompt, rest in zip(prompts, follows, strict=True)]


def _cut(evaluation: Evaluation, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """What follows each beginning in a real text, as long as a text may be."""
    tokenizer = evaluation.loaded.tokenizer
    found: list[str] = []
    for prompt, rest in pairs:
        length = len(tokenizer(prompt)["input_ids"]) + evaluation.new_tokens
        text = tokenizer.decode(tokenizer(prompt + rest)["input_ids"][:length], skip_special_tokens=True)
        found.append(text[len(prompt) :] if text.startswith(prompt) else rest)
    return found


def _thresholds(
    samples: Sequence[Sample], scores: Sequence[Score], evaluation: Evaluation, real: list[str]
) -> tuple[Thresholds, dict[str, float | None]]:
    """When a text is coherent, and what the judge thinks of the texts that say so."""
    if real:
        beginnings = [prompt for prompt, _ in evaluation.inputs.corpus]
        standard = Scorer(beginnings, evaluation.judges.judge, None, None).score(range(len(real)), real)
        source = f"{len(real)} real texts"
    else:
        standard = [score for sample, score in zip(samples, scores, strict=True) if sample.setting == STANDARD]
        source = f"the texts of {STANDARD}"
        if not standard:
            standard, source = list(scores), "all texts"
    nats = [s.nats for s in standard if s.nats is not None]
    likelihood = -sum(nats) / max(1, sum(s.bytes for s in standard)) if nats else None
    return thresholds_of(standard, source), {"likelihood": likelihood}


def _add_mauve(
    found: dict[str, Any],
    samples: Sequence[Sample],
    real: list[str],
    evaluation: Evaluation,
    progress: Progress,
) -> None:
    judge = evaluation.judges.judge
    assert judge is not None, "whoever asks for MAUVE has given a judge"
    step = progress.stage("MAUVE", len(found["settings"]))
    features = judge.features([text for text in real if text])
    for entry in found["settings"]:
        name = f"{entry['arm']}: {entry['label']}"
        texts = [s.text for s in samples if s.setting == name and s.text]
        entry["mauve"] = mauve(judge.features(texts), features, evaluation.seed % (1 << 31)) if texts else None
        step(1)


def _costs(
    arms: Sequence[Arm], evaluation: Evaluation, run: Run, sampler: Sampler, length: int, progress: Progress
) -> dict[str, Any]:
    """Arm -> its cost at the middle one of its settings; measured once a run."""
    path = run.folder / COST_FILE
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    step = progress.stage("costs", len(arms))
    found: dict[str, Any] = {}
    for arm in arms:
        middle: Setting = arm.settings[len(arm.settings) // 2]
        found[arm.name] = {"at": middle.label, **cost_of(middle, evaluation.loaded.model, length, sampler.write_first)}
        step(1)
    run.write(COST_FILE, json.dumps(found, indent=1) + "\n")
    return found
