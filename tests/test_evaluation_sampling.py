"""Samples: the same number for all, nothing cut off in secret, resumable anywhere, and replayed from their ids."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import stochroute as sr
from evaluation_runs import NEW_TOKENS, PROMPTS, SAMPLES, load, models, sampler
from stochroute.evaluation.arms import NO_NOISE, SETTINGS, Setting, WithoutPaths, all_arms
from stochroute.evaluation.run import SAMPLE_FILE, Run
from stochroute.evaluation.searches import DiverseGroups, dropped, write_without_paths
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, continuation, encode

STRONG = sr.RoutingConfig(structural=sr.Structural(strength=2.0))
CHOSEN = [
    Setting("temperature", "sampler", "T 1", Decoding(temperature=1.0)),
    Setting("shared", "paths", "s", routing=STRONG, budget=0.1),
    Setting("both", "paths", "s", Decoding(temperature=0.7), STRONG, 0.1),
    Setting("beam search", "search", "w", without_paths=WithoutPaths(beams=4)),
    Setting("diverse beam search", "search", "l", without_paths=WithoutPaths(diversity_penalty=0.5)),
    Setting("MC dropout", "dropout", "r", without_paths=WithoutPaths(dropout=0.3)),
]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(models(tmp_path_factory.mktemp("models"))[0])


def written(run: Run, generator: LoadedModel, settings: list[Setting], seed: int = 7) -> bytes:
    sampler(generator, seed=seed).write_missing(run, settings, lambda n: None)
    return (run.folder / SAMPLE_FILE).read_bytes()


@pytest.mark.parametrize("experts", [False, True])
def test_every_arm_has_as_many_settings_as_every_other(experts: bool):
    arms = all_arms(8, experts=experts)
    assert {len(arm.settings) for arm in arms} == {SETTINGS}
    names = [s.name for arm in arms for s in arm.settings]
    assert len(set(names)) == len(names)
    assert len({(s.decoding, s.routing, s.budget, s.without_paths) for arm in arms for s in arm.settings}) == len(names)
    assert {arm.family for arm in arms} == {"paths", "sampler", "search", "dropout"}
    assert ("experts" in {arm.name for arm in arms}) == experts


def test_budgets_must_be_as_many_as_the_others_settings():
    for budgets in ((0.1,), (0.1, 0.1, 0.2, 0.3, 0.4), (0.0, 0.1, 0.2, 0.3, 0.4), (float("nan"), 0.1, 0.2, 0.3, 0.4)):
        with pytest.raises(ValueError, match="give 5 different positive numbers"):
            all_arms(8, budgets)


def test_the_temperature_arm_truncates_nothing_whatever_the_model_s_defaults(generator: LoadedModel):
    """The scores that tokens are drawn from are the logits over T, every one of them."""
    defaults = generator.model.generation_config
    arm = next(a for a in all_arms(8) if a.name == "temperature")
    routed = sr.route(generator.model, NO_NOISE)
    before = {
        name: getattr(defaults, name)
        for name in ("do_sample", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff")
    }
    try:
        defaults.do_sample, defaults.top_k, defaults.top_p, defaults.min_p = True, 5, 0.5, 0.1
        defaults.typical_p, defaults.epsilon_cutoff = 0.5, 0.01
        for setting in arm.settings:
            out = routed.generate(
                torch.tensor([[5, 6, 7]]), paths=4, seed=1, max_new_tokens=5, pad_token_id=0,
                output_scores=True, output_logits=True, **setting.decoding.arguments(),
            )  # fmt: skip
            assert out.scores is not None
            assert out.logits is not None
            for scores, logits in zip(out.scores, out.logits, strict=True):
                torch.testing.assert_close(scores, logits.to(scores.dtype) / setting.decoding.temperature)
    finally:
        routed.detach()
        for name, value in before.items():
            setattr(defaults, name, value)


def test_every_setting_writes_the_same_number_and_only_paths_have_ids(generator: LoadedModel, tmp_path: Path):
    run = Run(tmp_path / "run", {}, False)
    written(run, generator, CHOSEN)
    samples = run.samples()
    assert len(samples) == len(CHOSEN) * len(PROMPTS) * SAMPLES
    for setting in CHOSEN:
        own = [s for s in samples if s.setting == setting.name]
        assert [(s.prompt, s.sample) for s in own] == [(p, j) for p in range(3) for j in range(SAMPLES)]
        assert all((s.path is not None) == setting.replays for s in own)
        assert all(s.tokens <= NEW_TOKENS and s.ended == (s.tokens < NEW_TOKENS) for s in own)


def test_a_run_gone_on_with_from_any_byte_is_the_same_file(generator: LoadedModel, tmp_path: Path):
    whole = written(Run(tmp_path / "whole", {}, False), generator, CHOSEN)
    first_lines = whole.splitlines(keepends=True)
    cuts = [0, 7, len(first_lines[0]), sum(map(len, first_lines[:10])) + 3, len(whole) - 1, len(whole)]
    for number, cut in enumerate(cuts):
        run = Run(tmp_path / str(number), {}, False)
        (run.folder / SAMPLE_FILE).write_bytes(whole[:cut])
        assert written(run, generator, CHOSEN) == whole


def test_the_seed_decides_every_text_that_is_drawn(generator: LoadedModel, tmp_path: Path):
    drawn = [s for s in CHOSEN if s.family != "search"]
    first = Run(tmp_path / "1", {}, False)
    assert written(first, generator, drawn) == written(Run(tmp_path / "2", {}, False), generator, drawn)
    other = Run(tmp_path / "3", {}, False)
    written(other, generator, drawn, seed=8)
    for setting in drawn:
        texts = [[s.text for s in run.samples() if s.setting == setting.name] for run in (first, other)]
        assert texts[0] != texts[1]


def test_a_sample_is_replayed_from_its_path_alone(generator: LoadedModel, tmp_path: Path):
    run = Run(tmp_path / "run", {}, False)
    written(run, generator, CHOSEN[:3])
    for setting in CHOSEN[:3]:
        sample = next(s for s in run.samples() if s.setting == setting.name and (s.prompt, s.sample) == (1, 2))
        assert sample.path is not None
        ids = encode(generator, [PROMPTS[1]], False)[0]
        routed = sr.route(generator.model, setting.routing)
        out = routed.generate(torch.tensor([ids]), paths=[sample.path], max_new_tokens=NEW_TOKENS,
                              pad_token_id=generator.pad, **setting.decoding.arguments())  # fmt: skip
        routed.detach()
        assert continuation(generator, ids, out.generated[0].tolist()) == sample.text


def test_samples_of_another_run_are_refused_and_kept(generator: LoadedModel, tmp_path: Path):
    run = Run(tmp_path / "run", {}, False)
    before = written(run, generator, CHOSEN[:1])
    with pytest.raises(ValueError, match="holds samples of 'temperature: T 1', which this run does not have"):
        written(run, generator, CHOSEN[1:2])
    assert (run.folder / SAMPLE_FILE).read_bytes() == before
    (run.folder / SAMPLE_FILE).write_bytes(b'{"something": "else"}\n')
    with pytest.raises(ValueError, match="line 1: no sample of stochroute evaluate"):
        run.samples()


def test_a_folder_is_taken_up_again_only_by_the_same_run(tmp_path: Path):
    plan = {"seed": 7, "prompts": ["a", "b"], "model": "m"}
    run = Run(tmp_path / "run", plan, False)
    run.keep_strengths({"a": STRONG})
    run.keep_strengths({"b": NO_NOISE})
    with pytest.raises(ValueError, match="go on with it by --resume"):
        Run(tmp_path / "run", plan, False)
    for change, words in (
        ({"seed": 8}, "seed was 7, now 8"),
        ({"prompts": ["a", "c"]}, "prompts differ from number 2 on"),
    ):
        with pytest.raises(ValueError, match=words):
            Run(tmp_path / "run", {**plan, **change}, True)
    assert Run(tmp_path / "run", plan, True).strengths == {"a": STRONG, "b": NO_NOISE}
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is corrupt"):
        Run(tmp_path / "run", plan, True)
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / SAMPLE_FILE).write_text("")
    with pytest.raises(ValueError, match="nobody knows what wrote it"):
        Run(tmp_path / "run", plan, True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path / "run", {}, False)
    run.write("report.html", "old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        run.write("report.html", "new")
    assert [p.name for p in run.folder.iterdir()] == ["report.html"]
    assert (run.folder / "report.html").read_text() == "old"


def inputs(generator: LoadedModel) -> dict[str, torch.Tensor]:
    ids = torch.tensor([encode(generator, ["abc"], False)[0], encode(generator, ["xyz"], False)[0]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_diverse_groups_choose_one_after_the_other():
    drawn = torch.Generator().manual_seed(0)
    of_prompts = torch.randn(2, 9, dtype=torch.float64, generator=drawn).repeat_interleave(3, 0)
    # groups of a prompt want nearly the same, so that the penalty decides
    log_p = (of_prompts + 0.1 * torch.randn(6, 9, dtype=torch.float64, generator=drawn)).log_softmax(-1)
    for penalty in (0.0, 0.4, 3.0):
        chosen = DiverseGroups(3, penalty)(torch.zeros(6, 1, dtype=torch.long), log_p).argmax(-1).tolist()
        for prompt in range(2):
            taken: list[int] = []
            for row in range(3 * prompt, 3 * prompt + 3):
                adjusted = [log_p[row, v].item() - penalty * taken.count(v) for v in range(9)]
                taken.append(adjusted.index(max(adjusted)))
            assert chosen[3 * prompt : 3 * prompt + 3] == taken


def test_without_a_penalty_all_groups_are_greedy_and_a_great_one_parts_them(generator: LoadedModel):
    def texts(penalty: float) -> torch.Tensor:
        way = WithoutPaths(diversity_penalty=penalty)
        return write_without_paths(generator.model, inputs(generator), 3, way, 5, generator.pad, 0)

    greedy = generator.model.generate(**inputs(generator), do_sample=False, max_new_tokens=5, pad_token_id=0)
    assert texts(0.0).tolist() == greedy.repeat_interleave(3, 0).tolist()
    apart = texts(50.0)
    width = inputs(generator)["input_ids"].shape[1]
    assert all(len(set(apart[rows, width].tolist())) == 3 for rows in (slice(0, 3), slice(3, 6)))


def test_beams_are_transformers_own(generator: LoadedModel):
    found = write_without_paths(generator.model, inputs(generator), 3, WithoutPaths(beams=4), 5, generator.pad, 0)
    own = generator.model.generate(
        **inputs(generator), num_beams=4, num_return_sequences=3, do_sample=False, max_new_tokens=5, pad_token_id=0
    )
    assert found.tolist() == own.tolist()
    assert len({tuple(row) for row in found[:3].tolist()}) == 3


def test_dropout_is_off_again_afterwards_and_draws_from_a_seed_of_its_own(generator: LoadedModel):
    model, ids = generator.model, inputs(generator)["input_ids"]
    clean, state = model(ids).logits, torch.get_rng_state()
    with dropped(model, 0.5, 3):
        first = model(ids).logits
    with dropped(model, 0.5, 3):
        again = model(ids).logits
    assert torch.equal(first, again)
    assert not torch.allclose(first, clean)
    assert torch.equal(model(ids).logits, clean)
    assert torch.equal(torch.get_rng_state(), state)


def test_settings_travel_to_json_and_name_only_what_is_on():
    entry = CHOSEN[2].to_dict()
    assert entry["decoding"] == {"temperature": 0.7}
    assert sr.RoutingConfig.from_dict(entry["routing"]) == STRONG
    assert asdict(CHOSEN[0].decoding)["top_k"] is None
