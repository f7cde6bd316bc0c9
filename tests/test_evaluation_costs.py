"""What an arm costs: parameters and numbers drawn by hand, and a time that is a ratio."""

import pytest

import stochroute as sr
from evaluation_runs import load, models
from stochroute.evaluation.arms import Setting
from stochroute.evaluation.costs import cost_of
from stochroute.generation.decoding import Decoding

HIDDEN, HEADS, LAYERS, LENGTH = 32, 4, 3, 20


@pytest.mark.parametrize(
    ("routing", "parameters", "drawn"),
    [
        # one layer of three is the upper third: a mean and a deviation for each channel
        (sr.RoutingConfig(), 2 * HIDDEN, HIDDEN / LENGTH),
        (sr.RoutingConfig(structural=sr.Structural(hold=1)), 2 * HIDDEN, HIDDEN),
        (
            sr.RoutingConfig(structural=sr.Structural(form="independent", layers="all")),
            2 * HIDDEN * LAYERS,
            LAYERS * HIDDEN / LENGTH,
        ),
        (sr.RoutingConfig(structural=sr.Structural(form="latent", rank=4)), HIDDEN + 4 * HIDDEN, 4 / LENGTH),
        (sr.RoutingConfig(structural=None, attention=sr.Attention()), LAYERS * HEADS, LAYERS * HEADS * LENGTH),
        (sr.RoutingConfig(structural=None), 0, 0),
    ],
)
def test_parameters_and_draws_are_counted(
    tmp_path_factory: pytest.TempPathFactory, routing: sr.RoutingConfig, parameters: int, drawn: float
):
    loaded = load(models(tmp_path_factory.mktemp("models"))[0])
    asked: list[str] = []
    setting = Setting("arm", "paths", "0", Decoding(), routing)
    found = cost_of(setting, loaded.model, LENGTH, lambda s: asked.append(s.arm), pairs=4)
    assert found["parameters"] == parameters
    assert found["drawn"] == pytest.approx(drawn)
    assert asked.count("arm") == asked.count("plain") == 5  # four pairs and a warm-up
    assert found["time"]["pairs"] == 4
    sr.route(loaded.model).detach()  # it was left unrouted
