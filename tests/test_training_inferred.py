"""Paths inferred from the texts: the posterior, what it does to z, and what training with it leaves behind."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

import stochroute as sr
from stochroute.measuring.nats import row_nats
from stochroute.training import InferredPaths, RoutedTrainer, TransmissionCollapsed, example_paths
from stochroute.training.data import Collate
from stochroute.training.objectives import text_kl
from stochroute.training.posterior import Posterior, new_posterior
from stochroute.training.walked import WalkedModel
from training_runs import (
    CHECKPOINTING,
    CONFIG,
    EXAMPLES,
    LATENT,
    LENGTH,
    VOCABULARY,
    losses,
    tiny_model,
    tiny_trainer,
    uneven_examples,
)

RANK = 16
STREAM = torch.Generator().manual_seed(5)
IDS = torch.randint(1, VOCABULARY, (3, 6), generator=STREAM)
PATHS = sr.derive_paths(7, 3)


def routed(config: sr.RoutingConfig = LATENT) -> sr.RoutedModel:
    return sr.route(tiny_model().eval(), config)


@torch.no_grad()
def logits_of(model: sr.RoutedModel, mean: torch.Tensor | None = None, deviation: torch.Tensor | None = None):
    with model.follow(PATHS):
        if mean is not None:
            model.infer(mean, deviation)
        return model.model(input_ids=IDS).logits


# ---- the posterior ----


def test_a_text_alone_has_the_posterior_it_has_in_a_batch_padded_on_either_side():
    posterior = Posterior(8, RANK)
    text = torch.randn(1, 5, 8, generator=STREAM)
    alone = posterior(text, torch.ones(1, 5))
    for left in (0, 2, 4):
        batch = torch.randn(3, 9, 8, generator=STREAM)
        batch[1, left : left + 5] = text
        mask = torch.zeros(3, 9)
        mask[:, left : left + 5] = 1
        for one, among in zip(alone, posterior(batch, mask), strict=True):
            assert torch.allclose(one[0], among[1], atol=1e-6)


def test_order_and_tokens_are_both_seen():
    posterior = Posterior(8, RANK)
    text = torch.randn(1, 5, 8, generator=STREAM)
    mean, deviation = posterior(text, torch.ones(1, 5))
    assert not torch.allclose(mean, posterior(text.flip(1), torch.ones(1, 5))[0], atol=1e-3)
    assert not torch.allclose(mean, posterior(text.roll(1, 2), torch.ones(1, 5))[0], atol=1e-3)
    assert ((deviation > 0) & (deviation < 1)).all()


def test_its_weights_come_from_the_seed_and_torch_has_no_part_in_it():
    before = torch.get_rng_state()
    weights = [torch.cat([p.flatten() for p in new_posterior(routed(), seed).parameters()]) for seed in (3, 3, 4)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before, torch.get_rng_state())


# ---- what it does to z ----


def test_a_posterior_that_is_the_prior_leaves_every_path_as_it_is():
    model = routed()
    told = logits_of(model, torch.zeros(3, RANK), torch.ones(3, RANK))
    assert torch.equal(told, logits_of(model))


def test_z_is_the_mean_plus_the_deviation_times_the_paths_own_draw():
    """Three known z, by a model whose z is written into U: ε = U (m + d ⊙ ξ) = (U d) ξ + U m."""
    model, by_hand = routed(), routed()
    mean = torch.randn(1, RANK, generator=STREAM)
    deviation = torch.rand(1, RANK, generator=STREAM)
    with torch.no_grad():
        by_hand.structural.mu.copy_(by_hand.structural.basis @ mean[0])
        by_hand.structural.basis.mul_(deviation)
    told = logits_of(model, mean.expand(3, -1), deviation.expand(3, -1))
    assert torch.allclose(told, logits_of(by_hand), atol=1e-5)


def test_a_certain_posterior_is_the_same_along_every_path_and_ends_with_follow():
    model = routed()
    before = logits_of(model)
    mean = torch.randn(3, RANK, generator=STREAM)
    with torch.no_grad():
        runs = []
        for paths in (PATHS, PATHS[::-1]):
            with model.follow(paths):
                assert model.inferred is None
                model.infer(mean, torch.zeros(3, RANK))
                runs.append(model.model(input_ids=IDS).logits)
    assert torch.equal(*runs)
    assert not torch.allclose(runs[0], before, atol=1e-3)
    assert torch.equal(before, logits_of(model))
    assert model.inferred is None


@pytest.mark.parametrize(
    ("config", "shape", "error", "named"),
    [
        (CONFIG, (3, RANK), ValueError, "form='latent'"),
        (sr.RoutingConfig(structural=None, attention=sr.Attention(strength=0.5)), (3, RANK), ValueError, "latent"),
        (sr.RoutingConfig(structural=sr.Structural(form="latent", hold=1)), (3, RANK), ValueError, "hold='sequence'"),
        (LATENT, (2, RANK), ValueError, r"\(2, 16\).*\(3, 16\)"),
        (LATENT, (3, 4), ValueError, r"\(3, 4\).*\(3, 16\)"),
    ],
)
def test_what_cannot_be_inferred_is_refused(config, shape, error, named):
    model = routed(config)
    with model.follow(PATHS), pytest.raises(error, match=named):
        model.infer(torch.zeros(shape), torch.ones(shape))


def test_nothing_is_inferred_outside_of_follow():
    with pytest.raises(RuntimeError, match="inside follow"):
        routed().infer(torch.zeros(3, RANK), torch.ones(3, RANK))


# ---- the objective ----


@pytest.mark.parametrize("free", [0.0, 9.0, 1e3])
def test_what_exceeds_the_free_nats_of_each_text_is_charged(free):
    model = routed()
    mean, deviation = torch.randn(3, RANK, generator=STREAM), torch.rand(3, RANK, generator=STREAM)
    kl = kl_divergence(Normal(mean, deviation), Normal(torch.zeros(3, RANK), torch.ones(3, RANK))).sum(1)
    logits = torch.randn(3, 6, VOCABULARY, generator=STREAM)
    with model.follow(PATHS):
        model.infer(mean, deviation)
        total = InferredPaths(free_nats=free, beta=0.5).total(logits, IDS, model, 0)
    expected = row_nats(logits, IDS).sum() + 0.5 * sum(max(0.0, nats - free) for nats in kl.tolist())
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_of_the_posterior_are_those_of_finite_differences():
    model = routed().double()
    mean = torch.randn(3, RANK, generator=STREAM, dtype=torch.float64, requires_grad=True)
    deviation = torch.rand(3, RANK, generator=STREAM, dtype=torch.float64).add(0.2).requires_grad_()
    directions = [torch.randn(3, RANK, generator=STREAM, dtype=torch.float64) for _ in range(2)]

    def loss(step: float) -> torch.Tensor:
        with model.follow(PATHS):
            model.infer(mean + step * directions[0], deviation + step * directions[1])
            return InferredPaths(free_nats=1.0).total(model.model(input_ids=IDS).logits.double(), IDS, model, 0)

    loss(0.0).backward()
    slope = (mean.grad * directions[0] + deviation.grad * directions[1]).sum().item()
    with torch.no_grad():
        # Llama's norms compute in float32, which bounds how fine the step can be
        assert (loss(1e-3) - loss(-1e-3)).item() / 2e-3 == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: InferredPaths(free_nats=-1), "free_nats=-1"),
        (lambda: InferredPaths(beta=float("inf")), "beta=inf"),
        (lambda: InferredPaths(hidden_tokens=1.1), "hidden_tokens=1.1"),
        (lambda: InferredPaths(hidden_tokens=float("nan")), "hidden_tokens=nan"),
        (lambda: InferredPaths(path_dropout=1.1), "path_dropout=1.1"),
        (lambda: InferredPaths(path_dropout=1), "path_dropout=1 leaves no path"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize(
    ("structural", "named"),
    [
        (None, "None"),
        (CONFIG.structural, r"form='shared'.*Structural\(form='latent'"),
        (sr.Structural(form="latent", hold=4), "hold=4"),
        (sr.Structural(form="latent", distribution="uniform"), "uniform"),
    ],
)
def test_a_routing_without_one_normal_z_a_text_is_refused(structural, named):
    config = sr.RoutingConfig(structural=structural, attention=sr.Attention())
    with pytest.raises(ValueError, match=named):
        InferredPaths().check(routed(config), base_trained=False)


# ---- hidden tokens ----


def batch_of(rows: list[dict]) -> dict[str, torch.Tensor]:
    batch = Collate()(rows)
    batch["labels"][:, :2] = -100  # a prompt
    return batch


def test_hidden_tokens_are_a_share_of_the_text_that_its_path_chooses_alone_as_in_a_batch():
    rows = list(uneven_examples(200))
    batch = batch_of(rows)
    text = batch["labels"] != -100
    assert InferredPaths().rows(batch, 7, 0, "all").hidden is None
    some, others, all_of_them = (
        InferredPaths(hidden_tokens=share).rows(batch, 7, step, "all").hidden
        for share, step in ((0.3, 0), (0.3, 1), (1.0, 0))
    )
    assert torch.equal(all_of_them, text)
    assert not (some & ~text).any()
    assert (some[text].float().mean() - 0.3).abs() < 5 * math.sqrt(0.21 / text.sum())
    assert not torch.equal(some, others)
    for row in (0, 57):
        alone = InferredPaths(hidden_tokens=0.3).rows(batch_of(rows[row : row + 1]), 7, 0, "all").hidden
        assert torch.equal(alone[0], some[row, : alone.shape[1]])


def test_tokens_are_hidden_in_the_first_steps_alone_where_that_is_asked():
    batch = batch_of(list(uneven_examples(8)))
    first = InferredPaths(hidden_tokens=0.5, hidden_steps=2)
    assert torch.equal(
        first.rows(batch, 7, 1, "all").hidden, InferredPaths(hidden_tokens=0.5).rows(batch, 7, 1, "all").hidden
    )
    assert first.rows(batch, 7, 2, "all").hidden is None
    assert InferredPaths(hidden_tokens=0.5, hidden_steps=0).rows(batch, 7, 0, "all").hidden is None
    with pytest.raises(ValueError, match="hidden_steps=-1"):
        InferredPaths(hidden_steps=-1)


def test_path_dropout_takes_a_share_of_the_paths_each_alone_as_in_a_batch_and_hides_nothing_there():
    rows = list(uneven_examples(200))
    batch = batch_of(rows)
    objective = InferredPaths(path_dropout=0.3, hidden_tokens=0.5)
    kept, others = (objective.rows(batch, 7, step, "all") for step in (0, 1))
    walked = torch.tensor([path is not None for path in kept.paths])
    assert (walked.float().mean() - 0.7).abs() < 5 * math.sqrt(0.21 / 200)
    assert walked.tolist() != [path is not None for path in others.paths]
    assert kept.hidden[walked].any()
    assert not kept.hidden[~walked].any()
    every = InferredPaths().rows(batch, 7, 0, "all").paths
    assert [path for path in kept.paths if path is not None] == [every[row] for row in walked.nonzero()[:, 0]]
    for row in (0, 57):
        assert objective.rows(batch_of(rows[row : row + 1]), 7, 0, "all").paths == kept.paths[row : row + 1]


def test_a_row_without_a_path_is_the_clean_model_and_costs_no_nats():
    model = routed()
    walked = WalkedModel(model, new_posterior(model, 0)).train()
    mask = torch.ones_like(IDS)
    with model.follow([PATHS[0], None, *PATHS[2:]]):
        some, nats = walked(input_ids=IDS, attention_mask=mask), text_kl(model)
    with model.follow(PATHS):
        every, all_nats = walked(input_ids=IDS, attention_mask=mask), text_kl(model)
    with model.suspended(), torch.no_grad():
        clean = model.model(input_ids=IDS).logits
    torch.testing.assert_close(some[1], clean[1])
    assert not torch.allclose(every[1], clean[1])
    torch.testing.assert_close(nats, all_nats[[row for row in range(len(PATHS)) if row != 1]])


@pytest.mark.parametrize("read", ["model", "posterior"])
def test_a_hidden_token_is_kept_from_the_model_and_not_from_the_posterior(read):
    model = routed()
    walked = WalkedModel(model, new_posterior(model, 0) if read == "posterior" else None).train()
    hidden = torch.zeros_like(IDS, dtype=torch.bool)
    hidden[:, 2:4] = True
    others = IDS.clone()
    others[hidden] = others[hidden] % (VOCABULARY - 1) + 1
    found = []
    for ids in (IDS, others):
        with torch.no_grad(), model.follow(PATHS):
            found.append((walked(hidden, input_ids=ids, attention_mask=torch.ones_like(ids)), model.inferred))
    assert torch.equal(found[0][0], found[1][0]) == (read == "model")
    if read == "posterior":
        assert not torch.allclose(found[0][1].mean, found[1][1].mean)
    with torch.no_grad():
        assert torch.equal(*(model.model(input_ids=IDS).logits for _ in range(2)))
        assert not torch.equal(model.model(input_ids=IDS).logits, model.model(input_ids=others).logits)


def test_what_no_token_says_is_read_from_the_path(tmp_path):
    """With every token hidden a model alone would know nothing of the text but its length."""
    trainer = tiny_trainer(
        tmp_path,
        InferredPaths(free_nats=6.0, hidden_tokens=1.0),
        config=LATENT,
        max_steps=300,
        per_device_train_batch_size=32,
        logging_steps=20,
    )
    trainer.train()
    assert losses(trainer)[300] < 0.3 * math.log(VOCABULARY)


# ---- training ----


@pytest.fixture(scope="module")
def inferred(tmp_path_factory) -> RoutedTrainer:
    trainer = tiny_trainer(
        tmp_path_factory.mktemp("inferred"),
        InferredPaths(free_nats=6.0),
        config=LATENT,
        max_steps=200,
        per_device_train_batch_size=32,
        logging_steps=20,
    )
    trainer.train()
    return trainer


def test_the_path_says_which_text_it_is_within_its_free_nats(inferred):
    """ln 32 = 3.5 nats tell 32 texts apart; without a path each costs as many."""
    log = [entry for entry in inferred.state.log_history if "inferred_nats" in entry]
    assert losses(inferred)[200] < 0.3 * math.log(EXAMPLES) / LENGTH
    assert 2.5 < log[-1]["inferred_nats"] < 8
    assert log[-1]["transmission"] > 0.15


def test_fresh_paths_tell_the_texts_and_nothing_is_left_of_the_posterior(inferred):
    """Greedy, along paths that training never saw, through a routing that is saved like any other."""
    texts = {tuple(row["input_ids"]) for row in inferred.train_dataset}
    inferred.routed.eval()
    prompt = torch.zeros(1, 1, dtype=torch.long)
    told = inferred.routed.generate(prompt, paths=64, seed=3, max_new_tokens=LENGTH, do_sample=False).sequences
    known = [tuple(row) for row in told.tolist() if tuple(row) in texts]
    assert len(known) > 32
    assert len(set(known)) > 10
    assert {name.split(".")[0] for name in inferred.routed.state_dict()} == {"structural", "model"}


def test_evaluation_is_along_fresh_paths(inferred, tmp_path):
    """What the posterior knows of a text is no likelihood of it."""
    trainer = tiny_trainer(
        tmp_path, InferredPaths(), config=LATENT, examples=inferred.train_dataset, eval_dataset=uneven_examples(10)
    )
    trainer.routed.load_state_dict(inferred.routed.state_dict())
    batch = Collate()(list(trainer.eval_dataset))
    paths = example_paths(7, trainer.eval_dataset["example"], 1, (1 << 32) - 1)
    trainer.routed.eval()
    with torch.no_grad(), trainer.routed.follow(paths):
        logits = trainer.routed.model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
    expected = row_nats(logits, batch["labels"]).sum() / (batch["labels"][:, 1:] != -100).sum()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("settings", [{"bf16": True}, {CHECKPOINTING: True}, {"trained": "noise"}], ids=str)
def test_mixed_precision_checkpointing_and_a_frozen_base_come_with_the_arguments(tmp_path, settings):
    trainer = tiny_trainer(tmp_path, InferredPaths(free_nats=0.5), config=LATENT, **settings)
    start = [parameter.clone() for parameter in trainer.model.posterior.parameters()]
    trainer.train()
    moved = [not torch.equal(a, b) for a, b in zip(start, trainer.model.posterior.parameters(), strict=True)]
    assert all(moved)
    assert losses(trainer).keys() == set(range(1, 13))
    group = trainer.optimizer.param_groups[-1]
    assert {id(p) for p in trainer.model.posterior.parameters()} < {id(p) for p in group["params"]}
    assert group["weight_decay"] == 0


def test_a_collapse_names_the_free_nats(tmp_path):
    trainer = tiny_trainer(tmp_path, InferredPaths(free_nats=0), config=LATENT, collapse_below=5.0, max_steps=2)
    with pytest.warns(TransmissionCollapsed, match="free_nats"):
        trainer.train()
