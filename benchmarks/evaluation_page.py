"""Fills docs/evaluation.md from the runs of benchmarks/evaluation.py.

python benchmarks/evaluation_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

PAGE = Path(__file__).parents[1] / "docs" / "evaluation.md"


def interval(found: dict[str, Any] | None, digits: int = 2) -> str:
    """A value with its interval."""
    if found is None:
        return "–"
    if found["low"] is None:
        return f"{found['value']:.{digits}f}"
    return f"{found['value']:.{digits}f} ({found['low']:.{digits}f} – {found['high']:.{digits}f})"


def signed(found: dict[str, Any]) -> str:
    """A difference with its interval."""
    ends = "" if found["low"] is None else f" ({found['low']:+.2f} to {found['high']:+.2f})"
    return f"{found['value']:+.2f}{ends}".replace("-", "−")


def section(name: str, run: dict[str, Any]) -> str:
    """One run: verdict, all measures, arms against samplers, kinds, costs."""
    labels = {m["name"]: m["label"] for m in run["measures"]}
    samplers = [arm["name"] for arm in run["arms"] if arm["family"] == "sampler"]
    paths = [arm["name"] for arm in run["arms"] if arm["family"] == "paths"]
    compared = {(c["first"], c["second"]): c for c in run["arms_compared"]}
    measures = [
        ["all paths over all samplers, in", "difference at equal quality", "samplers there"],
        ["---"] * 3,
        *[[labels[m], signed(c["difference"]), f"{abs(c['over']):.2f}"] for m, c in run["paths_over_samplers"].items()],
    ]
    arms = [
        ["", *samplers],
        ["---"] * (len(samplers) + 1),
        *[
            [arm, *(signed(compared[arm, s]["difference"]) if (arm, s) in compared else "–" for s in samplers)]
            for arm in paths
        ],
    ]
    costs = [
        ["arm", "learnable parameters", "numbers drawn a token", "time over plain sampling"],
        ["---"] * 4,
        *[
            [arm["name"], f"{c['parameters']:,}", f"{c['drawn']:.3g}",
             f"{c['time']['median']:.2f} × ({c['time']['low']:.2f} – {c['time']['high']:.2f})"]
            for arm in run["arms"] if (c := run["costs"].get(arm["name"]))
        ],
    ]  # fmt: skip
    coherent = [
        [
            "coherent share at",
            *dict.fromkeys(s["label"] for s in run["settings"] if s["budget"] and " nats" in s["label"]),
        ],
    ]
    coherent += [["---"] * len(coherent[0])]
    for arm in paths:
        own = [s for s in run["settings"] if s["arm"] == arm and " nats" in s["label"]]
        if own:
            cells = [f"{s['coherent']['value']:.2f} (strength {s['strength'][0]:.3g})" for s in own]
            coherent.append([arm, *cells])
    judge = f"judge {Path(run['judge']).name}" if run["judge"] else f"the {run['checker']} checker"
    size = f"{run['prompts']} prompts × {run['samples_each']} texts of up to {run['max_new_tokens']} tokens"
    parts = [
        f"### {name}: {size}, {judge}",
        f"**{run['verdict']}**",
        f"`{run['command']}` ({run['date']}, {run['processor']})",
        markdown(measures),
        f"Every path arm against every sampler, in {labels[run['headline']['diversity']]}:",
        markdown(arms),
        "Which kind, when: " + " ".join(run["kinds"]),
        markdown(coherent),
        markdown(costs),
    ]
    return "\n\n".join(parts)


def main() -> None:
    result = read("evaluation")
    sections = [section(name.replace("_", " "), run) for name, run in result["runs"].items()]
    if result["judges"]:
        bits = ", ".join(f"{name} {found['bits_per_byte']:.2f}" for name, found in result["judges"].items())
        texts = next(iter(result["judges"].values()))["texts"]
        sections.append(
            f"How well they predict {texts} real stories (TinyStories validation), in bits per byte: {bits}."
        )
    fill(PAGE, "benchmarks/evaluation_page.py", "\n\n".join(sections))


if __name__ == "__main__":
    main()
