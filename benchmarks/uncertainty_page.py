"""Fills docs/uncertainty.md from results/uncertainty.json.

python benchmarks/uncertainty_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

DOCS = Path(__file__).parents[1] / "docs"


def gains(found: dict[str, Any]) -> str:
    """What the main arm and the published protocol gain."""
    rows = [["", "AUROC, in points", "of the gap to 1", "accuracy, in points"], ["---"] * 4]
    for name, gain in found["gains"].items():
        rows.append(
            [
                name,
                f"**{100 * gain['auroc']:+.1f}** ({100 * gain['low']:+.1f} … {100 * gain['high']:+.1f})",
                f"{gain['share_of_the_gap_to_1']:.0%}",
                f"{100 * gain['accuracy']:+.1f}",
            ]
        )
    return markdown(rows)


def arms(found: dict[str, Any]) -> str:
    """Every arm and score, the best first."""
    rows = [["arm / score", "AUROC", "accuracy", "seeds", "chosen"], ["---"] * 5]
    for name, arm in sorted(found["arms"].items(), key=lambda item: -item[1]["auroc"]):
        rows.append(
            [
                name,
                f"{arm['auroc']:.3f} ({arm['low']:.3f} – {arm['high']:.3f})",
                f"{arm['accuracy']:.3f}",
                str(len(arm["by_seed"])),
                "; ".join(dict.fromkeys(seed["trial"] for seed in arm["by_seed"])),
            ]
        )
    return markdown(rows)


def means(found: dict[str, Any]) -> str:
    """What each score says of facts told and not told, by their number of right answers."""
    columns = found["means"]
    rows = [["mean score", *columns], ["---"] * (1 + len(columns))]
    for kind in next(iter(columns.values())):
        rows.append([kind, *(f"{values[kind]:.3f}" for values in columns.values())])
    return markdown(rows)


def main() -> None:
    found = read("uncertainty")
    setting, groups = found["setting"], found["accuracy_by_group"]
    seeds = ", ".join(map(str, setting["seeds"]))
    told, untold, strangers = (
        sum(seed[name] for seed in groups) / len(groups) for name in ("told", "untold", "stranger")
    )
    note = (
        f"{setting['questions_a_seed']['test']:,} test questions a seed, seeds {seeds}. "
        "Intervals of 95 % by a bootstrap over questions. Accuracy of a single pass: "
        f"{told:.2f} where the fact was told, {untold:.2f} where not, {strangers:.2f} for strangers. Measured by "
        f"`{found['command']}` on {found['date']}, {found['processor']}, threads: {found['threads']}."
    )
    fill(
        DOCS / "uncertainty.md",
        "benchmarks/uncertainty_page.py",
        "\n\n".join([gains(found), means(found), arms(found), note]),
    )


if __name__ == "__main__":
    main()
