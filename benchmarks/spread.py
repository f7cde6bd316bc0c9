"""Spread token routing against independent draws: different texts among eight, at the same distribution of each.

    python benchmarks/spread.py            # writes results/spread.json; some minutes on one core

For every prompt and length, several families of eight siblings (`spread=True`) and as many sets of eight independent
paths write texts at the same temperature. Counted are the different texts; the texts' mean negative log-likelihood
under the model shows that the distribution stays what it was. Differences are paired by prompt; intervals are
bootstrapped over prompts.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import save
from scipy.stats import bootstrap

import stochroute as sr
from stochroute.evaluation.diversity import vendi_ngrams
from stochroute.generation.settings import UNTRUNCATED
from stochroute.loading import LoadedModel, encode, load_model
from stochroute.world import draw_text

SHARED = Path(os.environ.get("STOCHROUTE_SHARED", os.path.join("..", "shared")))
LENGTHS = (1, 2, 4, 8, 40)
TEMPERATURES = (1.0, 0.6)
MEASURES = ("different", "vendi", "nats")


def beginnings(number: int) -> dict[str, list[str]]:
    """Prompts of both models: eight words of a story each."""
    stories = (SHARED / "data" / "tinystories_valid_256k.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    long = [story.split() for story in stories if len(story.split()) > 16][:number]
    told = [draw_text(seed=21, index=i).split() for i in range(number)]
    return {"stories3M": [" ".join(words[:8]) for words in long], "embedded": [" ".join(words[:8]) for words in told]}


@torch.no_grad()
def measure(loaded: LoadedModel, routed: sr.RoutedModel, ids: list[int], seed: int, **asked: Any) -> np.ndarray:
    """The different texts, their Vendi score, and nats a text, of one set of paths: float64 (3,)."""
    inputs = torch.tensor([ids])
    out = routed.generate(inputs, seed=int(seed), do_sample=True, pad_token_id=loaded.pad, output_logits=True, **asked)
    ended, texts, words = read_texts(loaded, out.generated)
    logits = torch.stack(out.logits, 1).double().log_softmax(-1)
    nats = -(logits.gather(-1, out.generated[..., None])[..., 0].masked_fill(ended, 0).sum(1)).mean()
    return np.array([len(set(texts)), vendi_ngrams(words), float(nats)])


def read_texts(loaded: LoadedModel, tokens: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, ...]], list[str]]:
    """Where tokens (rows, t) stand behind the end of their text, bool (rows, t); and the texts, as tokens and in
    words."""
    ended = (torch.isin(tokens, torch.tensor(sorted(loaded.stops))).cumsum(1) > 0).roll(1, 1)
    ended[:, 0] = False
    texts = [tuple(row[~end].tolist()) for row, end in zip(tokens, ended, strict=True)]
    return ended, texts, [loaded.tokenizer.decode(text, skip_special_tokens=True) for text in texts]


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean over prompts with its 95 % interval."""
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def compared(plain: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """One measure of every prompt, of independent paths and of spread ones, side by side."""
    return {
        "independent": interval(plain),
        "spread": interval(spread),
        "difference": interval(spread - plain),
        "ratio": float(spread.mean() / plain.mean()),
    }


def compare(loaded: LoadedModel, prompts: list[str], paths: int, families: int) -> list[dict[str, Any]]:
    """One record for each temperature and length."""
    routed = sr.route(loaded.model, sr.RoutingConfig(structural=None))
    rows = encode(loaded, prompts, chat=False)
    found: list[dict[str, Any]] = []
    for temperature in TEMPERATURES:
        for length in LENGTHS:
            asked = {**UNTRUNCATED, "temperature": temperature, "paths": paths, "max_new_tokens": length}
            both = np.array(
                [
                    [
                        np.mean([measure(loaded, routed, ids, s, spread=spread, **asked) for s in seeds], 0)
                        for spread in (False, True)
                    ]
                    for ids, seeds in zip(rows, np.arange(len(rows) * families).reshape(-1, families), strict=True)
                ]
            )  # (prompts, independent or spread, measures)
            record: dict[str, Any] = {"temperature": temperature, "tokens": length}
            for index, name in enumerate(MEASURES):
                record[name] = compared(both[:, 0, index], both[:, 1, index])
            found.append(record)
            print(temperature, length, {n: (record[n]["ratio"], record[n]["difference"]) for n in MEASURES}, flush=True)
    routed.detach()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--paths", type=int, default=8)
    parser.add_argument("--families", type=int, default=4, help="sets of paths a prompt")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = {"stories3M": str(SHARED / "models" / "stories3M"), "embedded": None}
    texts = beginnings(options.prompts)
    models = {
        name: compare(load_model(where, "cpu", "float32"), texts[name], options.paths, options.families)
        for name, where in names.items()
    }
    save("spread", {"prompts": options.prompts, "paths": options.paths, "families": options.families, "models": models})


if __name__ == "__main__":
    main()
