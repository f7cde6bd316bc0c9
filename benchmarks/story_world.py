"""Coherent and distinct stories from the embedded model: greedy paths, trained and untrained, against tuned sampling.

    python benchmarks/story_world.py                # about half an hour on one core

Every arm writes the same number of stories from the same open prompt. The checker of the story world says which are
coherent; a coherent story counts once for each thread: what happens, whoever it happens to and wherever. (Names and
places alone make nearly every plot differ, in every arm.) Intervals are 95 % bootstrap intervals over stories. Settings
are chosen on one seed and reported on another, so that neither side picks its own luck.
"""

import argparse
from typing import Any

import numpy as np
from harness import save
from own_paths import attach, own

import stochroute as sr
from stochroute.embedded import DEFAULT_PROMPTS, load
from stochroute.world import check

TUNING_SEED, REPORT_SEED = 1, 2


def structural(strength: float, **options: Any) -> sr.RoutingConfig:
    """Structural noise alone."""
    return sr.RoutingConfig(structural=sr.Structural(strength=strength, **options))


NO_NOISE = sr.RoutingConfig(structural=None)
# family -> arms (name, routing, generation settings); the best arm of each family is reported
FAMILIES: dict[str, list[tuple[str, sr.RoutingConfig, dict[str, Any]]]] = {
    "its own paths, greedy": [(f"strength {s}", own(s), {}) for s in (0.7, 1.0, 1.3, 1.6)],
    "its own paths, temperature": [
        (f"strength {s}, T {t}", own(s), {"temperature": t}) for s in (0.7, 1.0) for t in (0.4, 0.7, 1.0)
    ],
    "temperature, top-p, min-p": [
        *[(f"T {t}", NO_NOISE, {"temperature": t}) for t in (0.4, 0.6, 0.8, 1.0)],
        *[(f"T 1, top-p {p}", NO_NOISE, {"top_p": p}) for p in (0.8, 0.95)],
        *[(f"T 1, min-p {p}", NO_NOISE, {"min_p": p}) for p in (0.05, 0.1, 0.2)],
    ],
    "structural, a draw a token, greedy": [
        (f"upper third, hold 1, strength {s}", structural(s, hold=1), {}) for s in (0.3, 0.5, 0.7, 0.9, 1.2, 1.5)
    ],
    "structural, a draw a text, greedy": [
        (f"{where.replace('_', ' ')}, strength {s}", structural(s, layers=where), {})
        for where in ("upper_third", "all")
        for s in (0.1, 0.3, 0.7, 1.0)
    ],
    "attention, greedy": [
        (f"all layers, strength {s}", sr.RoutingConfig(structural=None, attention=sr.Attention(strength=s)), {})
        for s in (0.5, 1.0, 1.5)
    ],
}


def score(texts: list[str]) -> dict[str, Any]:
    """Shares of all texts that are coherent, and that are coherent and tell a thread, or a plot, that none before them
    told."""
    verdicts = [check(text) for text in texts]
    coherent = np.array([verdict.coherent for verdict in verdicts])
    plots = {verdict.plot for verdict in verdicts if verdict.coherent and verdict.plot is not None}
    drawn = np.random.default_rng(0).integers(len(texts), size=(2000, len(texts)))
    low, high = np.percentile(coherent[drawn].mean(1), [2.5, 97.5])
    return {
        "coherent": float(coherent.mean()),
        "coherent_low": float(low),
        "coherent_high": float(high),
        "distinct_coherent_threads": len({plot.thread for plot in plots}) / len(texts),
        "distinct_coherent_plots": len(plots) / len(texts),
        "distinct_texts": len(set(texts)) / len(texts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=128, help="stories an arm (default 128)")
    options = parser.parse_args()
    model, tokenizer = load()
    result: dict[str, Any] = {"stories": options.stories, "prompts": {}}

    def write(prompt: str, routing: sr.RoutingConfig, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        routed = attach(model, routing)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        sampling = {"do_sample": True, "top_k": 0, **settings} if settings else {}
        out = routed.generate(ids, paths=options.stories, seed=seed, max_new_tokens=200, **sampling)
        routed.detach()
        return score(tokenizer.batch_decode(out.sequences, skip_special_tokens=True))

    for prompt in DEFAULT_PROMPTS:
        families = {}
        for family, arms in FAMILIES.items():
            tuned = {name: write(prompt, routing, settings, TUNING_SEED) for name, routing, settings in arms}
            best = max(arms, key=lambda arm: tuned[arm[0]]["distinct_coherent_threads"])
            families[family] = {
                "best": best[0],
                "report": write(prompt, best[1], best[2], REPORT_SEED),
                "tuning": tuned,
            }
            print(prompt, "|", family, "|", best[0], families[family]["report"], flush=True)
        result["prompts"][prompt] = families
    print("written:", save("story_world", result))


if __name__ == "__main__":
    main()
