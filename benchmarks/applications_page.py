"""Fills docs/augment.md and docs/explore.md from the results of augmentation.py and exploration.py.

python benchmarks/applications_page.py
"""

from collections import Counter
from pathlib import Path
from typing import Any

from results import fill, markdown, read

DOCS = Path(__file__).parents[1] / "docs"
SCRIPT = "benchmarks/applications_page.py"
LEARNED_FROM = {
    "temperature": "given and by temperature",
    "spread": "given and by temperature, spread",
    "paths": "given and by paths",
}


def arms(found: dict[str, Any], score: str, digits: int) -> str:
    """What each arm reached, with what was chosen for it."""
    seeds = len(found["arms"]["paths"]["scores"])
    rows = [["learned from", f"{score}, mean of {seeds}", "smallest – largest", "chosen"], ["---"] * 4]
    for name, arm in found["arms"].items():
        chosen = ", ".join(f"{key} {value}" for key, value in arm["chosen"].items() if key != "setting")
        setting = arm["chosen"]["setting"]
        low, high = min(arm["scores"]), max(arm["scores"])
        rows.append(
            [
                LEARNED_FROM.get(name, name),
                f"{arm['mean']:.{digits}f}",
                f"{low:.{digits}f} – {high:.{digits}f}",
                chosen if setting is None else f"{setting}; {chosen}",
            ]
        )
    return markdown(rows)


def differences(found: dict[str, Any], digits: int) -> str:
    """The differences, paired by seed."""
    rows = [["difference", "mean", "95 %"], ["---"] * 3]
    for one in found["differences"]:
        span = f"{one['low']:+.{digits}f} – {one['high']:+.{digits}f}"
        rows.append([f"{one['first']} − {one['second']}", f"{one['value']:+.{digits}f}", span])
    return markdown(rows)


def augmentation(result: dict[str, Any]) -> str:
    """Both experiments."""
    told = {"classifier": "accuracy (higher is better)", "language model": "nats per token (lower is better)"}
    parts: list[str] = []
    for name in (name for name in told if name in result):
        found = result[name]
        parts += [
            f"**{name.capitalize()}**, {found['given']} given stories, {told[name]}:",
            arms(found, told[name].partition(" (")[0], 3),
            differences(found, 3),
            made(found),
        ]
    return "\n\n".join(parts)


def exploration(result: dict[str, Any]) -> str:
    """One row a kind of prompt."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for one in result["prompts"]:
        groups.setdefault((one["language"], one["cut"], one["known"]), []).append(one)
    rows = [["prompt ends", "plots left", "paths walked", "seen", "estimated", "inside"], ["---"] * 6]
    for (language, cut, known), all_of in groups.items():
        told = [
            f"{o['estimate']['value']:.1f} ({o['estimate']['low']:.1f} – {o['estimate']['high']:.1f})" for o in all_of
        ]
        rows.append(
            [
                f"{cut} ({language})",
                str(known),
                "; ".join(str(o["paths"]) for o in all_of),
                "; ".join(str(o["seen"]) for o in all_of),
                "; ".join(told),
                f"{Counter(o['inside'] for o in all_of)[True]} of {len(all_of)}",
            ]
        )
    closing = (
        f"The known number lies in the interval for {result['inside']} of {len(result['prompts'])} prompts at the end, "
        f"and at {result['inside_on_the_way']} of the {result['steps']} looks after every 64 paths."
    )
    return "\n\n".join([markdown(rows), closing, made(result)])


def made(result: dict[str, Any]) -> str:
    """How it was measured."""
    return (
        f"Measured by `{result['command']}` on {result['date']}, {result['processor']}, threads: {result['threads']}."
    )


def main() -> None:
    fill(DOCS / "augment.md", SCRIPT, augmentation(read("augmentation")))
    fill(DOCS / "explore.md", SCRIPT, exploration(read("exploration")))


if __name__ == "__main__":
    main()
