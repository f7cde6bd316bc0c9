"""The paths that the embedded model was trained with, at any strength, beside noise that nobody trained."""

from dataclasses import replace

from transformers import PreTrainedModel

import stochroute as sr
from stochroute.embedded import EMBEDDED
from stochroute.embedded.inferred import ROUTING


def own(strength: float) -> sr.RoutingConfig:
    """The routing of the embedded model; it was trained at strength 1."""
    assert ROUTING.structural is not None
    return replace(ROUTING, structural=replace(ROUTING.structural, strength=strength))


def attach(model: PreTrainedModel, config: sr.RoutingConfig) -> sr.RoutedModel:
    """The embedded model with its own, trained noise where the config is one of `own`, else with untrained noise."""
    noise = config.structural
    if noise is None or not isinstance(noise.strength, float) or config != own(noise.strength):
        return sr.route(model, config)
    routed = sr.RoutedModel.from_pretrained(model, EMBEDDED)
    routed.adopt_strengths(config)
    return routed
