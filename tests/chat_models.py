"""Models to talk with: the embedded one, and a tiny one with a chat template."""

from dataclasses import replace

import torch

import stochroute as sr
from stochroute.applications.chat import Conversation, Script, Speaker, draw_scene
from stochroute.generation.decoding import Decoding
from stochroute.loading import LoadedModel, load_model

MESSAGES = (
    "I want to see the old lighthouse.",
    "Sadly, the bridge is broken.",
    "It worked! Now I can light the lamp of the lighthouse.",
)


def embedded(dtype: str = "auto") -> LoadedModel:
    return load_model(None, "cpu", dtype)


def conversation(loaded: LoadedModel, strength: float = 0.6, seed: int = 7, **options) -> Conversation:
    """A new conversation; the routing is taken off by `close`."""
    noise = options.pop("noise", sr.Structural(strength=strength))
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=noise))
    speaker = Speaker(loaded, routed, options.pop("decoding", Decoding()), options.pop("new_tokens", 48))
    return Conversation(speaker, options.pop("frame", draw_scene(seed)), seed, **options)


def close(*conversations: Conversation) -> None:
    for one in conversations:
        one.speaker.routed.detach()


def with_context(loaded: LoadedModel, context: int) -> LoadedModel:
    """The same model, taken to hold so many tokens only."""
    return replace(loaded, context=context)


def reply_by_hand(loaded: LoadedModel, text: str, path: int, strength: float, new_tokens: int = 48) -> str:
    """The reply along the path, token by token with `follow` and argmax: no cache, no generate, no batch."""
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=sr.Structural(strength=strength)))
    ids = list(loaded.tokenizer(text)["input_ids"])
    start, said = len(ids) - 1, ""
    try:
        for _ in range(new_tokens):
            with torch.no_grad(), routed.follow([path], start):
                token = int(loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token in loaded.stops:
                break
            ids.append(token)
            said = loaded.tokenizer.decode(ids[start + 1 :])
            if "\n" in said:
                break
    finally:
        routed.detach()
    return said.partition("\n")[0].strip()


SCRIPT = Script("Ann", "Ben", "Two friends met.")
