"""Every objective against an independent computation, written another way."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

import stochroute as sr
from stochroute.measuring.nats import (
    divergence,
    entropy,
    kl_to_prior,
    mixture,
    row_nats,
    target_log_probabilities,
    transmission,
)
from stochroute.training import BestOfK, BoundPaths, FreshPaths, MarginalPreserving, Variational
from stochroute.training.objectives import relaxed_winner
from training_runs import ABSOLUTE, CONFIG, VOCABULARY, tiny_model

STREAM = torch.Generator().manual_seed(3)
IDS = torch.randint(1, VOCABULARY, (3, 6), generator=STREAM)
LABELS = IDS.clone()
LABELS[0, :3] = -100
LABELS[2, 4:] = -100
BATCH = {
    "input_ids": IDS,
    "attention_mask": torch.ones_like(IDS),
    "labels": LABELS,
    "example": torch.tensor([5, -1, 1 << 40]),
}
TARGETS = [(row, t) for row, t in itertools.product(range(3), range(1, 6)) if LABELS[row, t] != -100]


def routed(config: sr.RoutingConfig = CONFIG) -> sr.RoutedModel:
    return sr.route(tiny_model().eval(), config)


def random_logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, 6, VOCABULARY, generator=torch.Generator().manual_seed(4)) * 2


def along(model: sr.RoutedModel, objective, step: int = 0) -> torch.Tensor:
    rows = objective.rows(BATCH, 7, step, "generated")
    with model.follow(rows.paths, rows.starts):
        return model.model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits


def test_likelihood_is_minus_the_log_probability_of_every_label():
    logits = random_logits(3)
    expected = [0.0, 0.0, 0.0]
    for row, t in TARGETS:
        expected[row] -= Categorical(logits=logits[row, t - 1]).log_prob(IDS[row, t]).item()
    assert row_nats(logits, LABELS).tolist() == pytest.approx(expected, rel=1e-5)
    for objective in (FreshPaths(), BoundPaths()):
        total = objective.total(logits, LABELS, routed(), 0)
        assert total.item() == pytest.approx(sum(expected), rel=1e-5)


def test_likelihood_is_the_loss_of_transformers_along_the_same_paths():
    model, objective = routed(), BoundPaths()
    rows = objective.rows(BATCH, 7, 0, "generated")
    with model.follow(rows.paths, rows.starts):
        mean = model.model(input_ids=IDS, labels=LABELS).loss
    total = objective.total(along(model, objective), LABELS, model, 0)
    assert total.item() / len(TARGETS) == pytest.approx(mean.item(), rel=1e-5)


def test_kl_to_the_prior_is_that_of_torch_distributions():
    mean = torch.randn(40, generator=STREAM)
    deviation = torch.rand(40, generator=STREAM) + 0.1
    prior = torch.tensor(0.7)
    expected = kl_divergence(Normal(mean, deviation), Normal(torch.zeros(40), prior))
    assert torch.allclose(kl_to_prior(mean, deviation, prior), expected, rtol=1e-5)
    assert torch.allclose(kl_to_prior(mean, -deviation, prior), expected, rtol=1e-5)  # σ enters by its size


@pytest.mark.parametrize("prior", [None, 0.5])
def test_variational_adds_beta_times_the_kl_of_every_layer_once_an_example(prior):
    model, objective = routed(ABSOLUTE), Variational(beta=0.25, prior=prior)
    noise = model.structural
    with torch.no_grad():
        noise.mu.normal_(generator=STREAM)
        noise.sigma.uniform_(0.3, 2.0, generator=STREAM)
    q = Normal(0.3 * noise.mu, 0.3 * noise.sigma)
    by_hand = kl_divergence(q, Normal(torch.zeros_like(noise.mu), 0.3 if prior is None else prior)).sum()
    logits = random_logits(3)
    total = objective.total(logits, LABELS, model, 0)
    expected = row_nats(logits, LABELS).sum() + 0.25 * 3 * by_hand
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_kl_starts_at_nothing_and_pulls_sigma_up_again():
    model = routed(ABSOLUTE)
    objective = Variational()
    assert objective.layer_kl(model).tolist() == pytest.approx([0, 0], abs=1e-5)
    with torch.no_grad():
        model.structural.sigma.mul_(0.1)
    objective.layer_kl(model).sum().backward()
    assert (model.structural.sigma.grad < 0).all()


def test_free_bits_are_free_for_each_layer_by_itself():
    model = routed(ABSOLUTE)
    with torch.no_grad():
        model.structural.mu[0].fill_(1.0)  # 64 channels of half a nat: 32 nats; the other layer stays at 0
    logits = random_logits(3)
    clean = row_nats(logits, LABELS).sum().item()
    charged = [(Variational(free_nats=free).total(logits, LABELS, model, 0).item() - clean) / 3 for free in (0, 10, 40)]
    assert charged == pytest.approx([32, 42, 80], rel=1e-3)


def test_beta_rises_to_its_value_and_stays_there():
    objective = Variational(beta=0.5, anneal_steps=4)
    assert [objective.beta_at(step) for step in (0, 1, 3, 4, 99)] == [0.125, 0.25, 0.5, 0.5, 0.5]
    assert Variational(beta=0.5).beta_at(0) == 0.5


def test_relaxed_winner_weighs_the_best_with_one_minus_epsilon():
    nats = torch.tensor([[3.0, 1.0, 2.0, 5.0], [1.0, 9.0, 9.0, 9.0]], requires_grad=True)
    loss = relaxed_winner(nats, 0.06)
    assert loss.tolist() == pytest.approx([0.94 * 1 + 0.02 * 10, 0.94 * 1 + 0.02 * 27])
    loss.sum().backward()
    assert nats.grad.tolist() == [pytest.approx([0.02, 0.94, 0.02, 0.02]), pytest.approx([0.94, 0.02, 0.02, 0.02])]
    assert relaxed_winner(nats, 0.75).tolist() == pytest.approx(nats.mean(1).tolist())


def test_best_of_k_compares_whole_examples_along_their_own_paths():
    model, objective = routed(), BestOfK(draws=3, epsilon=0.1)
    logits = along(model, objective)
    expected = 0.0
    for example in range(3):
        single = {name: column[example : example + 1] for name, column in BATCH.items()}
        rows = objective.rows(single, 7, 0, "generated")
        nats = []
        for path, start in zip(rows.paths, rows.starts, strict=True):
            with model.follow([path], start):
                out = model.model(input_ids=single["input_ids"]).logits
            nats.append(row_nats(out, single["labels"]).item())
        expected += 0.9 * min(nats) + 0.05 * (sum(nats) - min(nats))
    assert objective.total(logits, LABELS, model, 0).item() == pytest.approx(expected, rel=1e-4)


def test_transmission_is_the_mutual_information_of_the_joint_table():
    log_p = torch.randn(4, 5, 9, generator=STREAM).double().mul(2).log_softmax(-1)
    p = log_p.exp()
    for position in range(5):
        joint = p[:, position] / 4  # path × token
        product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        expected = (joint * (joint / product).log()).sum().item()
        assert transmission(log_p)[position].item() == pytest.approx(expected, rel=1e-9)
    assert torch.allclose(transmission(log_p[:1].repeat(4, 1, 1)), torch.zeros(5).double(), atol=1e-12)
    apart = torch.eye(4).double().mul(1e3).log_softmax(-1)[:, None]
    assert transmission(apart).item() == pytest.approx(math.log(4))


def test_entropy_mixture_and_divergence_are_those_of_torch_distributions():
    log_p = torch.randn(2, 7, 9, generator=STREAM).log_softmax(-1)
    p, q = Categorical(logits=log_p[0]), Categorical(logits=log_p[1])
    assert torch.allclose(entropy(log_p[0]), p.entropy(), atol=1e-6)
    assert torch.allclose(divergence(log_p[0], log_p[1]), kl_divergence(p, q), atol=1e-6)
    assert torch.allclose(mixture(log_p).exp(), (p.probs + q.probs) / 2, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_marginal_preserving_is_information_minus_what_exceeds_the_budget_at_each_label(temperature):
    objective = MarginalPreserving(draws=3, budget=0.3, penalty=5.0, temperature=temperature)
    logits = random_logits(12)
    expected = 0.0
    for row, t in TARGETS:
        p = logits[4 * row : 4 * row + 4, t - 1].softmax(-1)
        sampler = Categorical(logits=logits[4 * row + 3, t - 1] / temperature)
        mean = Categorical(probs=p[:3].mean(0))
        information = mean.entropy() - Categorical(probs=p[:3]).entropy().mean()
        excess = kl_divergence(sampler, mean) - 0.3
        expected += 5.0 * max(0.0, excess.item()) - information.item()
    assert objective.total(logits, LABELS, routed(), 0).item() == pytest.approx(expected, rel=1e-4)


def test_the_clean_row_of_marginal_preserving_is_the_original_model():
    model, objective = routed(), MarginalPreserving(draws=2)
    logits = along(model, objective)
    assert torch.allclose(logits[2::3], model.model(input_ids=IDS).logits, atol=1e-4)
    log_p = target_log_probabilities(logits, LABELS, 3)
    assert log_p.shape == (3, len(TARGETS), VOCABULARY)


@pytest.mark.parametrize(
    "objective",
    [
        BoundPaths(),
        Variational(beta=0.1, free_nats=1.0),
        BestOfK(draws=3),
        MarginalPreserving(draws=3, budget=1e-4),
    ],
    ids=lambda o: type(o).__name__,
)
def test_gradients_of_the_noise_are_those_of_finite_differences(objective):
    model = routed(ABSOLUTE)
    with torch.no_grad():  # away from the kink of free bits, and with an effect to measure
        model.structural.mu.normal_(generator=torch.Generator().manual_seed(8))
    parameters = [model.structural.mu, model.structural.sigma]
    directions = [torch.randn(p.shape, generator=torch.Generator().manual_seed(9)) for p in parameters]

    def loss() -> torch.Tensor:
        return objective.total(along(model.double(), objective).double(), LABELS, model, 0)

    @torch.no_grad()
    def loss_at(step: float) -> float:
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.add_(step * direction)
        moved = loss().item()
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.sub_(step * direction)
        return moved

    loss().backward()
    slope = sum((p.grad * d).sum().item() for p, d in zip(parameters, directions, strict=True))
    # Llama's norms and our log-probabilities compute in float32, which bounds how fine the step can be
    assert (loss_at(1e-3) - loss_at(-1e-3)) / 2e-3 == pytest.approx(slope, rel=2e-2)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Variational(beta=-1), "beta=-1"),
        (lambda: Variational(prior=0), "prior=0"),
        (lambda: Variational(anneal_steps=True), "anneal_steps=True"),
        (lambda: BestOfK(draws=1), "draws=1"),
        (lambda: BestOfK(epsilon=1.0), r"epsilon=1\.0"),
        (lambda: MarginalPreserving(budget=float("nan")), "budget=nan"),
        (lambda: MarginalPreserving(temperature=0), "temperature=0.*leaves nothing"),
        (lambda: Variational().check(routed(), False), "absolute"),
        (lambda: MarginalPreserving().check(routed(), True), "train"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()
