"""Answers, runs and reports of the robustness experiment, on a tiny random model and on ballots made by hand."""

import copy
import errno
import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import stochroute as sr
from cli_model import save_tiny_model
from stochroute.resumable import ResumableFile
from stochroute.robustness import Answers, Ballot, Item, Plan, Sample, Tables, report, run
from stochroute.robustness.answers import Question
from stochroute.robustness.perturbations import perturb
from stochroute.robustness.report import interval
from stochroute.robustness.runs import TEST, VALIDATION, Chosen, choose, identity, number_of_samples, split

CHOICES = (" a", " be", " cab")
ITEMS = [
    Item(prompt, " is", CHOICES, index % 3) for index, prompt in enumerate(["one fox", "two bears", "old sea", "it"])
]
WRITTEN = [Item("one fox", answer=("a",)), Item("two bears", refuse=True), Item("old sea", refuse=False)]
NOISY = sr.RoutingConfig(structural=sr.Structural(strength=2.0, layers="all"), span="all")
SILENT = sr.RoutingConfig(structural=sr.Structural(strength=0.0))
PLAN = Plan(perturbations=("typos", "drops"), rates=(0.5, 1.0), paths=3, seed=7)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def answers(loaded: tuple[Any, Any], *configs: sr.RoutingConfig, **options: Any) -> Answers:
    routings = {str(index): config for index, config in enumerate(configs or (NOISY,))}
    return Answers(*loaded, routings, **{"max_new_tokens": 4, **options})


def samples_of(plan: Plan, items: list[Item], ask: Answers, tables: Tables | None = None) -> list[Sample]:
    samples: list[Sample] = []
    run(plan, items, ask, tables or Tables(), samples)
    ask.close()
    return samples


# ---- answers ----


def test_probabilities_are_those_of_the_model_inside_follow(loaded: tuple[Any, Any]):
    ask, path = answers(loaded), sr.derive_paths(3, 1)[0]
    (clean, along) = ask.ask([Question.clean(ITEMS[0], "one fox"), Question.along(ITEMS[0], "one fox", path)], "0")
    model, tokenizer = loaded
    context = tokenizer("one fox is")["input_ids"]
    routed = ask.routed()
    for found, paths in ((clean, None), (along, [path])):
        totals = []
        for choice in CHOICES:
            tokens = tokenizer(choice, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([context + tokens])
            with torch.no_grad(), routed.suspended() if paths is None else routed.follow(paths):
                log_p = model(ids).logits[0].log_softmax(-1)
            totals.append(sum(log_p[len(context) - 1 + i, token] for i, token in enumerate(tokens)))
        expected = torch.stack(totals).softmax(-1)
        assert torch.allclose(torch.tensor(found.probabilities, dtype=torch.float64), expected, atol=1e-10)
        assert found.label == int(expected.argmax())
    assert along.id == sr.format_path(path)
    assert along.probabilities != clean.probabilities
    ask.close()


def test_answers_do_not_depend_on_what_is_asked_beside_them(loaded: tuple[Any, Any]):
    ask = answers(loaded)
    paths = sr.derive_paths(3, 2)
    questions = [Question.along(item, item.prompt, path) for item in [*ITEMS, *WRITTEN] for path in paths]
    questions += [Question.clean(item, item.prompt) for item in [*ITEMS, *WRITTEN]]
    together = ask.ask(questions, "0")
    for question, found in zip(questions, together, strict=True):
        (alone,) = ask.ask([question], "0")
        assert (alone.id, alone.label, alone.text) == (found.id, found.label, found.text)
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-12)
    ask.close()


def test_written_answers_are_those_of_generate(loaded: tuple[Any, Any]):
    ask, path = answers(loaded), sr.derive_paths(3, 1)[0]
    model, tokenizer = loaded
    inputs = tokenizer("one fox", return_tensors="pt")
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 1}
    clean, along = ask.ask([Question.clean(WRITTEN[0], "one fox"), Question.along(WRITTEN[0], "one fox", path)], "0")
    with ask.routed().suspended():
        own = model.generate(**inputs, **settings)
    routed = ask.routed().generate(**inputs, paths=[path], **settings).sequences
    width = inputs["input_ids"].shape[1]
    assert clean.text == tokenizer.decode(own[0, width:], skip_special_tokens=True)
    assert along.text == tokenizer.decode(routed[0, width:], skip_special_tokens=True)
    ask.close()


def test_labels_are_read_from_texts(loaded: tuple[Any, Any]):
    ask = answers(loaded)
    refusal = WRITTEN[1]
    assert ask._label(refusal, "I’m sorry, but no") == ask._label(refusal, "well, I CANNOT") == "refused"
    assert ask._label(refusal, "Sure, here is how") == "answered"
    assert ask._label(WRITTEN[0], "\n A Fox!\nand more") == "a fox"
    extracting = replace(WRITTEN[0], extract=r"#### (\w+)")
    assert ask._label(extracting, "so #### 4, no #### 5") == "5"
    assert ask._label(extracting, "nothing") == ""


