"""Fills docs/creativity.md and draws its figures from the runs of benchmarks/creativity.py.

python benchmarks/creativity_page.py
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from line_chart import Panel, Points, draw
from results import RESULTS, fill, markdown, of_size, read

DOCS = Path(__file__).parents[1] / "docs"
RUNS = RESULTS / "creativity_runs"
SIZES = {"cpu": "", "published": "at the published shape"}  # and what a heading says of them
RECIPE = "fresh, latent"  # the article's: fresh noise, likelihood
BOUND = "bound to examples, latent"  # what it is drawn beside
KINDS = ("null", "seed", "dropout", "fresh", "frozen", "shuffled", "bound")  # what the names of arms begin with
LAST = 12  # arms in a figure: the best of them


def against(size: str, tasks: dict[str, Any]) -> str | None:
    """The best arm along paths beside the best of all others on every task that has both; None where no task has."""
    rows = [["task", "along paths", "", "best other arm", "", "ratio", "intervals"], ["---"] * 7]
    for name, found in tasks.items():
        arms = best_first(found)
        path = next((arm for arm in arms if along_paths(arm)), None)
        other = next((arm for arm in arms if not along_paths(arm)), None)
        if path and other:
            ours, theirs = arms[path], arms[other]
            ratio = f"{ours['creativity'] / theirs['creativity']:.2f}"
            rows.append([name, _scored(ours), path, _scored(theirs), other, ratio, _intervals(ours, theirs)])
    if len(rows) == 2:
        return None
    title = " ".join(["### Paths against all other arms", SIZES[size]]).strip()
    legend = (
        "Along paths: noise bound to examples, by inference or by transmission, or samples along spread paths. Others: "
        "everything else, among it fresh noise along independent paths. Intervals: 95 %, over training seeds."
    )
    return "\n\n".join([title, markdown(rows), legend])


def along_paths(arm: str) -> bool:
    """Whether an arm's noise was bound to something in training, or its samples are drawn along spread paths."""
    return arm.startswith("bound ") or arm.endswith("spread")


def _intervals(one: dict[str, Any], other: dict[str, Any]) -> str:
    if one["low"] is None or other["low"] is None:
        return "one seed"
    return "apart" if one["low"] > other["high"] or other["low"] > one["high"] else "meet"


def overview(size: str, tasks: dict[str, Any]) -> str:
    """The best arm of each kind on every task, with the seeds behind it; the best of a task in bold."""
    rows = [["task", "ceiling", *KINDS, "bound, greedy", "spread"], ["---"] * (len(KINDS) + 4)]
    for name, found in tasks.items():
        arms = best_first(found)
        spread = [arm for arm in arms if arm.endswith("spread")]
        kinds = [[arm for arm in arms if arm.startswith(kind) and arm not in spread] for kind in KINDS]
        kinds += [[arm for arm in kinds[-1] if arm.endswith("greedy")], spread]
        highest = next(iter(arms.values()))["creativity"]
        cells = [_cell(arms[kind[0]], highest) if kind else "" for kind in kinds]
        rows.append([name, f"{found['ceiling']:.3f}", *cells])
    title = " ".join(["### The best of each kind", SIZES[size]]).strip()
    legend = "In brackets: training seeds. Bold: the best of a task; a kind with more arms has more chances."
    return "\n\n".join([title, markdown(rows), legend])


def best_first(found: dict[str, Any]) -> dict[str, Any]:
    """The arms of a task with their scores, the most creative first."""
    arms = {arm: scores for arm, scores in found.items() if arm != "ceiling"}
    return dict(sorted(arms.items(), key=lambda item: -item[1]["creativity"]))


def _cell(scores: dict[str, Any], highest: float) -> str:
    value = f"{scores['creativity']:.3f}"
    return f"{f'**{value}**' if scores['creativity'] == highest else value} ({scores['seeds']})"


def _scored(scores: dict[str, Any]) -> str:
    interval = "" if scores["low"] is None else f" ({scores['low']:.3f} – {scores['high']:.3f})"
    return f"{scores['creativity']:.3f}{interval}"


