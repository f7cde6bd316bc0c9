"""Conversations of three turns with the embedded model: replies along paths against tuned sampling.

    python benchmarks/dialogue.py                # both languages, about three quarters of an hour on one free core
    python benchmarks/dialogue.py zh             # one of them; the figures of the other are kept

Somebody who follows a plot of the story world says its wish, its obstacle and its ending; the model replies as the
friend who helps, and the world's checker reads the whole talk. Every family has the same number of settings; each is
chosen on scenes of one seed and reported on scenes of another, by the same rule: the most distinct coherent talks.
Nothing is cut off that a setting does not name (no hidden top-k).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import save
from own_paths import attach, own
from results import RESULTS
from scipy.stats import bootstrap

import stochroute as sr
from stochroute.applications.chat import Script, draw_scene
from stochroute.embedded import load
from stochroute.evaluation.arms import NO_NOISE
from stochroute.evaluation.words import ngrams, words
from stochroute.generation.decoding import GREEDY, Decoding
from stochroute.paths import derive_paths
from stochroute.world import check, draw_text
from stochroute.world.plots import mix

TURNS = 3
LANGUAGES = ("en", "zh")
NGRAM = 4  # words that make a repetition
TUNING, REPORT = 1, 2


@dataclass(frozen=True)
class Setting:
    """One way to reply. `stays`: one path through all turns of a talk, else a new one at each."""

    label: str
    routing: sr.RoutingConfig = NO_NOISE
    decoding: Decoding = GREEDY
    stays: bool = False


def structural(**options: Any) -> sr.RoutingConfig:
    return sr.RoutingConfig(structural=sr.Structural(**options))


STRENGTHS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3)
OWN_STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0)
FAMILIES: dict[str, list[Setting]] = {
    "tuned sampling": [
        *[Setting(f"T {t}", decoding=Decoding(temperature=t)) for t in (0.7, 0.85, 1.0, 1.15)],
        *[Setting(f"T 1, top-p {p}", decoding=Decoding(top_p=p)) for p in (0.9, 0.95)],
        *[Setting(f"T {t}, min-p 0.1", decoding=Decoding(temperature=t, min_p=0.1)) for t in (1.0, 1.5)],
    ],
    "its own paths, one a reply, greedy": [Setting(f"strength {s}", own(s)) for s in OWN_STRENGTHS],
    "its own paths, one all along, greedy": [Setting(f"strength {s}", own(s), stays=True) for s in OWN_STRENGTHS],
    "paths, a draw a reply, greedy": [Setting(f"strength {s}", structural(strength=s)) for s in STRENGTHS],
    "paths, a draw a token, greedy": [Setting(f"strength {s}", structural(strength=s, hold=1)) for s in STRENGTHS],
    "one path all along, greedy": [Setting(f"strength {s}", structural(strength=s), stays=True) for s in STRENGTHS],
    "paths, a draw a reply, and temperature": [
        Setting(f"strength {s}, T {t}", structural(strength=s), Decoding(temperature=t))
        for s in (0.2, 0.45) for t in (0.5, 0.7, 0.85, 1.0)
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Where a talk begins, and what the person says in it."""

    script: Script
    messages: tuple[str, ...]


def scenes(seed: int, count: int, language: str) -> list[Scene]:
    """Scenes with the lines of their person, from dialogues drawn from the seed."""
    found = []
    for number in range(count):
        drawn = mix(seed, number)
        script = draw_scene(drawn, language)
        lines = draw_text(drawn, 0, language, "dialogue").split("\n")
        found.append(Scene(script, tuple(line.partition(script.colon)[2] for line in lines[1::2])))
    return found


def talk(model: Any, tokenizer: Any, setting: Setting, where: list[Scene], runs: int, seed: int) -> list[list[list]]:
    """The exchanges of every talk: for each scene `runs` talks of TURNS exchanges."""
    routed = attach(model, setting.routing)
    talks: list[list[list]] = [[[] for _ in range(runs)] for _ in where]
    for turn in range(TURNS):
        rows = [(scene, run) for scene in range(len(where)) for run in range(runs)]
        texts = [where[s].script.text(talks[s][r], where[s].messages[turn]) for s, r in rows]
        paths = [
            path
            for s in range(len(where))
            for path in derive_paths(mix(seed, s), runs, prompt=0 if setting.stays else turn)
        ]
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        out = routed.generate(
            batch.input_ids,
            attention_mask=batch.attention_mask,
            paths=paths,
            rows_at_once=64,
            max_new_tokens=48,
            stop_strings=["\n"],
            tokenizer=tokenizer,
            **setting.decoding.arguments(),
        )
        for (s, r), ids in zip(rows, out.generated, strict=True):
            reply = tokenizer.decode(ids, skip_special_tokens=True).partition("\n")[0].strip()
            talks[s][r].append((where[s].messages[turn], reply))
    routed.detach()
    return talks