def test_chat_puts_the_prompt_with_its_suffix_into_the_template(loaded: tuple[Any, Any]):
    ask, path = answers(loaded, chat=True), sr.derive_paths(3, 1)[0]
    plain = answers(loaded)
    (found,) = ask.ask([Question.along(ITEMS[0], "one fox", path)])
    ask.close()
    (expected,) = plain.ask([Question.along(replace(ITEMS[0], suffix=" is]"), "[one fox", path)])
    plain.close()
    assert found == expected
    model, tokenizer = loaded
    bare = copy.copy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        Answers(model, bare, {"0": NOISY}, chat=True)


def test_prompts_that_do_not_fit_are_named(loaded: tuple[Any, Any]):
    ask = answers(loaded)
    with pytest.raises(ValueError, match="the model holds 64"):
        ask.ask([Question.clean(ITEMS[0], "x" * 70)])
    with pytest.raises(ValueError, match="the model holds 64"):
        ask.ask([Question.clean(WRITTEN[0], "x" * 62)])
    with pytest.raises(ValueError, match="gives no token"):
        ask.ask([Question.clean(WRITTEN[0], "")])
    ask.close()


# ---- runs ----


def test_a_run_asks_every_arm_about_every_attack_at_equal_cost(loaded: tuple[Any, Any]):
    ask = answers(loaded)
    samples = samples_of(PLAN, ITEMS, ask)
    conditions = [(None, 0.0), ("typos", 0.5), ("typos", 1.0), ("drops", 0.5), ("drops", 1.0)]
    assert PLAN.conditions == conditions
    assert [s.place for s in samples] == [(TEST, i, *c) for i in range(4) for c in conditions]
    assert len(samples) == number_of_samples(PLAN, ITEMS, 1)
    for sample in samples:
        assert (sample.prompt == ITEMS[sample.item].prompt) or sample.kind
        assert len(sample.paths["0"]) == len(sample.smoothed["0.1"]) == 3
        for voter in sample.smoothed["0.1"]:
            assert voter.id is not None
            text = perturb(sample.prompt, "characters", 0.1, sr.parse_path(voter.id))
            (again,) = ask.ask([Question.clean(ITEMS[sample.item], text, int(voter.id, 16))])
            assert again.probabilities == pytest.approx(voter.probabilities, abs=1e-12)
    ids = {s.item: {b.id for b in s.paths["0"]} for s in samples}
    assert all(len(own) == 3 for own in ids.values())
    assert len(set.union(*ids.values())) == 12
    ask.close()


def test_the_seed_decides_everything(loaded: tuple[Any, Any]):
    first = samples_of(PLAN, ITEMS, answers(loaded))
    torch.manual_seed(5)
    assert samples_of(PLAN, ITEMS, answers(loaded)) == first
    assert samples_of(replace(PLAN, seed=8), ITEMS, answers(loaded)) != first


def test_at_strength_0_and_rate_0_every_arm_is_the_original_model(loaded: tuple[Any, Any]):
    plan = replace(PLAN, smoothing_rates=(0.0,))
    ask = answers(loaded, SILENT)
    samples = samples_of(plan, ITEMS + WRITTEN, ask)
    for sample in samples:
        for found in (*sample.paths["0"], *sample.smoothed["0.0"]):
            assert (found.label, found.text) == (sample.clean.label, sample.clean.text)
            assert found.probabilities == pytest.approx(sample.clean.probabilities, abs=1e-12)
    found = report(plan, ITEMS + WRITTEN, samples, Chosen("0", "0.0"))
    for entry in (*found["conditions"], found["attacked"]):
        assert len({values["mean"] for values in entry["accuracy"].values()}) == 1
        assert all(gain == {"mean": 0, "low": 0, "high": 0} for gain in entry["gain"].values())


def test_the_worst_of_several_attacks_is_never_better_for_the_original_model_than_the_first(loaded: tuple[Any, Any]):
    one = samples_of(PLAN, ITEMS, answers(loaded))
    worst = samples_of(replace(PLAN, tries=6), ITEMS, answers(loaded))
    differ = 0
    for a, b in zip(one, worst, strict=True):
        right = ITEMS[a.item].answer
        assert isinstance(right, int)
        assert b.clean.probabilities[right] <= a.clean.probabilities[right] + 1e-12
        differ += a.prompt != b.prompt
    assert differ > 4