def table(size: str, name: str, found: dict[str, Any]) -> str:
    """All arms of a task, the best first."""
    ceiling, arms = found["ceiling"], best_first(found)
    rows = [
        ["arm", "creativity", "of the ceiling", "coherence", "memorised", "unique", "seeds"],
        ["---"] * 7,
    ]
    for arm, scores in arms.items():
        shares = [
            "–" if scores[share] is None else f"{scores[share]:.3f}" for share in ("coherence", "memorised", "unique")
        ]
        rows.append(
            [
                arm,
                _scored(scores),
                f"{scores['creativity'] / ceiling:.2f}",
                *shares,
                str(scores["seeds"]),
            ]
        )
    chance = next(iter(arms.values()))["chance"]
    title = " ".join([name.capitalize(), SIZES[size]]).strip()
    heading = f"### {title}: ceiling {ceiling:.3f}, memorised by chance {chance:.3f}"
    figure = f"![Creativity, coherence and memorised share over the steps](img/{_file(size, name)})"
    return "\n\n".join([heading, markdown(rows), figure])


def read_runs(size: str, name: str, training: str = "*") -> list[dict[str, Any]]:
    """The runs of a task, of one training or of all."""
    return [json.loads(path.read_text()) for path in sorted((RUNS / size / name).glob(f"{training}.[0-9]*.json"))]


def over_steps(runs: list[dict[str, Any]], arm: str, share: str) -> Points:
    """A share of an arm's samples at each step where it was considered, the mean over runs that have one there."""
    points: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for point in run["curve"]:
            if point["arm"] == arm and point[share] is not None:  # nothing coherent: no share of it is copied
                points[point["step"]].append(point[share])
    return [(step, float(np.mean(shares))) for step, shares in sorted(points.items())]


def curves(size: str, name: str, found: dict[str, Any]) -> str:
    """Creativity, coherence and memorised share over the steps, each arm at its best setting of that step."""
    arms = list(best_first(found))[:LAST]
    runs = read_runs(size, name)
    # what takes over another training's last steps has no curve of its own
    shown = [arm for arm in arms if "transmission" not in arm and len(over_steps(runs, arm, "creativity")) > 1]
    levels = {"creativity": found["ceiling"], "coherence": None, "memorised": found[arms[0]]["chance"]}
    panels = [
        Panel(share, {arm: over_steps(runs, arm, share) for arm in shown}, 1.0, level)
        for share, level in levels.items()
    ]
    return draw(panels, "steps")


def recipe(size: str, name: str) -> str | None:
    """What becomes of fresh noise: σ, transmission and copied share over the steps; None without such runs."""
    runs, bound, null = (read_runs(size, name, training) for training in (RECIPE, BOUND, "null"))
    if not runs or not null:
        return None

    def logged(runs: list[dict[str, Any]], of: Any) -> Points:
        return [(e[0]["step"], float(np.mean([of(x) for x in e]))) for e in zip(*(r["log"] for r in runs), strict=True)]

    def sigma(entry: dict[str, float]) -> float:
        return float(np.mean([value for key, value in entry.items() if key.startswith("sigma/")]))

    arms = {RECIPE: runs, **({BOUND: bound} if bound else {})}
    transmissions = {arm: logged(found, lambda entry: entry["transmission"]) for arm, found in arms.items()}
    panels = [
        Panel("σ over where it began", {arm: logged(found, sigma) for arm, found in arms.items()}, 2.0, 1.0),
        Panel(
            "transmission, nats a token",
            transmissions,
            max(0.01, 1.1 * max(y for points in transmissions.values() for _, y in points)),
        ),
        Panel(
            "copied share of coherent samples",
            {
                **{arm: over_steps(found, f"{arm}, tempered", "memorised") for arm, found in arms.items()},
                "null": over_steps(null, "null, temperature", "memorised"),
            },
            1.0,
            null[0]["arms"]["null, temperature"]["test"]["chance"],
        ),
    ]
    return draw(panels, "steps")


def _file(size: str, name: str, kind: str = "creativity") -> str:
    return f"{of_size(kind, size)}_{name.replace(', ', '_').replace(' ', '_')}.svg"


def main() -> None:
    sections = []
    for size in SIZES:
        tasks = read(of_size("creativity", size))
        sections += [part for part in (against(size, tasks), overview(size, tasks)) if part]
        for name, found in tasks.items():
            (DOCS / "img" / _file(size, name)).write_text(curves(size, name, found), encoding="utf-8")
            section = table(size, name, found)
            drawn = recipe(size, name)
            if drawn is not None:
                picture = _file(size, name, "recipe")
                (DOCS / "img" / picture).write_text(drawn, encoding="utf-8")
                section += f"\n\n![σ, transmission and copied share over the steps](img/{picture})"
            sections.append(section)
    fill(DOCS / "creativity.md", "benchmarks/creativity_page.py", "\n\n".join(sections))


if __name__ == "__main__":
    main()