def repeated(replies: Sequence[str], earlier: Sequence[str]) -> float:
    """The share of the replies' n-grams that an earlier reply had; NaN without any."""
    known = {gram for reply in earlier for gram in ngrams(words(reply), NGRAM)}
    grams = [gram for reply in replies for gram in ngrams(words(reply), NGRAM).elements()]
    return float(np.mean([gram in known for gram in grams])) if grams else float("nan")


def mean(values: Sequence[float]) -> float:
    """Of the values that are numbers; NaN without any."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")


def measures(where: list[Scene], talks: list[list[list]]) -> dict[str, np.ndarray]:
    """Each measure for each scene, float64 (scenes,).

    "distinct coherent": different talks that are coherent, over all talks. "distinct reply t": different replies at
    turn t among coherent talks, over all talks. "repeats itself": the share of a reply's 4-grams that stood in earlier
    replies of the same talk. "repeats other scenes": that stood in what the same run said in all earlier scenes, so
    the share of old phrases that somebody hears who goes through the scenes one after another (NaN in the first).
    """
    rows: dict[str, list[float]] = {}
    for index, (scene, runs) in enumerate(zip(where, talks, strict=True)):
        coherent = [t for t in runs if check(scene.script.whole(t), form="dialogue").coherent]
        own = [repeated([t[i][1]], [reply for _, reply in t[:i]]) for t in runs for i in range(1, TURNS)]
        old = [
            repeated([reply for _, reply in t], [reply for before in talks[:index] for _, reply in before[run]])
            for run, t in enumerate(runs)
        ]
        found = {
            "coherent": len(coherent) / len(runs),
            "distinct coherent": len({tuple(t) for t in coherent}) / len(runs),
            **{f"distinct reply {i + 1}": len({t[i][1] for t in coherent}) / len(runs) for i in range(TURNS)},
            "repeats itself": mean(own),
            "repeats other scenes": mean(old),
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in rows.items()}


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean over scenes with a 95 % bootstrap interval."""
    known = values[~np.isnan(values)]
    centre = float(known.mean())
    if np.ptp(known) == 0:
        return {"mean": centre, "low": centre, "high": centre}
    found = bootstrap((known,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return {"mean": centre, "low": float(found.low), "high": float(found.high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10, help="scenes of each seed (default 10)")
    parser.add_argument("--runs", type=int, default=24, help="talks a scene (default 24)")
    parser.add_argument("languages", nargs="*", choices=[*LANGUAGES, []], help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load()
    plan = {"scenes": options.scenes, "talks_a_scene": options.runs, "turns": TURNS}
    file = RESULTS / "dialogue.json"
    earlier: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    kept = earlier["languages"] if plan.items() <= earlier.items() else {}
    for language in options.languages or LANGUAGES:
        tuning, report = (scenes(seed, options.scenes, language) for seed in (TUNING, REPORT))
        families: dict[str, Any] = {}
        reported: dict[str, dict[str, np.ndarray]] = {}
        for family, settings in FAMILIES.items():
            tuned = {}
            for setting in settings:
                talks = talk(model, tokenizer, setting, tuning, options.runs, TUNING)
                tuned[setting.label] = {n: mean(v.tolist()) for n, v in measures(tuning, talks).items()}
            best = max(settings, key=lambda setting: tuned[setting.label]["distinct coherent"])
            reported[family] = measures(report, talk(model, tokenizer, best, report, options.runs, REPORT))
            families[family] = {
                "best": best.label,
                "report": {name: interval(values) for name, values in reported[family].items()},
                "tuning": tuned,
            }
            print(language, "|", family, "|", best.label, families[family]["report"], flush=True)
        base = reported["tuned sampling"]
        for family in list(FAMILIES)[1:]:
            families[family]["minus_tuned_sampling"] = {
                name: interval(values - base[name]) for name, values in reported[family].items()
            }
        kept[language] = families
        print("written:", save("dialogue", {**plan, "languages": kept}), flush=True)


if __name__ == "__main__":
    main()
