"""The uncertainty benchmark: a small run of it from training to the merged result, and how it chooses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import uncertainty as benchmark  # noqa: E402
import uncertainty_page  # noqa: E402
from uncertainty_arms import CORE, FORMS, MAIN, RIVALS, TEMPERATURE, Family  # noqa: E402
from uncertainty_training import Size, train, word_tokenizer  # noqa: E402

from stochroute.uncertainty import KnowledgeBase  # noqa: E402
from stochroute.uncertainty.report import Measured  # noqa: E402

SIZE = Size(width=32, layers=3, steps=250, batch=32, learning_rate=1e-2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The benchmark with few people, short training and two arms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "WORK", tmp_path_factory.mktemp("work"))
        patch.setattr(benchmark, "PEOPLE", 20)
        patch.setattr(benchmark, "VALIDATION", 40)
        patch.setattr(benchmark, "PATHS", 3)
        patch.setattr(benchmark, "SIZES", {"plain": SIZE})
        patch.setattr(benchmark, "MARGIN", 0.1)
        few = [Family(family.name, family.trials[:2], family.scores) for family in CORE]
        patch.setattr(benchmark, "FAMILIES", {"plain": few})
        yield benchmark


def test_a_run_chooses_on_validation_reports_on_test_and_is_not_made_twice(small):
    found = small.run(1, "plain")
    assert {MAIN, *RIVALS} <= set(found["chosen"])
    for arm in found["chosen"].values():
        assert len(arm["wrong"]) == len(arm["score"]) == 40
        assert 0 <= arm["auroc"] <= 1
    files = {file: file.stat().st_mtime_ns for file in small.WORK.rglob("*") if file.is_file()}
    assert small.run(1, "plain") == found
    assert {file: file.stat().st_mtime_ns for file in small.WORK.rglob("*") if file.is_file()} == files


def test_an_interrupted_run_comes_to_the_same_result(small):
    found = small.run(1, "plain")
    (small.WORK / "1" / "plain.json").unlink()
    answers = sorted((small.WORK / "1" / "plain" / "answers").iterdir())
    answers[0].write_bytes(answers[0].read_bytes()[:-30])
    answers[1].unlink()
    again = small.run(1, "plain")
    assert again == found


def test_the_merged_result_has_intervals_around_means_and_can_be_written_down(small):
    for seed in (1, 2):
        small.run(seed, "plain")
    runs = small.finished()
    assert [found["seed"] for found in runs] == [1, 2]
    merged = small.merge(runs)
    json.dumps(merged)
    for arm in merged["arms"].values():
        assert arm["auroc"] == pytest.approx(np.mean([seed["auroc"] for seed in arm["by_seed"]]))
        assert arm["low"] <= arm["auroc"] <= arm["high"]
    gain = merged["gains"][f"{MAIN} over {RIVALS[0]}"]
    assert gain["auroc"] == pytest.approx(merged["arms"][MAIN]["auroc"] - merged["arms"][RIVALS[0]]["auroc"])
    kinds = merged["means"][MAIN]
    assert set(kinds) <= {f"{told}, right answers: {n}" for told in ("told", "never told") for n in (1, 2, 3, 4)}
    assert uncertainty_page.means(merged).count("\n") == len(kinds) + 1
    assert uncertainty_page.selective(merged).count("\n") == len(merged["detections"]) + 1
    del runs[1]["chosen"]["MC dropout / answer entropy"]  # an arm of one seed only
    assert len(small.merge(runs)["arms"]["MC dropout / answer entropy"]["by_seed"]) == 1
    assert uncertainty_page.arms(merged).count("\n") == len(merged["arms"]) + 1
    assert uncertainty_page.gains(merged).count("\n") == len(merged["gains"]) + 1


def test_a_trial_that_loses_accuracy_is_not_chosen():
    kept = Measured([True, False, False, False], {"answer entropy": [0.0, 1.0, 1.0, 1.0]})  # detects nothing
    lost = Measured([True, True, True, False], {"answer entropy": [1.0, 1.0, 1.0, 0.0]})  # detects all

    class Model:
        def measure(self, family, arm, part):
            assert part == "test"
            return {first.name: kept, second.name: lost}[arm.name]

    first, second = TEMPERATURE.trials[:2]
    family = Family("temperature", (first, second), ("answer entropy",))
    found = {first.name: kept, second.name: lost}
    choose = benchmark._choose
    assert choose(Model(), family, "answer entropy", found, 0.7)["trial"] == first.name  # pyright: ignore[reportArgumentType]
    assert choose(Model(), family, "answer entropy", found, 0.2)["trial"] == second.name  # pyright: ignore[reportArgumentType]
    none = choose(Model(), family, "answer entropy", found, 0.9)  # pyright: ignore[reportArgumentType]
    assert (none["trial"], none["eligible"]) == (first.name, 0)


def test_no_noise_has_more_trials_than_temperature():
    for family in (*CORE, *FORMS):
        assert len(family.trials) <= len(TEMPERATURE.trials)
        assert len({arm.name for arm in family.trials}) == len(family.trials)


def test_the_tokenizer_knows_every_word_and_a_training_is_kept(tmp_path):
    knowledge = KnowledgeBase(people=4)
    tokenizer = word_tokenizer(knowledge)
    for text in knowledge.texts(50, 0):
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]
    size = Size(width=16, layers=1, steps=2, batch=4, dropout=0.1)
    found = train(tmp_path / "a", knowledge, size, 0)
    assert train(tmp_path / "a", knowledge, size, 0) == found
    assert found["knowledge"]["people"] == 4
