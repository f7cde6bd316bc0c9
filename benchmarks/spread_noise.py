"""Noise that is spread over the paths of a prompt against independent noise: different greedy texts among eight.

    python benchmarks/spread_noise.py            # writes results/spread_noise.json; a quarter of an hour on one core

For every prompt several families of siblings, whose z point away from each other (`Structural(spread=True)`), and as
many sets of independent paths write texts greedily. Counted are the different texts among the first 2, 4 and 8, and
their Vendi score; the mean nats a token under the model without noise show that quality stays what it was. Differences
are paired by prompt; intervals are bootstrapped over prompts.
"""

import argparse
from typing import Any

import numpy as np
import torch
from harness import save
from spread import MEASURES, SHARED, beginnings, compared, read_texts

import stochroute as sr
from stochroute.evaluation.diversity import vendi_ngrams
from stochroute.loading import LoadedModel, encode, load_model

COUNTS = (2, 4, 8)
RANKS = (4, 16)
STRENGTHS = (0.05, 0.1, 0.2)
TOKENS = 40


@torch.no_grad()
def measure(loaded: LoadedModel, routed: sr.RoutedModel, ids: list[int], seed: int) -> np.ndarray:
    """The different texts, their Vendi score, and nats a token, of the first n of one set of paths: float64 (n, 3)."""
    out = routed.generate(
        torch.tensor([ids]), paths=max(COUNTS), seed=seed, max_new_tokens=TOKENS, pad_token_id=loaded.pad
    )
    ended, texts, words = read_texts(loaded, out.generated)
    with routed.suspended():
        logits = loaded.model(out.sequences).logits[:, len(ids) - 1 : -1].double().log_softmax(-1)
    nats = -logits.gather(-1, out.generated[..., None])[..., 0].masked_fill(ended, 0).sum(1) / (~ended).sum(1)
    return np.array([[len(set(texts[:n])), vendi_ngrams(words[:n]), float(nats[:n].mean())] for n in COUNTS])


def compare(loaded: LoadedModel, prompts: list[str], families: int) -> list[dict[str, Any]]:
    """One record for each rank, strength and number of paths."""
    rows = encode(loaded, prompts, chat=False)
    found: list[dict[str, Any]] = []
    for rank in RANKS:
        for strength in STRENGTHS:
            measured: list[np.ndarray] = []
            for spread in (False, True):
                noise = sr.Structural(form="latent", rank=rank, layers="all", strength=strength, spread=spread)
                routed = sr.route(loaded.model, sr.RoutingConfig(structural=noise))
                seeds = np.arange(len(rows) * families).reshape(-1, families).tolist()
                own = [
                    np.mean([measure(loaded, routed, ids, seed) for seed in of_prompt], 0)
                    for ids, of_prompt in zip(rows, seeds, strict=True)
                ]
                measured.append(np.array(own))
                routed.detach()
            for place, paths in enumerate(COUNTS):
                record: dict[str, Any] = {"rank": rank, "strength": strength, "paths": paths}
                for index, name in enumerate(MEASURES):
                    record[name] = compared(*(values[:, place, index] for values in measured))
                found.append(record)
                print(rank, strength, paths, {n: (record[n]["ratio"], record[n]["difference"]) for n in MEASURES})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--families", type=int, default=3, help="sets of paths a prompt")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = {"stories3M": str(SHARED / "models" / "stories3M"), "embedded": None}
    texts = beginnings(options.prompts)
    models = {
        name: compare(load_model(where, "cpu", "float32"), texts[name], options.families)
        for name, where in names.items()
    }
    save("spread_noise", {"prompts": options.prompts, "families": options.families, "tokens": TOKENS, "models": models})


if __name__ == "__main__":
    main()
