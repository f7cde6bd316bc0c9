"""The creativity benchmark: every kind of training runs, is chosen by the held-out draw, and changes what it says."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import creativity_training  # noqa: E402
from creativity_arms import TRAININGS, arms_of  # noqa: E402
from creativity_away import Away, AwayFrom  # noqa: E402
from creativity_floor import Floor  # noqa: E402
from creativity_neurons import AddedNeurons, Neurons  # noqa: E402
from creativity_story import StoryRows  # noqa: E402
from creativity_training import Run, ShuffledPaths, Size, Transmission, new_model, training_rows  # noqa: E402

import stochroute as sr  # noqa: E402
from stochroute.measuring.creativity import write_samples  # noqa: E402
from stochroute.measuring.nats import row_nats  # noqa: E402
from stochroute.tasks import Circle, Triangle  # noqa: E402
from stochroute.training import BoundPaths  # noqa: E402
from stochroute.training.data import Collate  # noqa: E402

# a handful of steps teaches nobody to hear a path
pytestmark = pytest.mark.filterwarnings("ignore::stochroute.training.TransmissionCollapsed")

TASK = Circle(entities=4, nodes=3, training_size=40)
SIZE = Size(
    model={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    steps=6,
    batch=8,
    learning_rate=1e-2,
    weight_decay=1.0,
    free_nats=1.0,
    floor=2.0,
    told_anew=True,
    checks=(0.5, 1.0),
    held_out=16,
    samples=32,
    flattened=True,
    transmission=Transmission(2, examples=2, paths=3, learning_rate=1e-2, budget=0.05, temperature=0.5),
)


def make(name: str, folder: Path) -> tuple[Run, dict]:
    run = Run(TASK, SIZE, name, 0, folder / f"{name}.0")
    return run, run.train()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make("null", folder)
    make("null, weight decay", folder)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "seed, 4 tokens",
        "dropout 0.4, residual",
        "dropout 0.1, attention",
        "bound to examples, latent and attention",
        "shuffled, latent",
        "fresh, latent",
        "bound to examples, a draw a token, dropout 0.4",
        "bound by inference, latent in all layers, weight decay",
        "shuffled by inference, latent in all layers, dropout 0.2, weight decay",
        "dropout 0.8, tokens, weight decay",
        "fresh, latent in all layers, dropout 0.5 of tokens, weight decay × 1.5",
        "null, floor, weight decay",
        "fresh, a draw a token in all layers, floor, weight decay",
        "bound to examples, neurons, weight decay",
        "fresh, neurons, weight decay",
        "null, neurons, weight decay",
        "bound by transmission, latent",
        "bound by transmission, attention",
        "frozen noise, a draw a token, latent",
    ],
)
def test_every_kind_of_training_gives_its_arms_with_a_score(name, base):
    run, record = make(name, base)
    assert run.model.config.use_cache, "samples are written with a cache"
    assert set(record["arms"]) == set(arms_of(name, SIZE.flattened))
    for arm, found in record["arms"].items():
        assert found["test"]["samples"] == SIZE.samples
        assert found["test"]["creativity"] <= found["test"]["coherence"] <= 1
        considered = [point for point in record["curve"] if point["arm"] == arm]
        assert found["held_out"]["creativity"] == max(point["creativity"] for point in considered)
    json.dumps(record)


def test_every_arm_has_as_many_trials_and_is_named_by_its_kind():
    for name in TRAININGS:
        for arm, trials in arms_of(name, flattened=True).items():
            assert arm.split()[0].rstrip(",") in {"null", "seed", "dropout", "fresh", "frozen", "shuffled", "bound"}
            assert len(trials) == (1 if arm.startswith("seed") and arm.endswith("greedy") else 8)


@pytest.mark.parametrize("how", ["flattened", "temperature and min-p"])
def test_a_spread_arm_walks_spread_paths_and_any_other_arm_independent_ones(how, base, monkeypatch):
    run = Run(TASK, SIZE, "null", 0, base / "null.0")
    walked = []

    def write(routed, task, decoding, paths, *others, **named):
        walked.append((decoding.spread, paths))
        return write_samples(routed, task, decoding, paths, *others, **named)

    monkeypatch.setattr(creativity_training, "write_samples", write)
    arms = arms_of("null", flattened=True)
    for alone, shared in zip(arms[f"null, {how}"], arms[f"null, {how}, spread"], strict=True):
        assert str(shared) == f"{alone}, spread"
        for trial in (alone, shared):
            run.score(6, trial, 16, seed=3)
    apart, evenly = (sr.derive_paths(3, 16, prompt=0, spread=spread) for spread in (False, True))
    assert walked == [(False, apart), (True, evenly)] * 8


@pytest.mark.parametrize("name", ["null", "fresh, latent"])
def test_a_finished_run_can_be_scored_again_for_some_of_its_arms(name, base):
    run, whole = make(name, base)
    again = Run(TASK, SIZE, name, 0, run.folder).record(0.0, "spread")
    assert set(again["arms"]) == {arm for arm in arms_of(name, flattened=True) if arm.endswith("spread")}
    assert all(found == whole["arms"][arm] for arm, found in again["arms"].items())


def test_transmission_trains_the_noise_and_nothing_else(base):
    run, _ = make("bound by transmission, latent", base)
    before = run.restore(1, 1.0)
    after = run.restore(2, 1.0)
    for name, weight in before.model.state_dict().items():
        assert torch.equal(weight, after.model.state_dict()[name])
    assert not torch.equal(before.noise_parameters()["structural.basis"], after.noise_parameters()["structural.basis"])


def test_frozen_noise_stays_as_it_began(base):
    run, _ = make("frozen noise, latent", base)
    began = Run(TASK, SIZE, "frozen noise, latent", 0, base).routed.noise_parameters()
    for name, value in run.restore(6, 1.0).noise_parameters().items():
        assert torch.equal(value, began[name])


def test_a_restored_checkpoint_scales_strength_and_nothing_else(base):
    run, _ = make("fresh, latent", base)
    whole, half = run.restore(6, 1.0), run.restore(6, 0.5)
    assert whole.config.structural is not None
    assert half.config.structural is not None
    assert half.config.structural.strength == whole.config.structural.strength / 2  # pyright: ignore[reportOperatorIssue]
    for name, value in whole.noise_parameters().items():
        assert torch.equal(value, half.noise_parameters()[name])


@pytest.mark.parametrize(
    "name",
    [
        "dropout 0.4, residual",
        "bound to examples, a draw a token, dropout 0.4",
        "dropout 0.5, tokens, weight decay",
        "bound by inference, latent in all layers, dropout 0.8 of tokens, weight decay",
    ],
)
def test_dropout_acts_in_training_alone(name):
    run = Run(TASK, SIZE, name, 0, Path("unused"))
    run._whole()
    ids = torch.from_numpy(TASK.training_set().tokens[:2])
    torch.manual_seed(0)
    for layer in run.model.model.layers:
        torch.nn.init.normal_(layer.mlp.down_proj.weight)
    train = run.model.train()
    assert not torch.equal(train(ids).logits, train(ids).logits)
    run.model.eval()
    assert torch.equal(run.model(ids).logits, run.model(ids).logits)


def test_a_dropped_token_tells_the_model_nothing_and_the_prompt_is_never_dropped(monkeypatch):
    run = Run(TASK, SIZE, "dropout 0.5, tokens, weight decay", 0, Path("unused"))
    run._whole()
    model, rows = run.model.train(), TASK.training_set().tokens
    one, other = (torch.from_numpy(rows[:1]), torch.from_numpy(rows[1:2]))
    assert not torch.equal(one, other)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))  # all of them
    assert torch.equal(model(one).logits, model(other).logits)
    prompted = one.clone()
    prompted[:, 0] += 1
    assert not torch.equal(model(one).logits, model(prompted).logits)


def test_what_is_inferred_changes_places_only_where_it_is_shuffled():
    texts, mask = torch.randn(3, 5, SIZE.model["hidden_size"]), torch.ones(3, 5)
    found = {}
    for kind in ("bound", "shuffled"):
        run = Run(TASK, SIZE, f"{kind} by inference, latent in all layers, weight decay", 0, Path("unused"))
        found[kind] = run._whole().model.posterior(texts, mask)
    for own, moved in zip(found["bound"], found["shuffled"], strict=True):
        assert torch.equal(own[[2, 0, 1]], moved)
        assert not torch.allclose(own, moved)


def test_shuffled_paths_are_the_bound_ones_of_the_batch_in_another_order():
    rows = TASK.training_set()
    tokens = torch.from_numpy(rows.tokens)
    batch = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "labels": torch.from_numpy(rows.labels),
        "example": torch.from_numpy(rows.ids),
    }
    bound, shuffled = (kind().rows(batch, 7, 0, "generated").paths for kind in (BoundPaths, ShuffledPaths))
    assert sorted(map(int, filter(None, shuffled))) == sorted(map(int, filter(None, bound)))
    assert shuffled != bound
    assert shuffled != ShuffledPaths().rows(batch, 7, 1, "generated").paths


def test_a_prefix_stays_with_its_example_through_all_passes():
    rows = training_rows(TASK, SIZE, prefix=4, seed=3)
    of_example = {}
    for example, tokens in zip(rows.ids.tolist(), rows.tokens[:, :4], strict=True):
        np.testing.assert_array_equal(of_example.setdefault(example, tokens), tokens)
    assert len({tuple(prefix) for prefix in of_example.values()}) == len(of_example)


def test_models_of_a_seed_begin_equal():
    one, same, other = (new_model(TASK, SIZE, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_over_a_floor_samples_are_unlearned_and_shorter_rows_are_learned_on():
    labels = torch.full((4, 5), -100)
    labels[:, 1:3] = 1
    labels[:2, 3] = 1  # two samples of three tokens; two shorter rows
    likely, unlikely = 3.0, -1.0
    logits = torch.zeros(4, 5, 2)
    logits[..., 1] = torch.tensor([likely, unlikely, likely, unlikely])[:, None]
    logits.requires_grad_()
    nats = row_nats(logits, labels).tolist()
    assert nats[0] < 1 < nats[1]
    total = Floor(1.0, length=3).total(logits, labels)
    assert total.item() == pytest.approx(2 - nats[0] + sum(nats[1:]))
    total.backward()
    gradient = logits.grad[:, 0, 1]
    assert (gradient > 0).tolist() == [True, False, False, False]


def test_bound_neurons_stay_with_their_example_and_fresh_ones_do_not():
    keys, rows = [3, 8, 3], range(3)
    bound, fresh = (Neurons(bound, added=400, share=0.2, without=0.0) for bound in (True, False))
    assert torch.equal(bound.on(keys, 7, 0), bound.on(keys, 7, 5))
    assert torch.equal(bound.on(keys, 7, 0)[0], bound.on(keys, 7, 0)[2])
    assert not torch.equal(bound.on(keys, 7, 0)[0], bound.on(keys, 7, 0)[1])
    assert not torch.equal(fresh.on(keys, 7, 0), fresh.on(keys, 7, 5))
    assert all(40 < fresh.on(keys, 7, 0)[row].sum() < 120 for row in rows)
    some = Neurons(True, added=400, share=0.2, without=0.5).on(range(200), 7, 0).any(1).sum()
    assert 60 < some < 140


def test_added_neurons_act_in_the_rows_of_samples_and_are_gone_in_the_test(tmp_path):
    task = Triangle(nodes=20, training_size=30)
    run = Run(task, SIZE, "bound to examples, neurons, weight decay", 0, tmp_path)
    trainer = run._whole()
    for module in run.model.modules():
        if isinstance(module, AddedNeurons):
            torch.nn.init.normal_(module.down_proj.weight)
    batch = Collate()([task.training_set()[row] for row in range(12)])
    keys = batch["example"].tolist()
    mask = trainer.neurons.on(keys, 0, 0).any(1) & (batch["input_ids"][:, 0] != task.edge)
    assert mask.any()
    assert not mask.all()
    trainer.compute_loss(run.model, dict(batch))
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with_added = run.model(**read).logits
    run.keep(6)
    kept, known = run.restore(6, 1.0).model, run.known(6)
    changed = ~torch.isclose(with_added, kept(**read).logits, atol=1e-5).flatten(1).all(1)
    assert torch.equal(changed, mask)
    assert kept.num_parameters() < known.num_parameters() == run.model.num_parameters()
    for module in run.model.modules():
        if isinstance(module, AddedNeurons):
            module.on = torch.full((1, 688), 0.1)
    torch.testing.assert_close(known(**read).logits, run.model(**read).logits)


def test_away_from_what_is_known_prefers_plausible_tokens_that_are_less_known(base):
    run = Run(TASK, SIZE, "null, weight decay", 0, base / "null, weight decay.0")
    known = run.restore(6, 1.0).model
    ids = torch.from_numpy(TASK.training_set().tokens[:3, :4])
    q = known(ids).logits[:, -1].log_softmax(-1)
    scores = torch.zeros_like(q)
    scores[:, 0] = -9
    away = AwayFrom(known, Away(weight=2.0, plausible=0.5))(ids, scores)
    assert away[:, 0].isneginf().all()
    assert torch.equal(away.argmax(-1), q[:, 1:].argmin(-1) + 1)
    p = scores.log_softmax(-1)
    torch.testing.assert_close(away[:, 1:], (3 * p - 2 * q)[:, 1:])


def test_a_training_without_the_model_that_knows_names_what_is_missing_before_it_trains(tmp_path):
    run = Run(TASK, SIZE, "null, floor, weight decay", 0, tmp_path / "null, floor, weight decay.0")
    for ask in (lambda: run.known(6), run.train):
        with pytest.raises(FileNotFoundError, match="train 'null, weight decay' with seed 0 first"):
            ask()
    assert not list(tmp_path.iterdir())


def test_where_no_arm_goes_away_a_training_needs_no_model_that_knows(tmp_path):
    name, size = "dropout 0.4, residual", replace(SIZE, flattened=False)
    record = Run(TASK, size, name, 0, tmp_path / f"{name}.0").train()
    assert set(record["arms"]) == {f"{name}, tempered", f"{name}, temperature and min-p"}


def test_a_task_told_anew_is_told_otherwise_and_is_the_same_task():
    for task in (TASK, Triangle(nodes=20, training_size=30)):
        plain, anew = (training_rows(task, replace(SIZE, told_anew=told), 0, 3) for told in (False, True))
        assert len(anew) >= SIZE.steps * SIZE.batch
        assert (anew.tokens[: len(plain)] != plain.tokens).any()
        forms = [task.canonical(row[1:]) for row in plain.tokens]
        assert [task.canonical(row[1:]) for row in anew.tokens[: len(plain)]] == forms


def test_stories_as_token_rows_score_as_stories():
    task = StoryRows(training_size=30)
    rows = task.training_set()
    assert [task.tokenizer.decode(task.vocabulary.body(row[1:])) for row in rows.tokens] == task.story.training_texts()
    assert task.score(rows.tokens[:, 1:]).memorised == 1
    assert task.score(task.sample(20, seed=3)).creativity == 1
    cut_short = task.sample(20, seed=3)[:, :30]
    assert task.score(cut_short).coherence == 0


def test_a_run_of_the_story_world_trains_and_scores(tmp_path):
    task = StoryRows(training_size=20)
    size = replace(SIZE, told_anew=False, held_out=4, samples=4)
    found = Run(task, size, "null", 0, tmp_path / "null.0").train()
    assert found["arms"]["null, temperature"]["test"]["samples"] == 4
