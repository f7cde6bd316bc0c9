"""A budget of a request becomes strengths by a curve that was measured once."""

import pytest

import stochroute as sr
from live_server import NAME, Live, engine_of, live
from stochroute import embedded
from stochroute.calibration import Sample, measure, neutral_rows
from stochroute.serving.budgets import Budgets
from stochroute.serving.engine import Engine, Limits, Served
from stochroute.serving.metrics import Metrics

CONFIG = sr.RoutingConfig(structural=sr.Structural(strength=0.2), attention=sr.Attention(strength=0.3))


@pytest.fixture(scope="module")
def routed():
    model, tokenizer = embedded.load()
    return sr.route(model, CONFIG), tokenizer


@pytest.fixture(scope="module")
def budgets(routed) -> Budgets:
    return Budgets.measured(*routed, 512, lambda done, all_points: None)


def test_measuring_leaves_the_routing_as_it_is(routed, budgets: Budgets):
    assert routed[0].config == CONFIG
    assert budgets.own == CONFIG


def test_more_strength_does_more(budgets: Budgets):
    nats = [point[1] for point in budgets.points]
    assert nats == sorted(set(nats))
    assert budgets.reach == (nats[0], nats[-1])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_between_the_points_a_budget_is_met_within_5_percent(routed, budgets: Budgets, share: float):
    """Measured again, on the same prompts and paths, at the strengths that were read off."""
    model, tokenizer = routed
    low, high = budgets.reach
    budget = low * (high / low) ** share
    config = budgets.config(budget)
    assert config.structural is not None
    assert config.attention is not None
    assert isinstance(config.structural.strength, float)
    assert config.structural.strength / config.attention.strength == pytest.approx(2 / 3, rel=1e-3)
    model.adopt_strengths(config)
    sample = Sample.along_paths(neutral_rows(tokenizer, 512), CONFIG.span, 128, seed=0)
    nats = measure(model, sample).nats("divergence")
    model.adopt_strengths(CONFIG)
    assert nats == pytest.approx(budget, rel=0.05)


def test_a_budget_out_of_reach_says_what_is_reached(budgets: Budgets):
    with pytest.raises(ValueError, match="out of reach: this routing does"):
        budgets.config(2 * budgets.reach[1])


@pytest.fixture(scope="module")
def server(routed, budgets: Budgets):
    model, tokenizer = routed
    served = Served(NAME, model, tokenizer, 512, frozenset([2]), 0, budgets)
    with live(Engine(served, Limits(rows=8), Metrics())) as server:
        yield server


def test_a_budget_over_the_api_is_the_routing_with_its_strengths(server: Live, budgets: Budgets):
    asked = {"paths": ["00c0ffee00c0ffee"], "max_tokens": 24, "temperature": 0}
    answers = [server.complete(**asked, budget=budget)["choices"][0] for budget in (0.01, 0.1, 0.5)]
    assert len({answer["receipt"]["routing"] for answer in answers}) == 3
    assert len({answer["text"] for answer in answers}) > 1
    assert server.complete(**asked, budget=0.1)["choices"][0] == answers[1]


def test_the_card_names_the_reach_and_refusals_the_remedy(server: Live, budgets: Budgets):
    card = server.http.get("/v1/models").json()["data"][0]
    assert card["fields"]["budget"] == {"on": True, "default": None, "why": None, "reach": list(budgets.reach)}
    assert "out of reach" in server.refused(400, budget=900)["message"]
    assert server.refused(400, budget=0.1, strength=0)["param"] == "budget"


def test_strength_beside_a_budget_is_refused(tmp_path):
    from cli_model import save_tiny_model

    engine = engine_of(save_tiny_model(tmp_path), sr.RoutingConfig(structural=sr.Structural(strength=9.0)))
    engine.scheduler.variants.budgets = Budgets(engine.served.routed.config, ((0.5, 0.01), (1.0, 0.1)))
    with live(engine) as server:
        assert "leave strength=0.2 out" in server.refused(400, budget=0.05, strength=0.2)["message"]
        assert server.complete(budget=0.05, max_tokens=2)["choices"]