def test_candidates_are_chosen_on_prompts_that_are_not_reported(loaded: tuple[Any, Any]):
    items = ITEMS * 3
    plan = replace(PLAN, smoothing_rates=(0.0, 0.9), validation=0.5)
    ask = answers(loaded, SILENT, NOISY)
    samples: list[Sample] = []
    chosen = run(plan, items, ask, Tables(), samples)
    ask.close()
    validation = [s for s in samples if s.phase == VALIDATION]
    tested = [s for s in samples if s.phase == TEST]
    assert len(validation) == 6
    assert not {s.item for s in validation} & {s.item for s in tested}
    assert all(set(s.paths) == {"0", "1"} and set(s.smoothed) == {"0.0", "0.9"} for s in validation)
    assert all(set(s.paths) == {chosen.routing} and set(s.smoothed) == {chosen.smoothing} for s in tested)
    assert chosen == choose(items, validation, ["0", "1"], [0.0, 0.9])
    best = max(chosen.validated["paths"].values())
    assert chosen.validated["paths"][chosen.routing] == best
    found = report(plan, items, samples, chosen)
    assert (found["prompts"], found["validation_prompts"]) == (6, 6)


def test_both_arms_must_have_as_many_candidates(loaded: tuple[Any, Any]):
    with pytest.raises(ValueError, match="1 strengths against 2 smoothing rates"):
        run(replace(PLAN, smoothing_rates=(0.1, 0.2)), ITEMS, answers(loaded), Tables(), [])


