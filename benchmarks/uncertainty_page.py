"""Fills docs/uncertainty.md from results/uncertainty.json, and draws its selective accuracy.

python benchmarks/uncertainty_page.py
"""

from pathlib import Path
from typing import Any

from results import fill, markdown, read

from stochroute.uncertainty.pictures import draw_curves

SHARES = (0.25, 0.5)
FIGURE = "![Accuracy over the share of questions answered](img/uncertainty_selective.svg)"
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


def selective(found: dict[str, Any]) -> str:
    """AURC and the accuracy of the surest part, by arm."""
    rows = [["", "AURC", *(f"accuracy of the surest {share:.0%}" for share in SHARES)], ["---"] * (2 + len(SHARES))]
    for name, detection in found["detections"].items():
        curve = dict(detection["curve"])
        values = [detection["aurc"], *(curve[share] for share in SHARES)]
        rows.append([name, *(f"{v['value']:.3f} ({v['low']:.3f} – {v['high']:.3f})" for v in values)])
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
    curves = {name: detection["curve"] for name, detection in found["detections"].items()}
    (DOCS / "img" / "uncertainty_selective.svg").write_text(draw_curves(curves), encoding="utf-8")
    parts = [gains(found), means(found), selective(found), FIGURE, arms(found), note]
    fill(DOCS / "uncertainty.md", "benchmarks/uncertainty_page.py", "\n\n".join(parts))


if __name__ == "__main__":
    main()