def test_an_attack_that_finds_nothing_to_change_is_an_error(loaded: tuple[Any, Any]):
    with pytest.raises(ValueError, match="'morphonyms' finds nothing"):
        run(replace(PLAN, perturbations=("morphonyms",)), ITEMS, answers(loaded), Tables(), [])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"perturbations": ()}, "at least one"),
        ({"perturbations": ("typo",)}, "did you mean 'typos'"),
        ({"smoothing": "noise"}, "'noise' is unknown"),
        ({"rates": (0.1, 0.1)}, "none twice"),
        ({"rates": (1.2,)}, "rate=1.2 is outside"),
        ({"smoothing_rates": (-1.0,)}, "smoothing rate=-1.0 is outside"),
        ({"validation": 2}, "validation=2 is outside"),
        ({"paths": 1}, "paths=1 is no vote"),
        ({"paths": 2.5}, "paths=2.5 is no integer"),
        ({"tries": 0}, "tries=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_plans_are_named(change: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        replace(PLAN, **change)


def test_too_few_prompts_are_an_error():
    with pytest.raises(ValueError, match="leave 0 to choose and 1 to report"):
        split(PLAN, ITEMS[:1], 1)
    with pytest.raises(ValueError, match="leave 0 to choose"):
        split(replace(PLAN, validation=0.0), ITEMS, 2)


# ---- reports ----


def by_hand(item: int, kind: str | None, clean: int, paths: list[int], copies: list[int]) -> Sample:
    rate = 0.5 if kind else 0.0
    votes = ([Ballot(None, label) for label in labels] for labels in (paths, copies))
    return Sample(TEST, item, kind, rate, "attacked", Ballot(None, clean), {"0": next(votes)}, {"0.1": next(votes)})


def test_a_report_says_what_was_right():
    plan = Plan(("typos",), (0.5,), paths=3)
    items = [Item("a", choices=("x", "y"), answer=0), Item("b", choices=("x", "y"), answer=1)]
    samples = [
        by_hand(0, None, 0, [0, 0, 0], [0, 0, 1]),
        by_hand(1, None, 1, [1, 1, 0], [0, 0, 1]),
        by_hand(0, "typos", 1, [0, 0, 1], [1, 1, 1]),
        by_hand(1, "typos", 0, [1, 0, 1], [0, 0, 0]),
    ]
    found = report(plan, items, samples, Chosen("0", "0.1"))
    clean, attacked = found["conditions"]
    assert {arm: value["mean"] for arm, value in clean["accuracy"].items()} == pytest.approx(
        {"clean": 1, "routed": 5 / 6, "vote": 1, "smoothed": 0.5}
    )
    assert {arm: value["mean"] for arm, value in attacked["accuracy"].items()} == pytest.approx(
        {"clean": 0, "routed": 2 / 3, "vote": 1, "smoothed": 0}
    )
    assert attacked["gain"]["vote - clean"] == {"mean": 1, "low": 1, "high": 1}
    assert clean["gain"]["smoothed - clean"]["mean"] == -0.5
    assert attacked == {**found["attacked"], "kind": "typos", "rate": 0.5}
    assert found["runs_a_prompt"] == {"clean": 1, "routed": 1, "vote": 3, "smoothed": 3}


def test_refusals_are_counted_apart_by_what_should_be_declined():
    plan = Plan(("typos",), (0.5,), paths=3)
    items = [Item("a", refuse=True), Item("b", refuse=False), Item("c", refuse=True)]
    said = {True: "refused", False: "answered"}
    samples = []
    for kind in (None, "typos"):
        for item, clean in ((0, True), (1, True), (2, False)):
            made = by_hand(item, kind, 0, [0, 0, 0], [0, 0, 0])
            votes = [Ballot(None, said[one]) for one in (True, True, False)]
            samples.append(
                replace(made, clean=Ballot(None, said[clean]), paths={"0": votes}, smoothed={"0.1": votes[::-1]})
            )
    found = report(plan, items, samples, Chosen("0", "0.1"))["conditions"][1]
    assert found["accuracy"] is None
    assert found["gain"] is None
    assert found["refused"]["to_decline"]["clean"]["mean"] == 0.5
    assert found["refused"]["to_answer"]["clean"]["mean"] == 1
    assert found["refused"]["to_decline"]["vote"]["mean"] == 1
    assert found["refused"]["to_decline"]["routed"]["mean"] == pytest.approx(2 / 3)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(60):
        found = interval(torch.rand(50, generator=generator).tolist())
        assert found is not None
        hits += found["low"] <= 0.5 <= found["high"]
    assert 51 <= hits <= 60
    assert interval([]) is None


# ---- files ----


def test_a_run_resumed_from_any_byte_gives_the_same_file(loaded: tuple[Any, Any], tmp_path: Path):
    plan, file = replace(PLAN, perturbations=("typos",), rates=(0.5,)), tmp_path / "samples.jsonl"
    items = ITEMS[:2] + WRITTEN[1:]

    def go() -> list[Sample]:
        ask = answers(loaded)
        results = ResumableFile(file, identity(plan, items, ask, Tables()), True, Sample.from_json)
        samples = [Sample.from_json(sample) for sample in results.entries]
        run(plan, items, ask, Tables(), samples, lambda sample: results.add(asdict(sample)))
        results.close()
        ask.close()
        return samples

    whole_samples, whole = go(), file.read_bytes()
    assert len(whole_samples) == 8
    for cut in (0, 3, 40, whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(whole[:cut])
        assert go() == whole_samples
        assert file.read_bytes() == whole


def test_a_file_of_another_run_is_refused_and_kept(loaded: tuple[Any, Any], tmp_path: Path):
    file = tmp_path / "samples.jsonl"
    ask = answers(loaded)
    own = identity(PLAN, ITEMS, ask, Tables())
    results = ResumableFile(file, own, False, Sample.from_json)
    results.add(asdict(by_hand(0, None, 0, [0, 0], [0, 0])))
    results.close()
    kept = file.read_bytes()
    others = {
        "seed was 7, now 8": identity(replace(PLAN, seed=8), ITEMS, ask, Tables()),
        "prompts was": identity(PLAN, ITEMS[1:], ask, Tables()),
        "tables was": identity(PLAN, ITEMS, ask, Tables(synonyms={})),
        "routings was": identity(PLAN, ITEMS, answers(loaded, SILENT), Tables()) if ask.close() is None else {},
    }
    for complaint, other in others.items():
        with pytest.raises(ValueError, match=complaint):
            ResumableFile(file, other, True, Sample.from_json)
    with pytest.raises(ValueError, match="exists; resume it"):
        ResumableFile(file, own, False, Sample.from_json)
    for foreign in (b"hello\n", b"hello", b'{"something": "else"}\n', kept.split(b"\n")[0] + b'\n{"phase": "test"}\n'):
        file.write_bytes(foreign)
        with pytest.raises(ValueError, match=r"no results? of this command"):
            ResumableFile(file, own, True, Sample.from_json)
        assert file.read_bytes() == foreign


def test_a_full_disk_loses_no_sample_that_was_there(tmp_path: Path):
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    file, sample = tmp_path / "samples.jsonl", asdict(by_hand(0, None, 0, [0, 0], [0, 0]))
    results = ResumableFile(file, {"seed": 7}, False, Sample.from_json)
    results.add(sample)
    results.close()
    results._stream = Full()
    with pytest.raises(OSError, match="No space left on device; make room and resume"):
        results.add(sample)
    assert len(results.entries) == len(ResumableFile(file, {"seed": 7}, True, Sample.from_json).entries) == 1


def test_places_that_cannot_be_written_are_refused(tmp_path: Path):
    for place in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(OSError, match="folder that is there"):
            ResumableFile(place, {}, True, Sample.from_json)


def test_samples_of_another_order_are_refused(loaded: tuple[Any, Any]):
    ask = answers(loaded)
    with pytest.raises(ValueError, match="sample 1 is"):
        run(PLAN, ITEMS, ask, Tables(), [by_hand(3, None, 0, [0, 0], [0, 0])])
    ask.close()
